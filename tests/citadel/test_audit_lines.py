"""Audit lines follow the process's log configuration, although their logger is made at import."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from meshwright.citadel import audit
from meshwright.citadel.ca.jwt_svid import Token
from meshwright.core import logs


def test_audit_lines_are_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("citadel")
    audit.refused("spiffe://mesh.local/ns/default/sa/shop", "certificate", "no")  # type: ignore[arg-type]
    captured = capsys.readouterr()
    assert captured.out == ""
    line = json.loads(captured.err)
    assert (line["event"], line["audit"], line["reason"]) == ("request_refused", True, "no")


def test_a_token_is_told_of_and_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("citadel")
    now = datetime.now(UTC)
    token = Token("the.secret.token", "spiffe://mesh.local/ns/shop/sa/web", now, now + timedelta(minutes=5))
    audit.token_issued("spiffe://mesh.local/ns/meshwright-system/sa/citadel-agent", token, ("db",), "web")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["spiffe_id"], line["audience"]) == ("token_issued", token.spiffe_id, ["db"])
    assert token.text not in f"{line} {token!r}"
