"""Parts in Kubernetes get their certificates for the token of their service account, and nobody else does.

Against a fake API server that checks tokens' audiences (see kube_api); tests/kubernetes has the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import citadels
import grpc
import pytest
from citadels import DOMAIN, Citadel, citadel, free_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import kube_api
from meshwright.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from meshwright.citadel import expiry
from meshwright.citadel.infrastructure import certificates
from meshwright.citadel.infrastructure.certificates import Wanted
from meshwright.citadel.kubernetes.accounts import AUDIENCE
from meshwright.citadel.kubernetes.parts import PartsTable
from meshwright.citadel.settings import CitadelSettings
from meshwright.core import errors
from meshwright.core.citadel_identity import CitadelIdentity
from meshwright.core.clock import ManualClock
from meshwright.core.first_certificate import KubernetesLogin
from meshwright.core.grpc import Channel
from meshwright.core.health import Health, State
from meshwright.core.identity import LOGIN_CLIENT, LOGIN_SERVER, FileIdentity, part_id

SYSTEM = "meshwright-system"


@dataclass
class Release:
    """A citadel in a cluster."""

    folder: Path
    server: kube_api.KubeApi
    citadel: Citadel
    login: str

    def token(self, account: str, *, node: str = "node-1", namespace: str = SYSTEM, **options: Any) -> Path:
        """Write the token of a pod with this account, as the kubelet would."""
        pod = self.server.pod(namespace, f"{account}-0", node, account, labels={})
        options.setdefault("audiences", (AUDIENCE,))
        path = self.folder / f"{account}.token"
        path.write_text(self.server.token(namespace, account, **{"pod": pod, **options}) + "\n")
        return path

    def identity(self, part: str, token: Path, **options: Any) -> CitadelIdentity:
        first = KubernetesLogin(self.login, self.folder / "client", token)
        return CitadelIdentity(
            part_id(DOMAIN, part), first=first, address=self.citadel.address, patience=0.0, **options
        )


def write_pair(folder: Path, ca: certificates.Pair, wanted: Wanted) -> None:
    pair = certificates.issue(ca, wanted, datetime.now(UTC))
    folder.mkdir(exist_ok=True)
    for name, data in (("cert", pair.certificate_pem), ("key", pair.key_pem), ("ca", ca.certificate_pem)):
        (folder / f"{name}.pem").write_bytes(data)


@contextlib.asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[Release]:
    ca = certificates.new_ca(datetime.now(UTC))
    (folder / "ca.pem").write_bytes(ca.certificate_pem)
    (folder / "ca-key.pem").write_bytes(ca.key_pem)
    write_pair(folder / "login", ca, Wanted("login", ("127.0.0.1",), uri=LOGIN_SERVER))
    write_pair(folder / "client", ca, Wanted("login", uri=LOGIN_CLIENT))
    async with kube_api.serving(folder) as server:
        login = f"127.0.0.1:{free_port()}"
        settings: dict[str, Any] = {
            "kubernetes": True,
            "kubernetes_api": server.url,
            "kubernetes_account": folder,
            "login_listen": login,
            "login_tls": folder / "login",
            **options,
        }
        async with citadel(folder, **settings) as started:
            yield Release(folder, server, started, login)


@pytest.fixture
async def release(short_tmp: Path) -> AsyncIterator[Release]:
    async with running(short_tmp) as started:
        yield started


def names(pem: bytes) -> list[str]:
    leaf = x509.load_pem_x509_certificate(pem)
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


async def test_a_part_gets_its_identity_and_renews_it(release: Release) -> None:
    """The first over the login port, the next by mutual TLS; both name the Service, as a webhook needs it."""
    token = release.token("meshwright-manager")
    async with release.identity("manager", token, validity_seconds=2) as identity:
        first = identity.current()
        assert first.spiffe_id == part_id(DOMAIN, "manager")
        expected = ["manager.meshwright-system.svc", "meshwright-manager.meshwright-system.svc"]
        assert names(first.cert_chain_pem) == expected
        release.server.down = True  # a renewal asks no API server
        await citadels.until(lambda: identity.current() != first)
        assert names(identity.current().cert_chain_pem) == expected


async def test_an_ended_certificate_is_no_obstacle(release: Release) -> None:
    """After a week of standing still: a fresh token, from the file that the kubelet has replaced meanwhile."""
    token = release.token("meshwright-mixer")
    identity = release.identity("mixer", token)
    async with identity:
        pass
    release.token("meshwright-mixer")
    async with identity:
        assert identity.current().spiffe_id == part_id(DOMAIN, "mixer")


async def test_one_account_of_a_node_is_several_parts(release: Release) -> None:
    """All containers of the node's pod have one account; only the agent's identity has the node in it."""
    token = release.token("meshwright-node", node="node-7")
    for part in ("nsmgr", "forwarder", "citadel-agent/node/node-7"):
        async with release.identity(part, token) as identity:
            assert identity.current().spiffe_id == part_id(DOMAIN, part)


async def test_an_agent_cant_be_another_nodes(release: Release) -> None:
    """The node is the API server's word on the token, not the agent's own."""
    token = release.token("meshwright-node", node="node-7")
    with pytest.raises(errors.ConfigError, match="node/node-8"):
        async with release.identity("citadel-agent/node/node-8", token):
            pass


async def test_an_older_api_server_is_asked_for_the_node(release: Release) -> None:
    token = release.token("meshwright-node", node="node-7", names_node=False)
    async with release.identity("citadel-agent/node/node-7", token) as identity:
        assert identity.current().spiffe_id.endswith("/node/node-7")
    release.server.pod(SYSTEM, "meshwright-node-0", "node-8", labels={})["metadata"]["uid"] = "another"
    release.server.objects[f"/api/v1/namespaces/{SYSTEM}/pods/meshwright-node-0"]["metadata"]["uid"] = "another"
    with pytest.raises(errors.Unauthorized, match="isn't the one of this token any more"):
        async with release.identity("citadel-agent/node/node-7", token):
            pass


@pytest.mark.parametrize(
    ("account", "part", "options", "reason"),
    [
        ("meshwright-mixer", "manager", {}, "is mixer, not"),
        ("meshwright-node", "manager", {}, "is citadel-agent or nsmgr or forwarder, not"),
        ("meshwright-manager", "citadel", {}, "is manager, not"),
        ("default", "manager", {}, "is no part of the platform"),
        ("meshwright-manager", "manager", {"namespace": "shop"}, "is no part of the platform"),
    ],
)
async def test_what_isnt_in_the_table_is_refused(
    release: Release, account: str, part: str, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(errors.Forbidden, match=reason):
        async with release.identity(part, release.token(account, **options)):
            pass


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"audiences": ("https://kubernetes.default.svc",)}, "doesn't take this token for audience meshwright-citadel"),
        ({"audiences": ("istio-ca", "vault")}, "doesn't take this token"),
        ({"pod": None}, "is bound to no pod"),
    ],
)
async def test_other_tokens_are_refused(release: Release, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(errors.Unauthorized, match=reason):
        async with release.identity("manager", release.token("meshwright-manager", **options)):
            pass


async def test_an_api_server_that_knows_no_audiences_proves_nothing(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ignores `audiences` calls any token good, and doesn't name ours."""
    user = {"username": f"system:serviceaccount:{SYSTEM}:meshwright-manager"}
    blind = kube_api.JSONResponse({"status": {"authenticated": True, "user": user}}, 201)
    monkeypatch.setattr(kube_api.Handler, "review", lambda *_: blind)
    with pytest.raises(errors.Unauthorized, match="doesn't take this token"):
        async with release.identity("manager", release.token("meshwright-manager")):
            pass


