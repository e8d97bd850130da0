"""Audit lines follow the process's log configuration, although their logger is made at import."""

from __future__ import annotations

import json

import pytest

from meshwright.citadel import audit
from meshwright.core import logs


def test_audit_lines_are_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("citadel")
    audit.refused("spiffe://mesh.local/ns/default/sa/shop", "certificate", "no")  # type: ignore[arg-type]
    captured = capsys.readouterr()
    assert captured.out == ""
    line = json.loads(captured.err)
    assert (line["event"], line["audit"], line["reason"]) == ("request_refused", True, "no")
