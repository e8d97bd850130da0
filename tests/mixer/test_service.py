"""Mixer as a process, asked over mutual TLS by real clients: decisions, who may ask what, reload, refusals to start."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from mixers import Mixer
from rule_documents import MALLORY, action, denial, document, quota

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.api.envoy.config.core.v3 import address_pb2
from meshwright.api.envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2, external_auth_pb2_grpc
from meshwright.api.mixer.v1 import quota_pb2, quota_pb2_grpc
from meshwright.core.grpc import Channel
from meshwright.core.identity import StaticIdentity
from pki import Pki

pytestmark = pytest.mark.timeout(150)  # processes start slowly on a busy machine

STANDARD = [*denial(), *quota(5, "60s")]
ADMIN_PATH = {"request.url_path": "/admin/users", "source.principal": MALLORY}


@pytest.fixture(scope="module")
def pki() -> Pki:
    """The authority of the module's mixer."""
    return Pki()


@pytest.fixture(scope="module")
def mixer(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Mixer]:
    """A mixer with the two standard examples: mallory may not administer, five requests a minute and service."""
    folder = tmp_path_factory.mktemp("mixer")
    running = Mixer(folder / "mixer", pki, config=folder / "config")
    running.write("rules.yaml", STANDARD)
    asyncio.run(running.start())
    yield running
    assert running.stop() == 0


def http_request(path: str, principal: str, service: str = "shop") -> Any:
    """What a sidecar asks: an ext_authz Check with the manager's context extensions."""
    attributes = attribute_context_pb2.AttributeContext(context_extensions={"destination.service.name": service})
    attributes.source.principal = principal
    attributes.source.address.CopyFrom(
        address_pb2.Address(socket_address=address_pb2.SocketAddress(address="10.0.0.9", port_value=4000))
    )
    attributes.request.http.method = "GET"
    attributes.request.http.path = path
    attributes.request.http.host = service
    return external_auth_pb2.CheckRequest(attributes=attributes)


async def test_a_rule_denies_and_quotas_end_in_both_apis(mixer: Mixer, pki: Pki) -> None:
    """The same rules answer istio.mixer.v1 Check and Envoy's ext_authz: 403 with the reason, 429 after the quota."""
    sidecar = pki.workload("shop")
    denied = await mixer.check(sidecar, ADMIN_PATH)
    assert denied["code"] == 7
    assert "no admin for you" in denied["message"]
    allowed = await mixer.check(sidecar, {**ADMIN_PATH, "request.url_path": "/cart"})
    assert allowed["code"] == 0

    async with mixer.channel(sidecar) as channel:
        stub = external_auth_pb2_grpc.AuthorizationStub(channel)
        answer = await stub.Check(http_request("/admin?x=1", MALLORY))
        assert answer.status.code == 7
        assert answer.denied_response.status.code == 403
        assert "no admin for you" in answer.denied_response.body
        statuses = []
        for _ in range(8):
            answer = await stub.Check(http_request("/cart", "spiffe://mesh.local/ns/default/sa/ann"))
            statuses.append(answer.denied_response.status.code if answer.status.code else 200)
        assert statuses == [200] * 5 + [429] * 3
    granted = await mixer.check(sidecar, {"destination.service.name": "stock"}, requestcount=5)
    assert granted["quotas"]["requestcount"]["granted"] == 5
    refused = await mixer.check(sidecar, {"destination.service.name": "stock"}, requestcount=1)
    assert refused["quotas"]["requestcount"]["granted"] == 0


async def test_who_may_ask_what(mixer: Mixer, pki: Pki) -> None:
    """A workload may ask for decisions and health, not validate configuration or charge quotas as replicas do."""
    async with mixer.channel(pki.workload("shop")) as channel:
        for call in (
            lambda: config_pb2_grpc.ValidationStub(channel).Validate(config_pb2.ValidateRequest()),
            lambda: quota_pb2_grpc.QuotaPeerStub(channel).Charge(quota_pb2.ChargeRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call()
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_administrator_reads_what_rust_serves(mixer: Mixer, pki: Pki) -> None:
    """Reflection has the services that never enter Python too, with their messages."""
    async with mixer.channel(pki.part("admin")) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)

        async def ask(**question: str) -> Any:
            call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=10)
            return await call.read()

        listed = (await ask(list_services="")).list_services_response
        names = [service.name for service in listed.service]
        assert {"istio.mixer.v1.Mixer", "envoy.service.auth.v3.Authorization", "grpc.health.v1.Health"} < set(names)
        for name in names:
            described = await ask(file_containing_symbol=name)
            assert described.file_descriptor_response.file_descriptor_proto, name
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=names[0]))
        assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_strangers_and_plain_text_are_refused(mixer: Mixer) -> None:
    """A certificate of another authority doesn't get through the handshake, plain text not to a request."""
    stranger = Pki()
    channel = Channel(
        mixer.address, StaticIdentity(stranger.workload("shop")), peer="spiffe://x/ns/meshwright-system/sa/mixer"
    )
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    host, _, port = mixer.address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as plain:
        plain.settimeout(5)
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        try:
            answer = plain.recv(64)
        except ConnectionResetError:
            answer = b""
        assert not answer.startswith(b"\0\0")  # no HTTP/2 SETTINGS


