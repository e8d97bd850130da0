"""The demo's measuring tools measure right: intervals, the SPIFFE client, the intruder, the harness."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshwright.core import errors
from meshwright.core.admin import Admin
from meshwright.core.health import Health
from meshwright.core.identity import StaticIdentity, X509Identity
from meshwright.platform.demo import binomial, enclaves, harness, intruder, load
from meshwright.platform.demo.client import Answer, Client
from meshwright.platform.demo.metrics import reached
from pki import Pki


@pytest.mark.parametrize(
    ("trials", "probability", "confidence"), [(1000, 0.1, 0.9999), (400, 0.5, 0.9999), (10, 0.5, 0.9)]
)
def test_interval_is_exact(trials: int, probability: float, confidence: float) -> None:
    """The interval holds at least the confidence, and a shorter one on either side would leave out too much."""
    from fractions import Fraction
    from math import comb

    share = Fraction(probability).limit_denominator(1000)
    masses = [comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(trials + 1)]
    low, high = binomial.interval(trials, probability, confidence)
    tail = Fraction(1 - confidence) / 2
    assert sum(masses[:low]) <= tail < sum(masses[: low + 1])
    assert sum(masses[high + 1 :]) <= tail < sum(masses[high:])


def test_interval_of_certain_events() -> None:
    """A share of nothing or of all leaves no room."""
    assert binomial.interval(100, 0.0, 0.9999) == (0, 0)
    assert binomial.interval(100, 1.0, 0.9999) == (100, 100)


def server_context(svid: X509Identity, *, ask: bool) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(svid.key_pem + svid.cert_chain_pem)
        file.flush()
        tls.load_cert_chain(file.name)
    if ask:
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_verify_locations(cadata=svid.bundle_pem.decode())
    return tls


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(4096):
                seen.append(data)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


async def test_client_accepts_the_expected_server_and_reuses_the_connection(pki: Pki) -> None:
    """Two requests to the right server go over one connection; a rotation of the identity begins a new one."""
    server, customer = pki.workload("shop"), StaticIdentity(pki.workload("customer"))
    async with serving(server_context(server, ask=True)) as (port, seen):
        client = Client("127.0.0.1", port, customer, server.spiffe_id)
        for _ in range(2):
            assert await client.get("shop", "/x") == Answer(200, b"ok", {"content-length": "2"})
        assert client.connections == 1
        customer.replace(pki.workload("customer"))
        await client.get("shop", "/x")
        assert client.connections == 2
        client.close()
    assert seen[0].startswith(b"GET /x HTTP/1.1\r\nhost: shop\r\n")


async def test_client_sends_nothing_to_another_server(pki: Pki) -> None:
    """A server with a valid certificate but another SPIFFE ID gets not one byte."""
    customer = StaticIdentity(pki.workload("customer"))
    async with serving(server_context(pki.workload("mallory"), ask=True)) as (port, seen):
        client = Client("127.0.0.1", port, customer, pki.workload("shop").spiffe_id)
        with pytest.raises(errors.Unauthorized, match="sa/mallory, expected"):
            await client.get("shop", "/")
        client.close()
    assert seen == []


async def test_intruder_is_refused_by_mutual_tls(pki: Pki) -> None:
    """A server with mutual TLS gives neither a plain-text caller nor a foreign certificate anything."""
    svid = pki.workload("shop")
    async with serving(server_context(svid, ask=True)) as (port, _):
        assert await intruder.plain_text("127.0.0.1", port) == ""
        assert await intruder.foreign("127.0.0.1", port, intruder.foreign_context(svid.spiffe_id)) == ""
        assert await intruder.foreign("127.0.0.1", port, intruder.anonymous_context()) == ""


async def test_intruder_notices_open_doors(pki: Pki) -> None:
    """A plain-text server, and a TLS server that asks for no certificate, are found out."""
    svid = pki.workload("shop")
    async with serving(None) as (port, _):
        assert "HTTP/1.1 200" in await intruder.plain_text("127.0.0.1", port)
    async with serving(server_context(svid, ask=False)) as (port, _):
        assert "HTTP/1.1 200" in await intruder.foreign("127.0.0.1", port, intruder.anonymous_context())


async def test_harness_passes_only_what_returns_measurements(tmp_path: Path) -> None:
    """A check that raises or hangs failed, a skip says what it needs, and the JSON says the same."""

    async def good() -> harness.Measurements:
        return {"requests": 3}

    async def bad() -> harness.Measurements:
        raise harness.Failure("2 of 3 failed", {"failed": 2})

    async def broken() -> harness.Measurements:
        raise KeyError("x")

    async def needy() -> harness.Measurements:
        raise harness.Skip("needs CAP_NET_ADMIN")

    async def hanging() -> harness.Measurements:
        await asyncio.Event().wait()
        return {}

    checks = [harness.Check(run.__name__, "", run, deadline=0.2) for run in (good, bad, broken, needy, hanging)]
    results = [await harness.run(check) for check in checks]
    assert [result.result for result in results] == ["passed", "failed", "failed", "skipped", "failed"]
    harness.write(tmp_path / "out.json", results, seconds=1.5)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["seconds"] == 1.5
    assert written["checks"][1]["measurements"] == {"failed": 2}
    assert written["checks"][3]["reason"] == "needs CAP_NET_ADMIN"
    assert harness.summary(results) == "1 passed, 3 failed, 1 skipped"


async def test_load_counts_every_failure() -> None:
    """Refusals, bad statuses and good answers are told apart."""
    answers = iter([Answer(200, b"v1"), Answer(503, b"no"), Answer(200, b"v2"), Answer(200, b"v1")])

    async def request() -> Answer:
        try:
            return next(answers)
        except StopIteration:
            raise errors.Unavailable("closed") from None

    tally = await load.burst(request, 5, 2, lambda answer: answer.body.decode())
    assert (tally.sent, tally.failed, tally.answers) == (5, 2, {"v1": 2, "v2": 1})
    assert tally.failures == ["status 503: no", "Unavailable: closed"]


async def test_enclave_sees_only_its_own_interfaces() -> None:
    """A namespace made by this process holds nothing but a loopback device, and a ping to nowhere is an error."""
    try:
        async with enclaves.made(os.getpid()) as enclave:
            assert await enclave.interfaces() == ["lo"]
            descriptor = enclave.open()
            assert os.fstat(descriptor).st_ino != os.stat("/proc/self/ns/net").st_ino
            os.close(descriptor)
            with pytest.raises(errors.Unavailable, match="unreachable"):
                await enclave.ping("172.16.1.1")
    except errors.Unavailable as error:
        pytest.skip(f"needs the right to make network namespaces: {error}")


async def test_reached_waits_for_the_last_replica(tmp_path: Path) -> None:
    """One mixer with the new policy doesn't mean that the next request is decided by it: that was a flaky demo."""
    revisions = {"one": 2, "two": 1}
    asked = 0

    def metrics(name: str) -> str:
        nonlocal asked
        asked += 1
        if asked == 6:
            revisions["two"] = 2
        return f"# TYPE revision gauge\nrevision {revisions[name]}\n"

    sockets = [tmp_path / name for name in revisions]
    async with contextlib.AsyncExitStack() as stack:
        for name, socket in zip(revisions, sockets, strict=True):
            admin = Admin(f"unix:{socket}", Health(), metrics=lambda _, name=name: metrics(name))  # type: ignore[misc]
            await stack.enter_async_context(admin)
        await reached(sockets, "revision", 2, 10)
        assert asked >= 6
        with pytest.raises(harness.Failure, match="one: revision is 2"):
            await reached(sockets, "revision", 3, 0.3)
