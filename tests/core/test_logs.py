"""core.logs: one JSON object a line, whatever the source."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog
from opentelemetry import trace

from meshwright.core import logs


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What the process wrote; logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(read: Callable[[], str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in read().splitlines()]


def test_event_and_fields_become_one_json_line(stderr: Callable[[], str]) -> None:
    logs.setup("mixer")
    structlog.get_logger("x").info("replica_joined", address="127.0.0.1:1", count=2)
    [line] = lines(stderr)
    assert line["event"] == "replica_joined"
    assert (line["service"], line["level"], line["count"]) == ("mixer", "info", 2)
    assert str(line["timestamp"]).endswith("Z")


def test_less_severe_lines_are_left_out(stderr: Callable[[], str]) -> None:
    logs.setup("mixer", "warning")
    structlog.get_logger().info("quiet")
    logging.getLogger("library").info("quiet too")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(stderr)] == ["loud"]


def test_library_lines_have_the_same_form_and_traceback(stderr: Callable[[], str]) -> None:
    logs.setup("mixer")
    try:
        int("boom")
    except ValueError:
        logging.getLogger("library").exception("it %s", "failed")
    [line] = lines(stderr)
    assert (line["event"], line["logger"], line["level"]) == ("it failed", "library", "error")
    assert "ValueError: invalid literal" in str(line["exception"])


def test_wrong_format_arguments_of_a_library_raise_nothing(stderr: Callable[[], str]) -> None:
    logs.setup("mixer")
    logging.getLogger("library").warning("%d", "not a number")
    assert lines(stderr)


def test_trace_ids_are_added(stderr: Callable[[], str]) -> None:
    logs.setup("mixer")
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        structlog.get_logger().info("inside")
    [line] = lines(stderr)
    assert line["trace_id"] == "0" * 29 + "abc"
    assert line["span_id"] == "0" * 13 + "def"


def test_long_fields_are_cut(stderr: Callable[[], str]) -> None:
    logs.setup("mixer")
    structlog.get_logger().warning("bad_input", text="x" * 1_000_000, raw=b"\xff" * 1_000_000)
    assert len(stderr()) < 100_000


def test_closed_stderr_is_no_error(stderr: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    logs.setup("mixer")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger().info("nobody_listens")


def test_sink_sees_finished_events(stderr: Callable[[], str]) -> None:
    seen: list[logs.Event] = []
    logs.setup("mixer", sink=lambda event: seen.append(dict(event)))
    structlog.get_logger().info("a", n=1)
    logging.getLogger("library").warning("b")
    assert [event["event"] for event in seen] == ["a", "b"]
