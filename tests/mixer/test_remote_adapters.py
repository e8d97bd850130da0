"""Mixer with adapters in other processes: what they are asked, what becomes of answers, and what of absence."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import descriptor_sets
import grpc
import pytest
import pytest_asyncio
import remote_backend
from google.protobuf import any_pb2
from mixers import Mixer
from remote_backend import KEYVAL, Backend
from rule_documents import action, document

from meshwright.api.istio.mixer.v1 import mixer_pb2, mixer_pb2_grpc
from meshwright.mixer import check
from pki import Pki

pytestmark = [pytest.mark.timeout(150), pytest.mark.asyncio(loop_scope="module")]

TEMPLATES = [
    document("template", "keyval", {"descriptor": descriptor_sets.template_text()}),
    document(
        "adapter",
        "all",
        {
            "description": "takes everything",
            "templates": ["keyval", "listentry", "quota", "metric", "kubernetes", "checknothing"],
            "config": descriptor_sets.text(descriptor_sets.config_source()),
            "session_based": False,
        },
    ),
    document(
        "adapter",
        "sessions",
        {
            "templates": ["listentry", "metric"],
            "config": descriptor_sets.text(descriptor_sets.config_source()),
            "session_based": True,
        },
    ),
]
INSTANCES = [
    document("instance", "path", {"template": "listentry", "params": {"value": "request.path"}}),
    document(
        "instance",
        "requestcount",
        {"compiledTemplate": "quota", "params": {"dimensions": {"who": 'source.user | "nobody"'}}},
    ),
    document(
        "instance",
        "size",
        {
            "compiledTemplate": "metric",
            "params": {"value": "response.size", "dimensions": {"code": "response.code", "ip": "source.ip"}},
        },
    ),
    document(
        "instance",
        "entry",
        {
            "template": "keyval",
            "params": {"key": "request.path", "color": "BLUE", "anything": {"size": "request.size | 0"}},
        },
    ),
    document(
        "instance",
        "pods",
        {
            "compiledTemplate": "kubernetes",
            "params": {"source_uid": 'source.uid | ""', "destination_port": "destination.port | 0"},
            "attribute_bindings": {
                "source.namespace": "$out.source_namespace",
                "source.labels": "$out.source_labels",
                "source.ip": "$out.source_pod_ip",
            },
        },
    ),
]


def connection(backend: Backend, **given: Any) -> dict[str, Any]:
    return {"address": backend.address, "timeout": "2s", **given}


def handler(name: str, **spec: Any) -> Any:
    return document("handler", name, spec)


def secure(name: str, backend: Backend, **authentication: Any) -> Any:
    return handler(name, adapter="all", connection=connection(backend, authentication=authentication))


def rules(prefix: str, handler: str, *instances: str, **given: Any) -> Any:
    match = f'(request.url_path | "").startsWith("/{prefix}")'
    return document("rule", prefix, {"match": match, "actions": [action(handler, *instances)], **given})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def backend() -> AsyncIterator[Backend]:
    running = Backend()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture(autouse=True)
def _fresh(backend: Backend) -> None:
    backend.answers.clear()
    backend.asked.clear()


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def mixer(tmp_path_factory: pytest.TempPathFactory, pki: Pki, backend: Backend) -> AsyncIterator[Mixer]:
    folder = tmp_path_factory.mktemp("remote")
    running = Mixer(folder / "mixer", pki, config=folder / "config")
    running.write(
        "standard.yaml",
        [
            *TEMPLATES,
            *INSTANCES,
            handler("plain", adapter="all", params={"table": {"a": "b"}}, connection=connection(backend)),
            document(
                "handler", "passed", {"compiledAdapter": "bypass", "params": {"backend_address": backend.address}}
            ),
            rules("check", "plain", "path"),
            rules("quota", "plain", "requestcount"),
            rules("report", "plain", "size"),
            rules("bypass", "passed", "path"),
            rules("pods", "plain", "pods"),
            document(
                "rule",
                "output",
                {
                    "match": '(request.url_path | "").startsWith("/output")',
                    "actions": [{**action("plain", "entry"), "name": "kv"}],
                    "requestHeaderOperations": [{"name": "x-value", "values": ["kv.output.value"]}],
                },
            ),
            document(
                "rule",
                "from-output",
                {
                    "match": '(request.url_path | "").startsWith("/pods") && source.namespace == "blue"',
                    "actions": [action("forbid", "nothing")],
                },
            ),
            document("handler", "forbid", {"compiledAdapter": "denier", "params": {"status": {"code": 7}}}),
            document("instance", "nothing", {"compiledTemplate": "checknothing"}),
        ],
    )
    await running.start()
    yield running
    assert running.stop() == 0


async def ask(mixer: Mixer, pki: Pki, path: str, **attributes: Any) -> dict[str, Any]:
    given = {name.replace("__", "."): value for name, value in attributes.items()}
    return await mixer.check(pki.workload("shop"), {"request.url_path": path, "request.path": path, **given})


async def configured(mixer: Mixer, name: str, *documents: Any) -> None:
    """Write more configuration, and wait until it is served."""
    before = await mixer.metric("meshwright_mixer_policy_revision")
    mixer.write(name, [*documents])
    async with asyncio.timeout(20):
        while await mixer.metric("meshwright_mixer_policy_revision") == before:
            await asyncio.sleep(0.05)


async def test_a_check_is_answered_by_the_adapter(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    backend.answers["listentry"] = remote_backend.check(7, "not on my list")
    answer = await ask(mixer, pki, "/check/x")
    assert (answer["code"], answer["message"]) == (7, "plain.meshwright-system:not on my list")
    request = backend.requests("listentry")[0]
    assert request.instance.name == "path.instance.meshwright-system"
    assert request.instance.value.string_value == "/check/x"
    assert request.adapter_config.type_url == "type.googleapis.com/keyval.config.Params"
    assert b"a" in request.adapter_config.value
    assert request.dedup_id
    backend.answers["listentry"] = remote_backend.check(0, uses=7)
    answer = await ask(mixer, pki, "/check/y")
    assert (answer["code"], answer["valid_uses"], answer["valid_seconds"]) == (0, 7, 0.5)
    assert backend.requests("listentry")[1].dedup_id != request.dedup_id


@pytest.mark.parametrize("flags", ["01", "00"])
async def test_the_trace_of_the_request_goes_on_to_the_adapter(
    mixer: Mixer, pki: Pki, backend: Backend, flags: str
) -> None:
    """Recorded or not: the adapter's own spans belong to the trace of the request that it is asked about."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with mixer.channel(pki.workload("shop")) as channel:
        for path in ("/check/traced", "/pods/traced"):  # asked when deciding, and when attributes are made
            request = check.request({"request.url_path": path, "request.path": path}, {})
            await mixer_pb2_grpc.MixerStub(channel).Check(
                request, timeout=5, metadata=[("traceparent", f"00-{trace}-00f067aa0ba902b7-{flags}")]
            )
    told = {name: metadata.get("traceparent", "") for name, _, metadata in backend.asked}
    assert set(told) == {"listentry", "kubernetes"}
    assert all(parent.split("-")[:2] == ["00", trace] and parent.endswith(flags) for parent in told.values()), told
    backend.asked.clear()
    await ask(mixer, pki, "/check/untraced")
    assert "traceparent" not in backend.asked[0][2]


