"""core.admin: health and metrics over HTTP, on a private socket or mutual TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from pathlib import Path

import httpx
import pytest

from meshwright.core import admin, errors, health
from meshwright.core.identity import StaticIdentity, X509Identity
from pki import Pki


def over_unix(path: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://admin")


def over_tls(address: str, identity: X509Identity | None, bundle: bytes, folder: Path) -> httpx.AsyncClient:
    context = ssl.create_default_context(cadata=bundle.decode())
    context.check_hostname = False
    if identity:
        Pki.write(identity, folder)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return httpx.AsyncClient(verify=context, base_url=f"https://{address}", trust_env=False)


async def test_socket_is_private_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with admin.Admin(f"unix:{path}", health.Health()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_health_says_every_part_and_readiness(tmp_path: Path) -> None:
    conditions = health.Health("store")
    async with admin.Admin(f"unix:{tmp_path}/a.sock", conditions), over_unix(tmp_path / "a.sock") as client:
        assert (await client.get("/healthz")).status_code == 200
        unready = await client.get("/readyz")
        assert unready.status_code == 503
        assert unready.json()["parts"] == {"store": {"state": "failed", "reason": "starting"}}
        conditions.set("store", True)
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["state"]) == (200, "ok")
        assert (await client.get("/elsewhere")).status_code == 404


async def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    async with admin.Admin(f"unix:{tmp_path}/a.sock", health.Health()), over_unix(tmp_path / "a.sock") as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "process_resident_memory_bytes" in answer.text


async def test_socket_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with admin.Admin(f"unix:{path}", health.Health()), over_unix(path) as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_socket_that_is_served_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with admin.Admin(f"unix:{path}", health.Health()):
        with pytest.raises(errors.Unavailable, match="served by another process"):
            await admin.Admin(f"unix:{path}", health.Health()).__aenter__()


async def test_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(errors.Unavailable, match="isn't a socket"):
        await admin.Admin(f"unix:{path}", health.Health()).__aenter__()
    assert path.read_text() == "data"


async def test_no_address_means_no_listener() -> None:
    async with admin.Admin(None, health.Health()) as nothing:
        assert nothing.address is None


def test_plain_tcp_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="plain text"):
        admin.Admin("127.0.0.1:0", health.Health())


async def test_tcp_asks_for_a_platform_identity(pki: Pki, tmp_path: Path) -> None:
    source = StaticIdentity(pki.part("mixer"))
    async with admin.Admin("127.0.0.1:0", health.Health(), source) as served:
        address = served.address or ""
        async with over_tls(address, pki.part("admin"), pki.bundle_pem, tmp_path / "a") as client:
            assert (await client.get("/healthz")).status_code == 200
        async with over_tls(address, pki.workload("shop"), pki.bundle_pem, tmp_path / "b") as client:
            assert (await client.get("/healthz")).status_code == 403
        async with over_tls(address, None, pki.bundle_pem, tmp_path / "c") as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")
        async with over_tls(address, Pki().part("admin"), pki.bundle_pem, tmp_path / "d") as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")


async def test_rotation_replaces_certificate_and_bundle(pki: Pki, tmp_path: Path) -> None:
    """After a rotation the new authority is trusted, the old one isn't, and the new certificate is shown."""
    source, successor = StaticIdentity(pki.part("mixer")), Pki()
    async with admin.Admin("127.0.0.1:0", health.Health(), source) as served:
        source.replace(successor.part("mixer"))
        address = served.address or ""
        async with over_tls(address, successor.part("admin"), successor.bundle_pem, tmp_path / "n") as client:
            assert (await client.get("/healthz")).status_code == 200
        async with over_tls(address, pki.part("admin"), successor.bundle_pem, tmp_path / "o") as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")


async def test_taken_port_is_named(pki: Pki) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.Unavailable, match=address):
            await admin.Admin(address, health.Health(), StaticIdentity(pki.part("mixer"))).__aenter__()


async def test_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    async with admin.Admin(None, health.Health()):
        pass
    assert asyncio.all_tasks() == before