async def test_with_the_api_server_away_a_part_waits(release: Release) -> None:
    token = release.token("meshwright-manager")
    release.server.down = True
    with pytest.raises(errors.Unavailable, match="apiserver is shutting down"):
        async with release.identity("manager", token):
            pass
    release.server.down = False
    async with release.identity("manager", token):
        pass


async def call(release: Release, client: Path, metadata: tuple[tuple[str, str], ...], csr: str = "") -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    csr = csr or request.public_bytes(serialization.Encoding.PEM).decode()
    async with Channel(release.login, FileIdentity(client), peer=LOGIN_SERVER) as channel:
        stub = ca_pb2_grpc.IstioCertificateServiceStub(channel)
        return await stub.CreateCertificate(ca_pb2.IstioCertificateRequest(csr=csr), metadata=metadata, timeout=10)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "no service account's token"),
        ((("authorization", "Basic eDp5"),), "no service account's token"),
        ((("authorization", "Bearer a"), ("authorization", "Bearer b")), "no service account's token"),
        ((("authorization", "Bearer a b"),), "isn't a service account's token"),
        ((("authorization", "Bearer " + "x" * 20_000),), ""),
    ],
)
async def test_what_is_no_token_isnt_reviewed(
    release: Release, metadata: tuple[tuple[str, str], ...], reason: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await call(release, release.folder / "client", metadata)
    assert reason in (caught.value.details() or "")
    assert not any("tokenreviews" in request for request in release.server.requests)


async def test_a_bad_request_costs_no_review(release: Release) -> None:
    token = release.token("meshwright-manager").read_text().strip()
    with pytest.raises(grpc.RpcError) as caught:
        await call(release, release.folder / "client", (("authorization", f"Bearer {token}"),), csr="x")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not any("tokenreviews" in request for request in release.server.requests)


async def test_a_request_without_a_name_is_the_accounts_one_part(release: Release) -> None:
    """As clients of istio.v1.auth send it; an account of several parts must say which."""
    client = release.folder / "client"
    token = release.token("meshwright-manager").read_text().strip()
    answer = await call(release, client, (("authorization", f"Bearer {token}"),))
    leaf = x509.load_pem_x509_certificate(answer.cert_chain[0].encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.cert_chain[-1].encode()))
    token = release.token("meshwright-node").read_text().strip()
    with pytest.raises(grpc.RpcError) as caught:
        await call(release, client, (("authorization", f"Bearer {token}"),))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_strangers_dont_reach_the_login_port(release: Release) -> None:
    """Neither a stranger's certificate, nor those of the infrastructure CA that are for something else."""
    token = (("authorization", f"Bearer {release.token('meshwright-manager').read_text().strip()}"),)
    ours = certificates.Pair.load(*((release.folder / name).read_bytes() for name in ("ca.pem", "ca-key.pem")))
    assert ours is not None
    known = ours.certificate_pem
    for issuer, wanted, code in (
        (certificates.new_ca(datetime.now(UTC)), Wanted("login", uri=LOGIN_CLIENT), grpc.StatusCode.UNAVAILABLE),
        (ours, Wanted("manager"), grpc.StatusCode.UNAVAILABLE),  # etcd's client
        (ours, Wanted("login", ("127.0.0.1",), uri=LOGIN_SERVER), grpc.StatusCode.UNAVAILABLE),
        (ours, Wanted("x", uri="spiffe://infrastructure.meshwright/x"), grpc.StatusCode.PERMISSION_DENIED),
    ):
        folder = release.folder / "stranger"
        write_pair(folder, issuer, wanted)
        (folder / "ca.pem").write_bytes(known)  # it believes the server, so that only the server can refuse
        with pytest.raises((grpc.RpcError, errors.ConfigError)) as caught:
            await call(release, folder, token)
        if isinstance(caught.value, grpc.RpcError):
            assert caught.value.code() is code
        else:  # without a URI name it is no identity even to its owner
            assert wanted.uri == ""
    assert not any("tokenreviews" in request for request in release.server.requests)