async def test_bypass_hands_on_without_an_adapter_document(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    backend.answers["listentry"] = remote_backend.check(7, "passed on")
    answer = await ask(mixer, pki, "/bypass/x")
    assert (answer["code"], answer["message"]) == (7, "passed.meshwright-system:passed on")
    assert not backend.requests("listentry")[0].HasField("adapter_config")


async def test_a_quota_is_granted_by_the_adapter(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    backend.answers["quota"] = remote_backend.grant(3)
    attributes = {"request.url_path": "/quota", "source.user": "ann"}
    async with mixer.channel(pki.workload("shop")) as channel:
        request = check.request(attributes, {"requestcount": 5}, best_effort=True, deduplication_id="again")
        response = await check.check(channel, request)
    quota = check.describe(response)["quotas"]["requestcount"]
    assert (quota["granted"], quota["valid"]) == (3, 3)
    asked = backend.requests("quota")[0]
    params = asked.quota_request.quotas["requestcount.instance.meshwright-system"]
    assert (params.amount, params.best_effort) == (5, True)
    assert asked.dedup_id.startswith("again")
    assert asked.instance.dimensions["who"].string_value == "ann"


async def test_a_report_arrives_behind_the_queue(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    backend.answers["metric"] = remote_backend.taken
    record = {"request.url_path": "/report", "response.size": 12, "response.code": 200, "source.ip": b"\n\0\0\1"}
    await mixer.report(pki.workload("shop"), record, {**record, "response.size": 13})
    await backend.until(lambda: sum(len(each.instances) for each in backend.requests("metric")) == 2)
    instances = [instance for each in backend.requests("metric") for instance in each.instances]
    assert sorted(instance.value.int64_value for instance in instances) == [12, 13]
    assert instances[0].dimensions["code"].int64_value == 200
    assert instances[0].dimensions["ip"].ip_address_value.value == b"\n\0\0\1"
    assert instances[0].name == "size.instance.meshwright-system"


async def test_a_refused_report_comes_again(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    refusals = 1

    async def answer(request: Any, context: Any) -> Any:
        nonlocal refusals
        if refusals:
            refusals -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the disk is full")
        return await remote_backend.taken(request, context)

    backend.answers["metric"] = answer
    record = {"request.url_path": "/report", "response.size": 99, "response.code": 200, "source.ip": b"\n\0\0\1"}
    await mixer.report(pki.workload("shop"), record)
    await backend.until(lambda: len(backend.requests("metric")) == 2)
    first, second = backend.requests("metric")
    assert first.instances[0].value.int64_value == second.instances[0].value.int64_value == 99
    assert first.dedup_id == second.dedup_id


async def test_output_of_a_check_stands_in_headers(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    _, answer_class = remote_backend.classes(KEYVAL)

    async def answer(request: Any, context: Any) -> Any:
        found = answer_class()
        found.output.value = f"<{request.instance.key}>"
        found.result.valid_use_count = 1
        return found

    backend.answers["keyval"] = answer
    attributes = {"request.url_path": "/output", "request.path": "/output"}
    async with mixer.channel(pki.workload("shop")) as channel:
        response = await check.check(channel, check.request(attributes))
    operations = response.precondition.route_directive.request_header_operations
    assert [(each.name, each.value) for each in operations] == [("x-value", "</output>")]
    assert operations[0].operation == mixer_pb2.HeaderOperation.REPLACE
    instance = backend.requests("keyval")[0].instance
    assert (instance.key, instance.color, instance.anything["size"].int64_value) == ("/output", 1, 0)


async def test_generated_attributes_decide(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    _, answer_class = remote_backend.classes(remote_backend.known("kubernetes"))

    async def answer(request: Any, context: Any) -> Any:
        found = answer_class(source_namespace="blue" if request.instance.source_uid == "pod1" else "red")
        found.source_labels["app"] = "shop"
        found.source_pod_ip.value = b"\n\0\0\2"
        return found

    backend.answers["kubernetes"] = answer
    assert (await ask(mixer, pki, "/pods", source__uid="pod1"))["code"] == 7
    assert (await ask(mixer, pki, "/pods", source__uid="pod2"))["code"] == 0
    assert backend.requests("kubernetes")[0].instance.source_uid == "pod1"


async def test_an_adapter_that_is_away_comes_back(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    backend.answers["listentry"] = remote_backend.check(0)
    assert (await ask(mixer, pki, "/check"))["code"] == 0
    await backend.stop()
    answer = await ask(mixer, pki, "/check")
    assert answer["code"] != 0, "the default policy is closed"
    assert answer["valid_uses"] == 0 or answer["valid_seconds"] <= 1
    await backend.start()
    async with asyncio.timeout(20):
        while (await ask(mixer, pki, "/check"))["code"] != 0:
            await asyncio.sleep(0.1)


async def test_an_adapter_that_hangs_costs_its_timeout(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    slow = connection(backend) | {"timeout": "100ms"}
    await configured(
        mixer,
        "slow.yaml",
        document("handler", "slow", {"adapter": "all", "connection": slow}),
        rules("slow", "slow", "path"),
    )
    backend.answers["listentry"] = remote_backend.hang
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await ask(mixer, pki, "/slow")
    assert answer["code"] != 0
    assert loop.time() - began < 2
    # After a row of failures it isn't asked any more for a while.
    for _ in range(6):
        await ask(mixer, pki, "/slow")
    asked = len(backend.requests("listentry"))
    assert "failed too often" in (await ask(mixer, pki, "/slow"))["message"]
    assert len(backend.requests("listentry")) == asked


async def test_malformed_answers_are_failures(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    backend.answers["listentry"] = remote_backend.garbage
    answer = await ask(mixer, pki, "/check")
    assert answer["code"] != 0
    assert "malformed" in answer["message"]
    backend.answers["quota"] = remote_backend.garbage
    backend.answers["keyval"] = remote_backend.garbage
    assert (await ask(mixer, pki, "/output"))["code"] != 0
    backend.answers["listentry"] = remote_backend.check(0)
    assert (await ask(mixer, pki, "/check"))["code"] == 0


async def test_sessions_are_opened_used_and_closed(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    documents = [
        document("handler", "kept", {"adapter": "sessions", "params": {"limit": 4}, "connection": connection(backend)}),
        rules("kept", "kept", "path"),
    ]
    backend.answers["listentry"] = remote_backend.check(0)
    await configured(mixer, "kept.yaml", *documents)
    assert (await ask(mixer, pki, "/kept"))["code"] == 0
    config = backend.requests("listentry")[0].adapter_config
    assert config.type_url == remote_backend.SESSION
    opened = backend.sessions[config.value.decode()]
    assert opened.adapter_config.type_url == "type.googleapis.com/keyval.config.Params"
    inferred = opened.inferred_types["path.instance.meshwright-system"]
    assert inferred.type_url == "type.googleapis.com/listentry.Type"
    assert inferred.value == b"\x08\x01"  # value: STRING
    # The adapter begins anew and has forgotten its sessions: it gets another one.
    count = len(backend.sessions)
    await backend.stop()
    await backend.start()
    await backend.until(lambda: len(backend.sessions) > count)
    await configured(mixer, "kept.yaml")
    await backend.until(lambda: f"session-{len(backend.sessions) - 1}" in backend.closed)


def files(pki: Pki, folder: Path, name: str, host: str = "localhost") -> tuple[Path, Path, Path, Any]:
    """A certificate, its key and the authorities, and the identity that they are of."""
    identity = pki.identity(f"spiffe://mesh.local/{name}", dns=[host])
    folder.mkdir(exist_ok=True)
    paths = folder / f"{name}.crt", folder / f"{name}.key", folder / f"{name}-ca.crt"
    for path, content in zip(paths, (identity.cert_chain_pem, identity.key_pem, identity.bundle_pem), strict=True):
        path.write_bytes(content)
    return *paths, identity


def credentials(identity: Any, clients: bytes | None = None) -> grpc.ServerCredentials:
    pair = (identity.key_pem, identity.cert_chain_pem)
    return grpc.ssl_server_credentials([pair], clients, require_client_auth=clients is not None)


@pytest_asyncio.fixture(loop_scope="module")
async def secured(tmp_path: Path) -> AsyncIterator[tuple[Backend, Path]]:
    """A backend with TLS by an authority of its own, and the file of that."""
    _, _, authorities, identity = files(Pki(), tmp_path, "server")
    running = Backend(credentials(identity))
    await running.start()
    yield running, authorities
    await running.stop()


async def test_tls_with_a_token_from_a_file(
    mixer: Mixer, pki: Pki, secured: tuple[Backend, Path], tmp_path: Path
) -> None:
    backend, authorities = secured
    token = tmp_path / "token"
    token.write_text("first\n")
    tls = {"caCertificates": str(authorities), "tokenPath": str(token), "authHeader": "BEARER"}
    await configured(
        mixer,
        "tls.yaml",
        secure("tls", backend, tls=tls),
        rules("tls", "tls", "path"),
    )
    assert (await ask(mixer, pki, "/tls"))["code"] == 0
    assert backend.asked[-1][2]["authorization"] == "Bearer first"
    token.write_text("second")
    async with asyncio.timeout(20):
        while backend.asked[-1][2]["authorization"] != "Bearer second":
            assert (await ask(mixer, pki, "/tls"))["code"] == 0
            await asyncio.sleep(0.1)


async def test_a_server_of_another_authority_is_not_believed(
    mixer: Mixer, pki: Pki, secured: tuple[Backend, Path], tmp_path: Path
) -> None:
    backend, _ = secured
    _, _, others, _ = files(Pki(), tmp_path, "other")
    wrong_name = {"caCertificates": str(secured[1]), "serverName": "elsewhere.example"}
    await configured(
        mixer,
        "wrong.yaml",
        secure("wrong", backend, tls={"caCertificates": str(others)}),
        document(
            "handler",
            "named",
            {"adapter": "all", "connection": connection(backend, authentication={"tls": wrong_name})},
        ),
        rules("wrong", "wrong", "path"),
        rules("named", "named", "path"),
    )
    for path in ("/wrong", "/named"):
        answer = await ask(mixer, pki, path)
        assert answer["code"] != 0
        assert "TLS" in answer["message"]
    assert not backend.asked


async def test_mutual_tls_by_files_and_by_the_mesh(mixer: Mixer, pki: Pki, tmp_path: Path) -> None:
    own, foreign = Pki(), Pki()
    certificate, key, _, identity = files(own, tmp_path, "client")
    _, _, authorities, server = files(foreign, tmp_path, "server")
    by_files = Backend(credentials(server, identity.bundle_pem))
    member = pki.identity("spiffe://mesh.local/ns/shop/sa/adapter")
    by_mesh = Backend(credentials(member, member.bundle_pem))
    await by_files.start()
    await by_mesh.start()
    mutual = {"privateKey": str(key), "clientCertificate": str(certificate), "caCertificates": str(authorities)}
    mesh = {"serverName": "spiffe://mesh.local/ns/shop/sa/adapter"}
    await configured(
        mixer,
        "mutual.yaml",
        document(
            "handler",
            "mutual",
            {"adapter": "all", "connection": connection(by_files, authentication={"mutual": mutual})},
        ),
        secure("mesh", by_mesh, mutual=mesh),
        rules("mutual", "mutual", "path"),
        rules("mesh", "mesh", "path"),
    )
    for backend, path in ((by_files, "/mutual"), (by_mesh, "/mesh")):
        answer = await ask(mixer, pki, path)
        assert answer["code"] == 0, answer
        assert len(backend.asked) == 1
        await backend.stop()


class TokenServer(BaseHTTPRequestHandler):
    """An OAuth server: each token it gives out has a number, and a short life."""

    given = 0
    forms: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        type(self).forms.append((self.headers["Authorization"], self.rfile.read(length).decode()))
        type(self).given += 1
        answer = json.dumps({"access_token": f"token{self.given}", "token_type": "Bearer", "expires_in": 2}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def token_url() -> Iterator[str]:
    TokenServer.given, TokenServer.forms = 0, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), TokenServer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_oauth_tokens_are_fetched_and_renewed(
    mixer: Mixer, pki: Pki, secured: tuple[Backend, Path], tmp_path: Path, token_url: str
) -> None:
    backend, authorities = secured
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    oauth = {
        "clientId": "mixer",
        "clientSecret": str(secret),
        "tokenUrl": token_url,
        "scopes": ["a", "b"],
        "endpointParams": {"audience": "shop"},
    }
    tls = {"caCertificates": str(authorities), "oauth": oauth, "customHeader": "X-Token"}
    await configured(
        mixer,
        "oauth.yaml",
        secure("oauth", backend, tls=tls),
        rules("oauth", "oauth", "path"),
    )
    assert (await ask(mixer, pki, "/oauth"))["code"] == 0
    assert backend.asked[-1][2]["x-token"].startswith("token")
    first = backend.asked[-1][2]["x-token"]
    async with asyncio.timeout(20):
        while backend.asked[-1][2]["x-token"] == first:
            assert (await ask(mixer, pki, "/oauth"))["code"] == 0
            await asyncio.sleep(0.1)
    authorization, form = TokenServer.forms[0]
    assert authorization == "Basic bWl4ZXI6czNjcmV0"
    assert sorted(form.split("&")) == ["audience=shop", "grant_type=client_credentials", "scope=a+b"]
    assert "s3cret" not in mixer.log.read_text()
    await configured(mixer, "oauth.yaml")


async def test_a_refusal_of_the_adapter_is_told_in_health(mixer: Mixer, pki: Pki, backend: Backend) -> None:
    backend.refusal = "limit must be even"
    try:
        await configured(
            mixer,
            "refused.yaml",
            document(
                "handler",
                "refused",
                {"adapter": "sessions", "params": {"limit": 3}, "connection": connection(backend)},
            ),
            rules("refused", "refused", "path"),
        )
        health = await mixer.until(
            lambda found: (
                "limit must be even"
                in found["parts"].get("remote adapter refused.meshwright-system", {}).get("reason", "")
            )
        )
        assert health["ready"]
        assert "no session" in (await ask(mixer, pki, "/refused"))["message"]
    finally:
        backend.refusal = ""
        await configured(mixer, "refused.yaml")


async def test_what_an_any_of_a_session_looks_like() -> None:
    """The wire shape that the original's contract gives to sessions."""
    from meshwright.mixer.remote.handlers import packed

    assert any_pb2.Any.FromString(packed(remote_backend.SESSION, b"id")) == any_pb2.Any(
        type_url="google.protobuf.Any.type_url", value=b"id"
    )
