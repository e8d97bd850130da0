"""What `meshwright-verify` says of parts that are well, that aren't, and that are somebody else."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from meshwright.citadel.infrastructure import certificates
from meshwright.core import errors
from meshwright.core.grpc import Authorization, Server, introspection
from meshwright.core.health import Health
from meshwright.core.identity import StaticIdentity
from meshwright.core.kubernetes import Cluster
from meshwright.platform.verify import app, health
from meshwright.platform.verify.settings import VerifySettings

DOMAIN = "mesh.local"


@contextlib.asynccontextmanager
async def part(pki, name, *, ready=True):
    """A part's listener with health, as every part has it; yields its port."""
    state = Health("listener")
    state.set("listener", ready, "" if ready else "the disk is full")
    server = Server("127.0.0.1:0", StaticIdentity(pki.part(name)), authorize=Authorization(introspection.rules(DOMAIN)))
    introspection.add_to_server(server, state)
    address = await server.start()
    try:
        yield int(address.rpartition(":")[2])
    finally:
        await server.stop(0)


def arguments(tmp_path, pki, **ports):
    pki.write(pki.part("admin"), tmp_path / "identity")
    parts = ",".join(f"{name.replace('_', '-')}=127.0.0.1:{port}" for name, port in ports.items())
    return VerifySettings(_cli_parse_args=[f"--identity={tmp_path}/identity", f"--parts={parts}"])


async def test_a_part_that_serves_passes(pki):
    async with part(pki, "mixer") as port:
        await health.ask("mixer", "127.0.0.1", port, StaticIdentity(pki.part("admin")), DOMAIN)


async def test_a_part_that_has_failed_is_named(pki):
    async with part(pki, "mixer", ready=False) as port:
        with pytest.raises(errors.Unavailable, match=rf"mixer at 127.0.0.1:{port} isn't serving"):
            await health.ask("mixer", "127.0.0.1", port, StaticIdentity(pki.part("admin")), DOMAIN)


async def test_another_part_in_its_place_is_not_believed(pki):
    async with part(pki, "collector") as port:
        with pytest.raises(errors.Unavailable, match="mixer at"):
            await health.ask("mixer", "127.0.0.1", port, StaticIdentity(pki.part("admin")), DOMAIN)


async def test_a_service_without_addresses_is_said_to_have_none(pki):
    with pytest.raises(errors.Unavailable, match="has no address: .*no pod of it is ready"):
        await health.ask("mixer", "mixer.invalid", 9091, StaticIdentity(pki.part("admin")), DOMAIN)


async def test_every_check_gets_a_line_and_failures_end_the_command_in_the_end(pki, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(app.kubernetes, "in_cluster", lambda: _nowhere(tmp_path))
    async with part(pki, "mixer") as mixer, part(pki, "manager", ready=False) as manager:
        settings = arguments(tmp_path, pki, mixer=mixer, manager=manager)
        with pytest.raises(errors.Unavailable, match=r"2 failed: health of manager; configuration: an object"):
            await app.run(settings, asyncio.Event())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("(")[0].strip() for line in lines if line.startswith("passed")] == [
        "passed  identity: citadel gives one for this account's token",
        "passed  health of mixer",
    ]
    assert sum(line.startswith("FAILED") for line in lines) == 2


def _nowhere(folder):
    """An API server that nobody is."""
    (folder / "ca.crt").write_bytes(certificates.new_ca(datetime.now(UTC)).certificate_pem)
    (folder / "token").write_text("a token")
    return Cluster("https://127.0.0.1:1", folder / "token", folder / "ca.crt")


@pytest.mark.parametrize("parts", ["mixer", "mixer=mixer:", "=mixer:9091", "mixer=mixer:http"])
def test_a_part_without_address_is_refused(parts):
    with pytest.raises(ValidationError, match="isn't part=host:port"):
        VerifySettings(_cli_parse_args=["--insecure-loopback", f"--parts={parts}"])
