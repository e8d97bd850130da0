"""QuotaSpecs and HTTPAPISpecs of services whose proxies know nothing of them: mixer applies them itself."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from check_servers import engine_of
from hypothesis import given
from hypothesis import strategies as st
from rule_documents import action, document

from meshwright.api.envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2, external_auth_pb2_grpc
from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core.config import Object, read_documents
from meshwright.dataplane.grpc import NativeServer
from meshwright.dataplane.policy import Engine
from meshwright.mixer import check
from meshwright.mixer.config.client_specs import client_specs
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.specs.uri_template import parse

CLIENTS = [
    each for each in read_documents(Path(__file__).parent / "corpus" / "clients.yaml") if "Role" not in each.kind
]
PETS, SHOP = "pets.demo.svc.cluster.local", "shop.demo.svc.cluster.local"
OTHER = "pets.other.svc.cluster.local"
API = ("api.operation", "api.service", "api.version", "request.api_key")


def shown(name: str) -> dict[str, Any]:
    return {"name": name.replace(".", "-"), "operation": "REPLACE", "values": [name]}


SHOWING = document("rule", "show", {"requestHeaderOperations": [shown(name) for name in API]})


def read(engine: Engine, attributes: Mapping[str, Any]) -> dict[str, str]:
    """What rules read of the API's attributes."""
    answer = mixer_pb2.CheckResponse.FromString(engine.check(check.request(attributes).SerializeToString()))
    operations = answer.precondition.route_directive.request_header_operations
    names = {name.replace(".", "-"): name for name in API}
    return {names[each.name]: each.value for each in operations}


@given(
    st.sampled_from(["/", "/pets", "/pets/{id}", "/a/{p=**}", "/{x}/{y=**}", "/**", "/a/*/b:list", "/**:go", "/a.b/ü"]),
    st.text("/ab:lgoist.ü\n", max_size=12),
)
def test_a_template_is_the_same_as_a_regular_expression(template: str, path: str) -> None:
    parsed = parse(template)
    assert (re.fullmatch(parsed.pattern, path) is not None) is parsed.fits(path)


@given(
    st.sampled_from([PETS, SHOP, OTHER, None]),
    st.sampled_from(["GET", "POST", None]),
    st.sampled_from(["/pets/7", "/pets/latest", "/pets/7/pictures/1", "/pets/", "/", "/pets/7/8", "/pets/ü"]),
)
def test_rules_read_what_the_original_sidecar_would_have_said(host: str | None, method: str | None, path: str) -> None:
    """As long as it is text, and the request itself doesn't say it."""
    given_ = {"destination.service.host": host, "request.method": method, "request.url_path": path}
    expected = client_specs(CLIENTS).service(host or "").attributes(method or "", path)
    attributes = {name: value for name, value in given_.items() if value is not None}
    assert read(_ENGINE, attributes) == {name: value for name, value in expected.items() if name in API}


_ENGINE = engine_of([*CLIENTS, SHOWING])


def test_what_a_request_says_itself_counts() -> None:
    request = {"destination.service.host": PETS, "request.method": "GET", "request.url_path": "/pets/7"}
    assert read(_ENGINE, {**request, "api.operation": "mine"})["api.operation"] == "mine"


def test_keys_are_read_where_the_spec_says() -> None:
    """Of the query, then of a header; cookies are left to the original's sidecars, and a warning says so."""
    request = {"destination.service.host": PETS}
    query, header = {"request.query_params": {"api-key": "a b"}}, {"request.headers": {"x-api-key": "c"}}
    assert read(_ENGINE, {**request, **query, **header})["request.api_key"] == "a b"
    assert read(_ENGINE, {**request, **header})["request.api_key"] == "c"
    assert "request.api_key" not in read(_ENGINE, {**query, **header})
    warnings = PolicyLoader({}, Engine().load, export=False).load(CLIENTS).warnings
    assert [each.field for each in warnings if each.object.kind == "HTTPAPISpec"] == ["spec.apiKeys[2].cookie"]


