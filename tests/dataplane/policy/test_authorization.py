"""Envoy's ext_authz over the wire: the same rules, with HTTP answers."""

from __future__ import annotations

from meshwright.api.envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc

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
