"""A real Envoy asks mixer and tells it: the same rules for requests, connections, rate limits and logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from json_web_tokens import NAME, Issuer
from lone_envoy import Ports, envoy_asking
from mixers import Mixer
from otlp_collector import Collector, attribute

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]  # a busy machine starts slowly


CLAIMS = {
    "principal": "request.auth.principal",
    "audiences": "request.auth.audiences",
    "presenter": "request.auth.presenter",
    "groups": 'request.auth.claims["groups"]',
    "level": 'request.auth.claims["level"]',
    "staff": 'request.auth.claims["staff"]',
    "raw": "request.auth.raw_claims",
}
"""What a token says, as the page of attributes has it, by the header in which it leaves."""


def document(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """A document of mixer's configuration."""
    metadata = {"name": name, "namespace": "meshwright-system"}
    return {"apiVersion": "config.istio.io/v1alpha2", "kind": kind, "metadata": metadata, "spec": spec}


def rules(closed: int) -> list[dict[str, Any]]:
    """Nobody enters /admin nor the closed port; a user has two requests a minute; requests leave with changes."""
    deny = [{"handler": "forbid", "instances": ["nothing"]}]
    not_for_you = {"code": 7, "message": "not for you"}
    return [
        document("handler", "forbid", compiledAdapter="denier", params={"status": not_for_you}),
        document("instance", "nothing", compiledTemplate="checknothing"),
        document("rule", "deny-admin", match='request.url_path.startsWith("/admin")', actions=deny),
        document("rule", "deny-guests", match='request.auth.claims["role"] == "guest"', actions=deny),
        document("rule", "deny-port", match=f'context.protocol == "tcp" && destination.port == {closed}', actions=deny),
        document(
            "rule",
            "change",
            match='destination.service.name == "catalog"',
            requestHeaderOperations=[
                {"name": "x-tier", "values": ['"gold"'], "operation": "REPLACE"},
                {"name": "x-hop", "values": ['"mixer"'], "operation": "APPEND"},
                {"name": "x-secret", "operation": "REMOVE"},
                *({"name": name, "values": [value], "operation": "REPLACE"} for name, value in CLAIMS.items()),
                {"name": "?tenant", "values": ['request.query_params["q"] | "none"'], "operation": "REPLACE"},
                {"name": "?debug", "operation": "REMOVE"},
            ],
            responseHeaderOperations=[{"name": "x-checked", "values": ['"yes"'], "operation": "REPLACE"}],
        ),
        document(
            "instance",
            "peruser",
            compiledTemplate="quota",
            params={"dimensions": {"user": 'ratelimit.descriptor["user"] | "none"'}},
        ),
        document(
            "handler",
            "limits",
            compiledAdapter="memquota",
            params={"quotas": [{"name": "peruser", "maxAmount": 2, "validDuration": "60s"}]},
        ),
        document(
            "rule",
            "limit",
            match='ratelimit.domain == "edge"',
            actions=[{"handler": "limits", "instances": ["peruser"]}],
        ),
        document(
            "instance",
            "denial",
            compiledTemplate="logentry",
            params={
                "severity": '"warning"',
                "variables": {
                    "denied": "request.path",
                    "denial_rule": "check.rule",
                    "denial_reason": "check.error_message",
                    "denial_id": "check.decision_id",
                },
            },
        ),
        document(
            "rule",
            "log-denials",
            match="check.error_code != 0",
            actions=[{"handler": "opentelemetry", "instances": ["denial"]}],
        ),
        document(
            "instance",
            "accesslog",
            compiledTemplate="logentry",
            params={
                "severity": '"info"',
                "variables": {
                    "protocol": "context.protocol",
                    "path": 'request.path | "-"',
                    "code": "response.code | 0",
                    "flags": 'context.proxy_error_code | "-"',
                    "attempts": "upstream.request_attempt_count | 0",
                    "reporter": 'context.reporter.uid | "-"',
                    "app": 'destination.labels["app"] | "-"',
                    "event": 'connection.event | "-"',
                    "received": "connection.received.bytes | 0",
                    "rule": 'check.rule | "-"',
                    "why": 'check.error_message | "-"',
                    "decision": 'check.decision_id | ""',
                    **{name: f'{value} | "-"' for name, value in CLAIMS.items()},
                },
            },
        ),
    ]