async def test_every_login_leaves_an_audit_line_without_the_token(
    short_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(short_tmp, log_level="info") as release:
        token = release.token("meshwright-manager")
        async with release.identity("manager", token):
            pass
        with pytest.raises(errors.Forbidden):
            async with release.identity("mixer", token):
                pass
    text = capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    issued = next(line for line in lines if line["event"] == "certificate_issued")
    refused = next(line for line in lines if line["event"] == "request_refused")
    assert issued["audit"]
    assert issued["via"] == "kubernetes"
    assert issued["caller"].startswith("k8s:meshwright-system/meshwright-manager pod=meshwright-manager-0 uid=")
    assert refused["caller"] == issued["caller"]
    assert token.read_text().strip() not in text


async def test_health_says_in_time_that_the_infrastructures_certificates_end(tmp_path: Path) -> None:
    """From 90 days before; the Job of an upgrade renews them from 121 days before."""
    issued = datetime.now(UTC)
    write_pair(tmp_path / "login", certificates.new_ca(issued), Wanted("login", ("x.svc",), uri=LOGIN_SERVER))
    clock, health = ManualClock(issued), Health()
    work = expiry.watch_infrastructure(FileIdentity(tmp_path / "login"), health, clock)
    task = asyncio.create_task(work)
    await clock.advance(timedelta(days=274).total_seconds())
    assert health.conditions()["infrastructure"].state is State.OK
    await clock.advance(timedelta(days=2).total_seconds())
    condition = health.conditions()["infrastructure"]
    assert condition.state is State.DEGRADED
    assert "renew them by an upgrade" in condition.reason
    assert health.ready()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_the_table_can_be_written_by_hand() -> None:
    table = PartsTable.parse(["infra/nodes=nsmgr+forwarder", "infra/m=manager"])
    assert table.accounts == {("infra", "nodes"): ("nsmgr", "forwarder"), ("infra", "m"): ("manager",)}
    for wrong in ("x", "a/b", "a/b=", "a/b=C", "a/b=citadel", "a/b=nsmgr+citadel", "/b=manager"):
        with pytest.raises(errors.ConfigError, match="kubernetes_parts"):
            PartsTable.parse([wrong])
    with pytest.raises(errors.ConfigError, match="second one"):
        PartsTable.parse(["a/b=manager", "a/b=mixer"])


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    for options in (
        {"login_listen": "127.0.0.1:1"},
        {"login_listen": "unix:/x", "kubernetes": True, "login_tls": tmp_path},
        {"kubernetes_parts": "a/b=citadel"},
    ):
        with pytest.raises(ValueError, match="login_listen|kubernetes_parts"):
            CitadelSettings(**options)
