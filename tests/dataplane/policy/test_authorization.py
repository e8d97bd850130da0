"""Envoy's ext_authz over the wire: the same rules, with HTTP answers."""

from __future__ import annotations

from meshwright.api.envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import NativeChannel, NativeServer
from meshwright.dataplane.policy import Engine

MIXER = "spiffe://mesh.local/ns/meshwright-system/sa/mixer"
SHOP = "spiffe://mesh.local/ns/demo/sa/shop"


def request(path: str, principal: str = SHOP) -> external_auth_pb2.CheckRequest:
    """What Envoy sends for one HTTP request."""
    message = external_auth_pb2.CheckRequest()
    context = message.attributes
    context.source.principal = principal
    context.source.address.socket_address.address = "10.57.0.9"
    context.source.address.socket_address.port_value = 40000
    context.request.http.method = "GET"
    context.request.http.path = path
    context.request.http.host = "catalog.demo"
    context.request.http.headers.update({":path": path, "x-request-id": "r-1"})
    context.context_extensions.update({"context.reporter.kind": "inbound", "destination.service.namespace": "demo"})
    return message


async def test_a_denied_path_is_403_with_the_reason(engine, channel) -> None:
    """Only to the caller that the rule names; the query isn't part of the path."""
    stub = external_auth_pb2_grpc.AuthorizationStub(channel)
    response = await stub.Check(request("/admin/users?page=2"), timeout=5)
    assert response.status.code == 7
    assert response.denied_response.status.code == 403
    assert response.denied_response.body == "deny.mesh:admins only"
    other = await stub.Check(request("/admin/users", "spiffe://mesh.local/ns/demo/sa/admin"), timeout=5)
    assert other.status.code == 0
    assert engine.stats()["checks_denied"] == 1


async def test_a_used_up_quota_is_429(engine, channel) -> None:
    """Three a minute for each caller, without any id."""
    stub = external_auth_pb2_grpc.AuthorizationStub(channel)
    answers = [await stub.Check(request("/limited"), timeout=5) for _ in range(5)]
    assert [answer.status.code for answer in answers] == [0, 0, 0, 8, 8]
    assert answers[-1].denied_response.status.code == 429
    assert "requestcount.mesh" in answers[-1].denied_response.body
    other = await stub.Check(request("/limited", "spiffe://mesh.local/ns/demo/sa/other"), timeout=5)
    assert other.status.code == 0
    assert engine.stats()["quotas_refused"] == 2


async def test_an_allowed_request_gets_its_headers(channel) -> None:
    """The source's namespace is the one in its identity."""
    response = await external_auth_pb2_grpc.AuthorizationStub(channel).Check(request("/"), timeout=5)
    header = response.ok_response.headers[0].header
    assert (header.key, header.value) == ("x-source-namespace", "demo")
    assert list(response.ok_response.headers_to_remove) == ["x-secret"]


async def test_a_direct_response_is_what_the_caller_gets(engine, policy, channel) -> None:
    """Status, body and headers of the denial, each cookie by itself; the decision is named in the metadata."""
    direct = pb.Handler.DirectResponse(code=302, body="log in first", headers={"location": "/login"})
    direct.headers["Set-Cookie"] = "a=1; Path=/, b=2"
    validity = pb.Handler.Validity(duration_nanos=1, use_count=1)
    denier = pb.Handler.Denier(code=16, message="who?", validity=validity, direct_response=direct)
    nothing = policy.instance("nobody", "checknothing")
    policy.rule(policy.equals("request.url_path", "/private"), policy.handler("login", denier=denier), nothing)
    engine.load(policy.bytes())
    stub = external_auth_pb2_grpc.AuthorizationStub(channel)
    first = await stub.Check(request("/private"), timeout=5)
    assert (first.status.code, first.denied_response.status.code) == (16, 302)
    assert first.denied_response.body == "log in first"
    headers = [(each.header.key.lower(), each.header.value) for each in first.denied_response.headers]
    assert ("location", "/login") in headers
    assert [value for name, value in headers if name == "set-cookie"] == ["a=1; Path=/", "b=2"]
    metadata = first.dynamic_metadata
    assert (metadata["code"], metadata["message"]) == (16, "login.mesh:who?")
    assert metadata["rule"] == policy.message.rules[-1].name + ".mesh"
    second = await stub.Check(request("/"), timeout=5)
    assert second.dynamic_metadata["code"] == 0
    assert second.dynamic_metadata["decision_id"] != metadata["decision_id"] != ""


async def test_a_rule_in_dry_run_is_told_and_not_enforced(engine, policy, channel) -> None:
    """The request passes, and the metadata says which rule would have denied it."""
    for rule in policy.message.rules:
        rule.dry_run = rule.name == "rule0"
    engine.load(policy.bytes())
    answer = await external_auth_pb2_grpc.AuthorizationStub(channel).Check(request("/admin/users"), timeout=5)
    assert answer.status.code == 0
    assert list(answer.dynamic_metadata["dry_run"]) == ["rule0.mesh"]


async def test_a_tcp_connection_is_checked_by_what_it_has(engine, policy, channel) -> None:
    """No HTTP: its protocol is tcp, and its server name and caller can be rules' business."""
    server = policy.equals("connection.requested_server_name", "secret.demo")
    match = policy.node(pb.AND, policy.equals("context.protocol", "tcp"), server)
    validity = pb.Handler.Validity(duration_nanos=1, use_count=1)
    denier = policy.handler("closed", denier=pb.Handler.Denier(code=7, message="closed", validity=validity))
    policy.rule(match, denier, policy.instance("any", "checknothing"))
    engine.load(policy.bytes())
    stub = external_auth_pb2_grpc.AuthorizationStub(channel)

    async def code(name: str) -> int:
        message = external_auth_pb2.CheckRequest()
        message.attributes.source.principal = SHOP
        message.attributes.tls_session.sni = name
        answer = await stub.Check(message, timeout=5)
        return int(answer.status.code)

    assert (await code("secret.demo"), await code("open.demo")) == (7, 0)


async def test_a_proxy_without_configuration_is_the_inbound_one_of_its_namespace(pki, policy) -> None:
    """Rules of a namespace hold for the proxies whose identity is of it, unless they say otherwise."""
    validity = pb.Handler.Validity(duration_nanos=1, use_count=1)
    denier = policy.handler("local", denier=pb.Handler.Denier(code=7, message="not here", validity=validity))
    policy.rule(None, denier, policy.instance("any", "checknothing"))
    policy.message.rules[-1].namespace = "store"
    identity = StaticIdentity(pki.identity(MIXER))
    engine = Engine(identity)
    engine.load(policy.bytes())
    server = NativeServer("127.0.0.1:0", identity, native=[engine.services])
    address = await server.start()

    async def code(caller: str, **extensions: str) -> int:
        message = request("/")
        message.attributes.context_extensions.clear()
        message.attributes.context_extensions.update(extensions)
        async with NativeChannel(address, StaticIdentity(pki.identity(caller)), peer=MIXER) as channel:
            answer = await external_auth_pb2_grpc.AuthorizationStub(channel).Check(message, timeout=5)
        return int(answer.status.code)

    assert await code("spiffe://mesh.local/ns/store/sa/catalog") == 7
    assert await code("spiffe://mesh.local/ns/demo/sa/shop") == 0
    assert await code("spiffe://mesh.local/ns/store/sa/catalog", **{"destination.namespace": "demo"}) == 0
    await server.stop(1)
    engine.close()
