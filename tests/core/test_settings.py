"""core.settings: one model gives options, variables and help; faults are one line each and status 64."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import Field

from meshwright.core import settings


class Example(settings.ServiceSettings):
    """A service with one setting of its own."""

    part: ClassVar[str] = "nsm-example"
    window_seconds: int = Field(3, description="How long a window lasts, in seconds.")


def test_options_and_environment_name_the_same_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHWRIGHT_NSM_EXAMPLE_WINDOW_SECONDS", "7")
    monkeypatch.setenv("MESHWRIGHT_NSM_EXAMPLE_ETCD", "a:1, b:2")
    monkeypatch.setenv("MESHWRIGHT_NSM_EXAMPLE_ETCD_TLS", "tls")
    read = settings.load(Example, ["--insecure-loopback", "--listen", "127.0.0.1:5"])
    assert (read.window_seconds, read.etcd, read.listen) == (7, ("a:1", "b:2"), "127.0.0.1:5")
    assert settings.load(Example, ["--insecure-loopback", "--window-seconds", "9"]).window_seconds == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--identity: no certificate to serve with"),
        (["--insecure-loopback", "--listen", "0.0.0.0:1"], "0.0.0.0:1 can be reached from other machines"),
        (["--insecure-loopback", "--etcd", "a:1"], "--etcd-tls: needed with --etcd"),
        (["--insecure-loopback", "--nats", "a:1"], "--nats-tls: needed with --nats"),
        (["--insecure-loopback", "--window-seconds", "soon"], "--window-seconds: Input should be a valid integer"),
        (["--citadel-token", "file"], "--citadel-socket: needed"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_bad_input_is_told_and_ends_with_the_usage_status(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        settings.load(Example, arguments)
    assert ended.value.code == 64
    assert message in capsys.readouterr().err


def test_help_explains_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        settings.load(Example, ["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Example.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description
        assert " ".join(field.description.split()) in text


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/x", True),
        ("0.0.0.0:1", False),
        ("10.0.0.1:1", False),
        ("example.org:1", False),
        ("[::]:1", False),
    ],
)
def test_local_addresses(address: str, local: bool) -> None:
    assert settings.is_local(address) is local
