"""What is said of a test: by the guest line for line, or by the host where the guest can't."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


class Sender:
    """A plugin of the guest's pytest: each report is a line of JSON in a file that the host reads."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        self._config = config
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._send(report.nodeid, said)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._send(nodeid, None)

    def _send(self, nodeid: str, said: dict[str, Any] | None) -> None:
        os.write(self._file, json.dumps([nodeid, said]).encode() + b"\n")


def failed(item: pytest.Item, reason: str) -> pytest.TestReport:
    """Report a test that the guest didn't get through."""
    return _report(item, "failed", reason)


def skipped(item: pytest.Item, reason: str) -> pytest.TestReport:
    """Report a test for which there is no guest."""
    return _report(item, "skipped", (str(item.path), item.location[1], f"Skipped: {reason}"))


def _report(item: pytest.Item, outcome: Any, told: Any) -> pytest.TestReport:
    keywords = {name: 1 for name in item.keywords}
    return pytest.TestReport(item.nodeid, item.location, keywords, outcome, told, "call")
