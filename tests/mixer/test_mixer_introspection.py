"""What mixer tells of itself, asked as the administrator asks: explanations, attributes, decisions; and nobody else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from mixers import Mixer
from policy_documents import FRONT, policy
from rule_documents import MALLORY, denial

from meshwright.api.mixer.v1 import introspection_pb2, introspection_pb2_grpc
from meshwright.mixer.introspection import fits
from pki import Pki

pytestmark = pytest.mark.timeout(150)  # processes start slowly on a busy machine

ADMIN_PATH = {"request.url_path": "/admin/users", "source.principal": MALLORY}
SECRET = "c2VjcmV0LW9mLXRoZS1jYWxsZXI"
SHOP = {
    "context.reporter.kind": "inbound",
    "destination.namespace": "demo",
    "destination.service.name": "shop",
    "source.principal": FRONT,
    "request.path": f"/items?token={SECRET}",
    "request.headers": {"authorization": f"Bearer {SECRET}", "cookie": SECRET, "x-user": "ann"},
}


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki()


@pytest.fixture(scope="module")
def mixer(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Mixer]:
    """A mixer with a denial, and a policy in dry run that would deny all of shop."""
    folder = tmp_path_factory.mktemp("mixer")
    running = Mixer(folder / "mixer", pki, config=folder / "config")
    tried = policy("targets: [{service: shop}]\nallow: []\nlimits: [{name: each, amount: 5, per: 1m}]\nmode: dry-run")
    running.write("rules.yaml", [*denial(), tried])
    asyncio.run(running.start())
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Path:
    return pki.write(pki.part("admin"), tmp_path_factory.mktemp("admin") / "identity")


def run(mixer: Mixer, identity: Path, command: str, *arguments: str) -> tuple[int, str, str]:
    """`meshwright mixer COMMAND` as a process."""
    given = ["--address", mixer.address, "--identity", str(identity), "--timeout", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "meshwright.platform.cli.main", "mixer", command, *arguments, *given],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_explain_tells_each_rule_and_each_attribute(mixer: Mixer, admin: Path) -> None:
    attributes = [word for name, value in ADMIN_PATH.items() for word in ("-a", f"{name}={value}")]
    status, out, _ = run(mixer, admin, "explain", *attributes)
    assert status == 1
    assert "denied     PERMISSION_DENIED" in out
    assert "by rule    deny-admin.meshwright-system" in out
    assert 'request.url_path = "/admin/users"' in out
    assert "forbid.meshwright-system on nothing.meshwright-system: PERMISSION_DENIED" in out
    status, out, _ = run(mixer, admin, "explain", "-a", "request.url_path=/admin/x", "--json")
    told = json.loads(out)
    assert status == 0
    rule = told["rules"][0]
    assert (rule["rule"], rule["verdict"]) == ("deny-admin.meshwright-system", "UNKNOWN")
    assert {"attribute": "source.principal"} in rule["reads"]


def test_explaining_charges_nothing(mixer: Mixer, admin: Path) -> None:
    attributes = [f"-a{name}={value}" for name, value in SHOP.items() if isinstance(value, str)]
    for _ in range(2):
        _, out, _ = run(mixer, admin, "explain", *attributes, "--json")
        charge = json.loads(out)["charges"][0]
        assert (charge["quota"], charge["amount"], charge["dry_run"]) == ("shop/each.demo", "1", True)
        assert "granted" not in charge


def test_a_dry_run_is_recorded_and_not_enforced(mixer: Mixer, admin: Path, pki: Pki) -> None:
    answer = asyncio.run(mixer.check(pki.workload("shop"), SHOP))
    assert answer["code"] == 0
    status, out, _ = run(mixer, admin, "decisions", "--dry-run", "--last", "1", "--json")
    told = json.loads(out)
    assert status == 0
    assert told["dry_runs"][0]["rule"] == "shop/otherwise.demo"
    assert told["dry_runs"][0]["code"] == 7
    assert "code" not in told
    refused = asyncio.run(mixer.get("/metrics"))
    assert 'meshwright_mixer_dry_run_refused_total{rule="shop/otherwise.demo"}' in refused


def test_decisions_are_told_by_rule_and_code(mixer: Mixer, admin: Path, pki: Pki) -> None:
    asyncio.run(mixer.check(pki.workload("shop"), ADMIN_PATH))
    status, out, _ = run(mixer, admin, "decisions", "--rule", "deny-admin", "--code", "7", "--json")
    assert status == 0
    told = json.loads(out.splitlines()[-1])
    assert told["rule"] == "deny-admin.meshwright-system"
    assert {each["attribute"] for each in told["reads"]} >= {"request.url_path", "source.principal"}
    assert MALLORY not in out, "values aren't kept"
    _, again, _ = run(mixer, admin, "decisions", "--id", told["id"])
    assert again.count("\n") == 1
    assert told["id"] in again
    assert "PERMISSION_DENIED rule=deny-admin.meshwright-system" in again


def test_a_follower_hears_of_what_comes(mixer: Mixer, pki: Pki) -> None:
    async def follow() -> Any:
        async with mixer.channel(pki.part("admin")) as channel:
            stub = introspection_pb2_grpc.IntrospectionStub(channel)
            request = introspection_pb2.DecisionsRequest(follow=True, last=1, attribute="source.principal")
            stream = stub.Decisions(request, timeout=30)
            await mixer.check(pki.workload("shop"), ADMIN_PATH)
            seen = [each async for each in _first(stream, 1)]
            await mixer.check(pki.workload("shop"), ADMIN_PATH)
            return [*seen, *[each async for each in _first(stream, 1)]]

    first, second = asyncio.run(follow())
    assert first.id != second.id


async def _first(stream: Any, count: int) -> Any:
    for _ in range(count):
        yield await stream.read()


def test_attributes_are_told_without_what_is_secret(mixer: Mixer, admin: Path, pki: Pki) -> None:
    async def ask() -> None:
        for _ in range(5):  # one is looked at every few milliseconds
            await mixer.check(pki.workload("shop"), SHOP)
            await mixer.report(pki.workload("shop"), {**SHOP, "response.code": 404})

    asyncio.run(ask())
    status, out, _ = run(mixer, admin, "attributes")
    assert status == 0
    assert SECRET not in out
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert "/items" in rows["request.path"]
    assert "(secret)" in rows['request.headers["authorization"]']
    assert "ann" in rows['request.headers["x-user"]']
    assert "STRING_MAP" in rows['request.headers["x-user"]']
    _, some, _ = run(mixer, admin, "attributes", "request.headers", "--json")
    assert {each["name"] for each in json.loads(some)["attributes"]} == {"request.headers"}


def test_nobody_else_is_told_anything(mixer: Mixer, pki: Pki) -> None:
    async def ask(method: str) -> grpc.StatusCode:
        async with mixer.channel(pki.workload("shop")) as channel:
            stub = introspection_pb2_grpc.IntrospectionStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                match method:
                    case "Explain":
                        await stub.Explain(introspection_pb2.ExplainRequest(), timeout=10)
                    case "Attributes":
                        await stub.Attributes(introspection_pb2.AttributesRequest(), timeout=10)
                    case _:
                        await stub.Decisions(introspection_pb2.DecisionsRequest(), timeout=10).read()
            return caught.value.code()

    for method in ("Explain", "Attributes", "Decisions"):
        assert asyncio.run(ask(method)) is grpc.StatusCode.PERMISSION_DENIED, method


def test_a_request_that_is_wrong_is_told_so(mixer: Mixer, admin: Path) -> None:
    status, _, err = run(mixer, admin, "explain", "-i", "source.principal=7", "-a", "request.url_path=/admin/x")
    assert status == 1
    assert "INVALID_ARGUMENT" in err
    assert "source.principal" in err


def test_filters_pick_what_all_of_them_fit() -> None:
    request, decision = introspection_pb2.DecisionsRequest(), introspection_pb2.Decision(id="a-1", code=7, rule="r.n")
    assert fits(request, decision)
    request.code = 7
    request.rule = "r"
    assert fits(request, decision)
    request.dry_run = True
    assert not fits(request, decision)
    decision.dry_runs.add(rule="s.n")
    assert fits(request, decision)
    request.rule = "s.n"
    assert fits(request, decision), "a rule is found by its dry runs too"
    request.attribute = "request.path"
    assert not fits(request, decision)