def test_the_most_exact_template_counts_also_for_what_it_does_not_say() -> None:
    """As in the original: a lesser one doesn't fill it in, what the spec says of all requests does."""

    def pattern(template: str, **said: str) -> dict[str, Any]:
        attributes = {"attributes": {name.replace("_", "."): {"stringValue": text} for name, text in said.items()}}
        return {"httpMethod": "GET", "uriTemplate": template, "attributes": attributes}

    spec = {
        "attributes": {"attributes": {"api.version": {"stringValue": "1"}}},
        "patterns": [
            pattern("/a/{id}", api_operation="any", api_version="2"),
            pattern("/a/b", api_operation="b"),
            pattern("/a/c", api_version="3"),
        ],
    }
    binding = {"apiSpecs": [{"name": "a"}], "services": [{"service": "*"}]}
    engine = engine_of([document("HTTPAPISpec", "a", spec), document("HTTPAPISpecBinding", "a", binding), SHOWING])
    told = {path: read(engine, {"request.method": "GET", "request.url_path": f"/a/{path}"}) for path in ("x", "b", "c")}
    assert told == {
        "x": {"api.operation": "any", "api.version": "2"},
        "b": {"api.operation": "b", "api.version": "1"},
        "c": {"api.version": "3"},
    }


@pytest.mark.parametrize("language", ["CEXL", "CEL"])
def test_a_condition_may_ask_whether_an_operation_has_a_name(language: str) -> None:
    match = 'api.operation == "getPet"' if language == "CEXL" else 'has(api.operation) && api.operation != "pictures"'
    documents = [
        document("handler", "no", {"compiledAdapter": "denier", "params": {"status": {"code": 7}}}),
        document("instance", "nothing", {"compiledTemplate": "checknothing"}),
        document("rule", "r", {"match": match, "language": language, "actions": [action("no", "nothing")]}),
    ]
    engine = engine_of([*CLIENTS, *documents])

    def code(host: str, path: str) -> int:
        request = {"destination.service.host": host, "request.method": "GET", "request.url_path": path}
        answer = engine.check(check.request(request).SerializeToString())
        return int(mixer_pb2.CheckResponse.FromString(answer).precondition.status.code)

    assert [code(PETS, "/pets/7"), code(PETS, "/pets/7/pictures"), code(PETS, "/"), code(OTHER, "/pets/7")] == [
        7, 0, 0, 0
    ]  # fmt: skip


def limits(**amounts: int) -> list[Object]:
    quotas = [{"name": name, "maxAmount": amount, "validDuration": "3600s"} for name, amount in amounts.items()]
    return [
        document("handler", "limits", {"compiledAdapter": "memquota", "params": {"quotas": quotas}}),
        *(document("instance", name, {"compiledTemplate": "quota", "params": {"dimensions": {}}}) for name in amounts),
        document("rule", "limit", {"actions": [action("limits", *amounts)]}),
    ]


class Envoy:
    """Asks by ext_authz, as sidecars do that the manager configures."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = external_auth_pb2_grpc.AuthorizationStub(channel)

    async def ask(self, host: str, method: str = "GET", path: str = "/") -> int:
        """The HTTP status of the denial, or 200."""
        context = attribute_context_pb2.AttributeContext(context_extensions={"destination.service.host": host})
        context.request.http.method, context.request.http.path = method, path
        answer = await self._stub.Check(external_auth_pb2.CheckRequest(attributes=context), timeout=20)
        return int(answer.denied_response.status.code) if answer.status.code else 200

    async def passes(self, *asked: Sequence[str], times: int = 30) -> int:
        """How many of the same requests pass before one doesn't."""
        for count in range(times):
            if await self.ask(*asked[0]) != 200:
                return count
        return times


@pytest.fixture
async def envoy(request: pytest.FixtureRequest) -> AsyncIterator[Envoy]:
    engine = engine_of(request.param)
    server = NativeServer("127.0.0.1:0", None, native=[engine.services])
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        yield Envoy(channel)
    await server.stop(0)
    engine.close()