async def test_the_manager_validates_on_the_path_that_serves(mixer: Mixer, pki: Pki) -> None:
    """The engine's own judgement included: a regular expression that it can't read is a violation of the rule."""
    bad = document("rule", "bad", {"match": '"a(".matches(request.path)', "actions": [action("forbid", "nothing")]})
    objects = [
        config_pb2.Object(
            key=config_pb2.Key(api_version=each.api_version, kind=each.kind, namespace=each.namespace, name=each.name),
            json=each.json,
        )
        for each in (*denial(), bad)
    ]
    async with mixer.channel(pki.part("manager")) as channel:
        stub = config_pb2_grpc.ValidationStub(channel)
        good = await stub.Validate(config_pb2.ValidateRequest(changed=objects[:3]))
        assert not good.violations
        response = await stub.Validate(config_pb2.ValidateRequest(changed=objects))
    assert [(each.key.name, each.field) for each in response.violations] == [("bad", "spec.match")]
    assert "unclosed" in response.violations[0].message


async def test_the_folder_is_reloaded_without_what_is_broken(mixer: Mixer, pki: Pki) -> None:
    sidecar = pki.workload("shop")
    mixer.write("rules.yaml", denial()[:2])
    await mixer.until(lambda _: True)
    async with asyncio.timeout(15):
        while (await mixer.check(sidecar, ADMIN_PATH))["code"]:
            await asyncio.sleep(0.1)
    mixer.write("rules.yaml", denial())
    async with asyncio.timeout(15):
        while not (await mixer.check(sidecar, ADMIN_PATH))["code"]:
            await asyncio.sleep(0.1)

    unknown = {"match": 'source.prinzipal == "x"', "actions": [action("forbid", "nothing")]}
    mixer.write("rules.yaml", [*denial(), document("rule", "unknown", unknown)])
    health = await mixer.until(lambda health: health["parts"]["policy"]["state"] == "degraded")
    assert "did you mean `source.principal`?" in health["parts"]["policy"]["reason"]
    assert health["ready"]
    assert "rule unknown.meshwright-system: spec.match" in health["parts"]["policy"]["reason"]
    assert (await mixer.check(sidecar, ADMIN_PATH))["code"] == 7
    assert await mixer.metric("meshwright_mixer_policy_documents_left_out") == 1

    assert mixer.config is not None
    (mixer.config / "rules.yaml").write_text("kind: [unclosed")
    await mixer.until(lambda health: health["parts"]["config"]["state"] == "degraded")
    assert (await mixer.check(sidecar, ADMIN_PATH))["code"] == 7
    mixer.write("rules.yaml", [])
    await mixer.until(lambda health: health["state"] == "ok")
    assert (await mixer.check(sidecar, ADMIN_PATH))["code"] == 0
    mixer.write("rules.yaml", STANDARD)
    async with asyncio.timeout(15):
        while not (await mixer.check(sidecar, ADMIN_PATH))["code"]:
            await asyncio.sleep(0.1)


async def test_the_command_asks_a_real_check(mixer: Mixer, pki: Pki, tmp_path: Path) -> None:
    """`meshwright mixer check`: status 1 and the reason for a denial, 0 for a grant, 69 when nobody answers."""
    admin = pki.write(pki.part("admin"), tmp_path / "admin")

    async def run(*arguments: str, address: str = mixer.address) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from meshwright.mixer.cli import app; app()", "check",
            "--address", address, "--identity", str(admin), *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    denied, granted, away, wrong = await asyncio.gather(
        run("-a", "request.url_path=/admin", "-s", f"source.principal={MALLORY}"),
        run("-a", "destination.service.name=cli", "--quota", "requestcount=3"),
        run("-a", "x=1", "--timeout", "1", address="127.0.0.1:1"),
        run("-i", "response.code=many"),
    )
    assert denied[0] == 1
    assert "PERMISSION_DENIED" in denied[1]
    assert "no admin for you" in denied[1]
    assert "request.url_path (exact)" in denied[1]
    assert granted[0] == 0
    assert ["requestcount", "3", "3", "60", "s"] in [line.split() for line in granted[1].splitlines()]
    assert away[0] == 69
    assert "is mixer running at 127.0.0.1:1?" in away[1]
    assert wrong[0] == 64
    assert "'many' is no int64" in wrong[1]


async def failing(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshwright.mixer", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_what_it_refuses_to_start_with(tmp_path: Path) -> None:
    """A named exit code and a line that says what to do: bad options 64, a taken port 69, a bad folder 78."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    (bad / "rule.yaml").write_text(
        "apiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {name: r}\nspec: {match: nonsense}\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        plain = ("--insecure-loopback", "--listen")
        outside, busy, broken, nothing = await asyncio.gather(
            failing("--config", str(good), *plain, "0.0.0.0:9091"),
            failing("--config", str(good), *plain, f"127.0.0.1:{port}"),
            failing("--config", str(bad), *plain, "127.0.0.1:0"),
            failing(*plain, "127.0.0.1:0"),
        )
    assert outside[0] == 64
    assert "can be reached from other machines" in outside[1]
    assert busy[0] == 69
    assert str(port) in busy[1]
    assert broken[0] == 78
    assert "rule.yaml#1" in broken[1]
    assert "unknown attribute `nonsense`" in broken[1]
    assert nothing[0] == 64
    assert "--config" in nothing[1]
