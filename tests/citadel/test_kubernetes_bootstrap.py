"""`meshwright-citadel bootstrap --kubernetes`: Secrets made once, repaired and renewed by every later run.

Against a fake API server (see kube_api); tests/kubernetes runs the Job on a real one.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

import kube_api
from meshwright.citadel import __main__ as command
from meshwright.citadel.infrastructure import cluster
from meshwright.core import errors, process
from meshwright.core.identity import LOGIN_CLIENT, LOGIN_SERVER, parse
from meshwright.core.kubernetes import Api

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
NAMESPACE = "meshwright-system"
LEAVES = (
    "meshwright-etcd-tls",
    "meshwright-nats-tls",
    "meshwright-citadel-login",
    "meshwright-login",
    *(f"meshwright-{name}-infrastructure" for name in ("manager", "mixer", "citadel", "nsm-registry", "root")),
)
PLAN = cluster.Plan(NAMESPACE)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[kube_api.KubeApi]:
    async with kube_api.serving(tmp_path) as running:
        yield running


@pytest.fixture
async def api(server: kube_api.KubeApi) -> AsyncIterator[Api]:
    async with Api(server.cluster()) as opened:
        yield opened


def content(server: kube_api.KubeApi) -> dict[str, dict[str, str]]:
    return {path: dict(made["data"]) for path, made in server.objects.items()}


def certificate(server: kube_api.KubeApi, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(server.secret(NAMESPACE, name)["tls.crt"])


async def test_a_first_run_makes_everything(server: kube_api.KubeApi, api: Api) -> None:
    """CA, seal key and nine pairs, with the names of the Services and of the pods behind them."""
    assert len(await cluster.run(api, PLAN, NOW)) == 11
    ca = certificate(server, "meshwright-infrastructure-ca")
    for name in LEAVES:
        leaf = certificate(server, name)
        leaf.verify_directly_issued_by(ca)
        assert set(server.secret(NAMESPACE, name)) == {"tls.crt", "tls.key", "ca.crt"}
    assert len(server.secret(NAMESPACE, "meshwright-seal-key")["seal.key"]) == 32
    (common_name,) = certificate(server, "meshwright-mixer-infrastructure").subject.get_attributes_for_oid(
        NameOID.COMMON_NAME
    )
    assert common_name.value == "mixer"
    names = certificate(server, "meshwright-etcd-tls").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    for name in (
        "meshwright-etcd",
        f"meshwright-etcd.{NAMESPACE}.svc",
        f"*.meshwright-etcd.{NAMESPACE}.svc.cluster.local",
        "localhost",
    ):
        assert name in names.value.get_values_for_type(x509.DNSName)


async def test_the_login_ports_two_sides_are_known_by_name(server: kube_api.KubeApi, api: Api) -> None:
    await cluster.run(api, PLAN, NOW)
    for name, expected in (("meshwright-citadel-login", LOGIN_SERVER), ("meshwright-login", LOGIN_CLIENT)):
        kept = server.secret(NAMESPACE, name)
        assert parse(kept["tls.crt"], kept["tls.key"], kept["ca.crt"]).spiffe_id == expected


async def test_a_second_run_changes_nothing(server: kube_api.KubeApi, api: Api) -> None:
    """An upgrade makes no other CA."""
    await cluster.run(api, PLAN, NOW)
    before = content(server)
    assert await cluster.run(api, PLAN, NOW + timedelta(days=7)) == []
    assert content(server) == before


async def test_what_is_missing_is_made_alone(server: kube_api.KubeApi, api: Api) -> None:
    await cluster.run(api, PLAN, NOW)
    server.remove(f"/api/v1/namespaces/{NAMESPACE}/secrets/meshwright-login")
    before = content(server)
    assert await cluster.run(api, PLAN, NOW) == ["certificate made: Secret meshwright-login"]
    assert content(server).items() >= before.items()


async def test_what_is_damaged_is_renewed_alone(server: kube_api.KubeApi, api: Api) -> None:
    await cluster.run(api, PLAN, NOW)
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/meshwright-nats-tls"
    server.put(path, data={"tls.crt": base64.b64encode(b"x").decode(), "tls.key": "no base64"})
    assert await cluster.run(api, PLAN, NOW) == ["certificate made: Secret meshwright-nats-tls"]


async def test_a_release_that_stood_still_gets_valid_certificates(server: kube_api.KubeApi, api: Api) -> None:
    """After a year all leaves have ended: the next run renews them under the same CA."""
    await cluster.run(api, PLAN, NOW)
    ca = certificate(server, "meshwright-infrastructure-ca")
    done = await cluster.run(api, PLAN, NOW + timedelta(days=366))
    assert len(done) == len(LEAVES)
    assert all("renewed" in line for line in done)
    assert certificate(server, "meshwright-infrastructure-ca") == ca


async def test_two_jobs_at_once_make_one_ca(server: kube_api.KubeApi, api: Api) -> None:
    done = await asyncio.gather(*(cluster.run(api, PLAN, NOW) for _ in range(3)))
    made = [line for lines in done for line in lines]
    assert sum("infrastructure CA made" in line for line in made) == 1
    assert sum("seal key made" in line for line in made) == 1
    ca = certificate(server, "meshwright-infrastructure-ca")
    for name in LEAVES:
        certificate(server, name).verify_directly_issued_by(ca)


async def test_a_damaged_seal_key_is_never_replaced(server: kube_api.KubeApi, api: Api) -> None:
    short = base64.b64encode(b"short").decode()
    server.put(f"/api/v1/namespaces/{NAMESPACE}/secrets/meshwright-seal-key", data={"seal.key": short})
    with pytest.raises(errors.ConfigError, match="restore it from a backup"):
        await cluster.run(api, PLAN, NOW)


async def test_all_of_it_can_be_removed(server: kube_api.KubeApi, api: Api) -> None:
    server.put(f"/api/v1/namespaces/{NAMESPACE}/secrets/theirs", data={})
    made = await cluster.run(api, PLAN, NOW)
    assert len(await cluster.remove(api, NAMESPACE)) == len(made)
    assert list(server.objects) == [f"/api/v1/namespaces/{NAMESPACE}/secrets/theirs"]
    assert await cluster.remove(api, NAMESPACE) == []


async def test_a_missing_right_is_said(server: kube_api.KubeApi, api: Api) -> None:
    server.down = True
    with pytest.raises(errors.Unavailable, match="secrets/meshwright-seal-key: apiserver is shutting down"):
        await cluster.run(api, PLAN, NOW)


@pytest.mark.parametrize(
    "arguments", [[], ["DIR", "--kubernetes"], ["--kubernetes", "--seal-key", "x"], ["DIR", "--remove"]]
)
def test_a_folder_and_the_cluster_exclude_each_other(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["bootstrap", *arguments])
    assert caught.value.code == 2


def test_outside_of_a_cluster_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert command.main(["bootstrap", "--kubernetes"]) == process.EX_CONFIG
    assert "runs in no pod" in capsys.readouterr().err