@pytest.mark.parametrize("envoy", [[*CLIENTS, *limits(requestcount=10, writes=12, others=20)]], indirect=True)
async def test_a_request_is_charged_what_the_specs_of_its_service_say(envoy: Envoy) -> None:
    """Reads cost one, orders two and five writes; what isn't bound costs nothing of what specs name."""
    assert await envoy.ask(SHOP, "POST", "/orders/7") == 200
    assert await envoy.ask(SHOP, "POST", "/orders/7") == 200
    assert await envoy.ask(SHOP, "POST", "/orders/7") == 429, "15 writes of 12"
    assert await envoy.passes((SHOP, "GET", "/orders/7")) == 6, "of 10 calls the orders took 4; the refused one none"
    assert await envoy.ask(SHOP) == 429
    assert await envoy.passes(("cart.demo.svc.cluster.local",)) == 12, (
        "others, which no spec names, costs one a request"
    )


def test_a_check_is_charged_what_it_asks_for() -> None:
    """A client that asks for quotas by name has applied the specs itself."""
    engine = engine_of([*CLIENTS, *limits(requestcount=10, writes=12)])
    request = check.request({"destination.service.host": SHOP, "request.method": "POST"}, {"writes": 3})
    answer = mixer_pb2.CheckResponse.FromString(engine.check(request.SerializeToString()))
    assert answer.quotas["writes"].granted_amount == 3


def test_a_pattern_that_the_engine_refuses_is_its_specs_fault() -> None:
    """Of a look-ahead Python's regular expressions think well; whoever reads the attribute stays in force."""
    operation = {"attributes": {"api.operation": {"stringValue": "x"}}}
    patterns = [{"httpMethod": "GET", "regex": "/(?!a)b", "attributes": operation}]
    clause = {"clause": {"request.path": {"regex": "(?=a)b"}}}
    documents = [
        *CLIENTS,
        *limits(requestcount=5),
        document("HTTPAPISpec", "bad", {"patterns": patterns}, "demo"),
        document("HTTPAPISpecBinding", "b", {"apiSpecs": [{"name": "bad"}], "services": [{"service": "*"}]}, "demo"),
        document("QuotaSpec", "bad", {"rules": [{"match": [clause], "quotas": [{"quota": "requestcount"}]}]}, "demo"),
        document("QuotaSpecBinding", "b", {"quotaSpecs": [{"name": "bad"}], "services": [{"service": "*"}]}, "demo"),
        SHOWING,
    ]
    engine = Engine()
    compiled = PolicyLoader({}, engine.load, export=False).load(documents)
    dropped = {(each.object.kind, each.object.name, each.field) for each in compiled.dropped}
    assert dropped == {("HTTPAPISpec", "bad", "spec.patterns[0]"), ("QuotaSpec", "bad", "spec.rules[0].match")}
    request = {"destination.service.host": PETS, "request.method": "GET", "request.url_path": "/pets/7"}
    assert read(engine, request)["api.operation"] == "getPet"


def test_patterns_are_bounded() -> None:
    """Beyond what the engine evaluates for one attribute a spec is left out, whole, and the others stay."""
    operation = {"attributes": {"api.operation": {"stringValue": "x"}}}
    patterns = [{"httpMethod": "GET", "uriTemplate": f"/{n}", "attributes": operation} for n in range(250)]
    binding = {"apiSpecs": [{"name": "many"}], "services": [{"service": "*"}]}
    rule = document("rule", "r", {"requestHeaderOperations": [shown("api.operation")]})
    many = [document("HTTPAPISpec", "many", {"patterns": patterns}), document("HTTPAPISpecBinding", "many", binding)]
    assert read(engine_of([*many, rule]), {"request.method": "GET", "request.url_path": "/249"})
    more = document("HTTPAPISpec", "more", {"patterns": patterns})
    both = document("HTTPAPISpecBinding", "more", {**binding, "apiSpecs": [{"name": "more"}]})
    engine = Engine()
    (fault,) = PolicyLoader({}, engine.load, export=False).load([*many, more, both, rule]).dropped
    assert (fault.object.name, fault.field) == ("more", "spec.patterns")
    assert read(engine, {"request.method": "GET", "request.url_path": "/249"})