@dataclass
class World:
    """What runs for the whole module."""

    ports: Ports
    log: Path
    collector: Collector
    heads: list[bytes]
    mixer: Mixer
    issuer: Issuer

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Send a request through Envoy."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://127.0.0.1:{self.ports.http}{path}", headers=headers, timeout=10)

    async def logged(self, **wanted: Any) -> Any:
        """Wait for a log record with these attributes."""

        def found() -> list[Any]:
            return [
                record
                for record in self.collector.logs
                if all(attribute(record.attributes, name) == value for name, value in wanted.items())
            ]

        await self.collector.until(lambda: bool(found()), 30)
        return found()[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("envoy")
    heads: list[bytes] = []
    issuer = Issuer()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if b"HTTP/1.1\r\n" in data:
                heads.append(data)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            else:
                writer.write(data.upper())
        writer.close()

    application = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"127.0.0.1:{application.sockets[0].getsockname()[1]}"
    config = folder / "config"
    config.mkdir()
    async with application, Collector() as collector:
        arguments = ("--insecure-loopback", "--otlp", collector.address, "--rate-limit-headers")
        mixer = Mixer(folder / "mixer", None, *arguments, config=config)
        await mixer.start()
        async with envoy_asking(mixer.address, address, folder, issuer) as (ports, log):
            (config / "rules.yaml").write_text(yaml.safe_dump_all(rules(ports.closed)))
            await mixer.until_metric("meshwright_mixer_policy_rules", lambda count: count >= 10)
            yield World(ports, log, collector, heads, mixer, issuer)
        assert await asyncio.to_thread(mixer.stop) == 0


async def test_a_denied_request_gets_the_reason(world: World) -> None:
    """403 and a body; the decision is in Envoy's own log, and in mixer's record of the request."""
    denied = await world.get("/admin/users")
    assert (denied.status_code, denied.text) == (403, "forbid.meshwright-system:not for you")
    assert denied.headers["content-type"] == "text/plain; charset=utf-8"
    record = await world.logged(path="/admin/users")
    found = {each.key: each.value for each in record.attributes}
    assert (found["code"].int_value, found["flags"].string_value) == (403, "UAEX")
    assert found["rule"].string_value == "deny-admin.meshwright-system"
    assert found["why"].string_value == "forbid.meshwright-system:not for you"
    async with asyncio.timeout(20):
        while "deny-admin" not in world.log.read_text():
            await asyncio.sleep(0.05)
    [told] = [json.loads(line) for line in world.log.read_text().splitlines() if "deny-admin" in line]
    assert told["code"] == 7
    assert told["decision_id"] == found["decision"].string_value != ""


async def test_a_rule_can_log_decisions(world: World) -> None:
    """Of a record the decision is known by which its request passed or not: a rule sends denials to any adapter."""
    assert (await world.get("/admin/secret")).status_code == 403
    assert (await world.get("/fine", x_user="cat")).status_code == 200
    record = await world.logged(denied="/admin/secret")
    assert record.severity_text.lower() == "warning"
    assert attribute(record.attributes, "denial_rule") == "deny-admin.meshwright-system"
    assert attribute(record.attributes, "denial_reason") == "forbid.meshwright-system:not for you"
    assert attribute(record.attributes, "denial_id")
    await world.logged(path="/fine?tenant=none")
    assert "/fine?tenant=none" not in {attribute(each.attributes, "denied") for each in world.collector.logs}


async def test_an_allowed_request_leaves_changed(world: World) -> None:
    """Headers set, appended and removed; query parameters set and removed; a header on the response."""
    answer = await world.get("/items?q=books&debug=1", x_secret="s", x_tier="paper", x_hop="first")
    assert (answer.status_code, answer.headers["x-checked"]) == (200, "yes")
    head = world.heads[-1].decode().lower()
    assert "x-tier: gold" in head
    assert "paper" not in head
    assert "x-secret" not in head
    assert "x-hop: first" in head
    assert "mixer" in head
    target = head.splitlines()[0].split()[1]
    assert "tenant=books" in target
    assert "debug" not in target
    record = await world.logged(path=target)
    found = {each.key: each.value for each in record.attributes}
    assert found["attempts"].int_value == 1
    assert (found["reporter"].string_value, found["app"].string_value) == ("proxy-1", "catalog")


async def test_a_tokens_claims_are_attributes_of_request_and_record(world: World) -> None:
    """Envoy's jwt_authn has proved the token: rules decide by what is in it, and read each row of the page."""
    claims = {
        "sub": "ann", "aud": ["shop", "till"], "azp": "app", "role": "clerk", "groups": ["a", "b"],
        "level": 3, "staff": True, "address": {"city": "Bern"},
    }  # fmt: skip
    answer = await world.get("/claims", authorization=f"Bearer {world.issuer.token(**claims)}")
    assert answer.status_code == 200
    record = await world.logged(path="/claims?tenant=none")
    lines = world.heads[-1].decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    logged = {name: attribute(record.attributes, name) for name in CLAIMS}
    for told in (headers, logged):
        assert (told["principal"], told["audiences"], told["presenter"]) == (f"{NAME}/ann", "shop,till", "app")
        assert (told["groups"], told["level"], told["staff"]) == ("a,b", "3", "true")
        raw = json.loads(told["raw"])
        assert {name: raw[name] for name in claims} == claims


async def test_a_token_may_forbid_and_a_forged_one_never_arrives(world: World) -> None:
    """A guest is denied by a rule; what another issuer signed is Envoy's to refuse; without a token nothing is told."""
    guest = await world.get("/", authorization=f"Bearer {world.issuer.token(sub='bob', role='guest')}")
    assert (guest.status_code, guest.text) == (403, "forbid.meshwright-system:not for you")
    forged = await world.get("/forged", authorization=f"Bearer {Issuer().token(sub='ann')}")
    assert forged.status_code == 401
    assert (await world.get("/bare")).status_code == 200
    assert "principal" not in world.heads[-1].decode()


async def test_a_used_up_limit_is_429_with_headers(world: World) -> None:
    """Two a minute for each user: the third hears what it is held to."""
    answers = [await world.get("/", x_user="ann") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].headers["ratelimit-limit"] == "2, 2;w=60"
    assert answers[-1].headers["ratelimit-remaining"] == "0"
    assert 0 < int(answers[-1].headers["ratelimit-reset"]) <= 66
    assert (await world.get("/", x_user="bob")).status_code == 200
    await world.logged(code=429, flags="RL")


async def test_connections_are_checked_and_told_of_while_they_last(world: World) -> None:
    """One port is closed by a rule; on the other a connection is told of when it opens, goes on and ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.ports.closed)
    writer.write(b"hello")  # Envoy asks when the first bytes come
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.ports.tcp)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.read(100), 10) == b"HELLO"
    await world.logged(protocol="tcp", event="open")
    await world.logged(protocol="tcp", event="continue")
    writer.close()
    await writer.wait_closed()
    await world.logged(protocol="tcp", event="close")
    events = [
        record
        for record in world.collector.logs
        if attribute(record.attributes, "protocol") == "tcp" and attribute(record.attributes, "flags") == "-"
    ]
    assert sum(int(attribute(record.attributes, "received")) for record in events) == 5
    closed = "istio_tcp_connections_closed_total"
    await world.collector.until(lambda: any(metric.name == closed for metric in world.collector.metrics))


async def test_an_sdks_telemetry_goes_through_mixer(world: World) -> None:
    """OpenTelemetry's own exporter, compressed: spans arrive with their resource, which names their record."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    def export() -> None:
        import grpc

        exporter = OTLPSpanExporter(
            endpoint=world.mixer.address, insecure=True, timeout=10, compression=grpc.Compression.Gzip
        )
        provider = TracerProvider(resource=Resource.create({"service.name": "shop"}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        for number in range(20):
            with provider.get_tracer("shop").start_as_current_span(f"work {number}"):
                pass
        assert provider.force_flush(10_000)
        provider.shutdown()

    await asyncio.to_thread(export)
    spans = world.collector.spans
    await world.collector.until(lambda: sum(span.name.startswith("work ") for span in spans) == 20, 30)
    resources = [each for each in world.collector.resources if attribute(each.attributes, "service.name") == "shop"]
    assert resources
    assert all(len(attribute(each.attributes, "meshwright.record.id")) == 32 for each in resources)
