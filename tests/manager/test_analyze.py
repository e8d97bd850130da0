"""Each finding of `meshwright analyze` has an example here, and its repaired twin, in which it isn't found."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from managers import client, objects, running
from meshes import SHOP, SPLIT, World
from test_cli import Shell

from meshwright.core.config import Key
from meshwright.manager.analyze import analysis, reachability
from meshwright.manager.analyze.finding import Finding, Severity, Subject
from meshwright.manager.model.meaning import Meaning
from meshwright.manager.model.routing import (
    Backend,
    CallerMatch,
    Destination,
    Dialect,
    HttpMatch,
    HttpRoute,
    Routes,
    Text,
    TextMatch,
)
from pki import Pki


def found(text: str) -> list[Finding]:
    documents = [(None, json.dumps(document)) for document in yaml.safe_load_all(text)]
    return list(analysis.offline(documents).findings)


CATALOG_V2 = Key("networking.istio.io/v1beta1", "WorkloadEntry", "default", "catalog-v2-0")  # without a Sidecar
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: depot}\n"
VIRTUAL = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: catalog}
spec:
  hosts: [catalog]
  http:
  - {name: all, match: [{uri: {prefix: /}}], route: [{destination: {host: catalog-v1}}]}
  - {name: late, match: [{uri: {exact: /late}}], route: [{destination: {host: catalog-v2}}]}
"""
SECOND = SPLIT.replace("name: catalog}", "name: another}", 1)
TARGET = """
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: let-in}
spec:
  destination: {kind: ServiceAccount, name: catalog}
  sources: [{kind: ServiceAccount, name: shop}]
  rules: [{kind: TCPRoute, name: any}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: any}
spec: {matches: {ports: [80]}}
"""
AUTHORIZATION = """
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: let-in}
spec:
  selector: {matchLabels: {app: catalog}}
  rules: [{from: [{source: {principals: [mesh.local/ns/default/sa/shop]}}]}]
"""
ENTRY = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: lost-0}
spec: {address: 127.0.0.9, labels: {app: lost}, serviceAccount: lost}
"""
LOST = """
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {name: lost}
spec:
  workloadSelector: {labels: {app: lost}}
  ingress: [{port: {number: 21001}, defaultEndpoint: "unix:///run/lost/app.sock"}]
"""
SUBSET = VIRTUAL.replace("{host: catalog-v2}", "{host: catalog, subset: two}")
RULE = """
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: catalog}
spec: {host: catalog, subsets: [{name: two, labels: {version: v2}}]}
"""

CASES = {
    "MW001": (SPLIT.replace("90", "-1"), SPLIT),
    "MW002": (
        NAMESPACE + "---" + SPLIT.replace("catalog}", "a, namespace: b}", 1),
        NAMESPACE + "---" + SPLIT,
    ),
    "MW003": (SHOP + "---" + LOST.replace("app: lost", "app: shop"), SHOP + "---" + LOST),
    "MW101": (SHOP + "---" + SPLIT.replace("catalog-v2", "catalog-v9"), SHOP + "---" + SPLIT),
    "MW102": (SHOP + "---" + SUBSET, SHOP + "---" + SUBSET + "---" + RULE),
    "MW103": (
        SHOP + "---" + VIRTUAL.replace("hosts:", "gateways: [mesh, nowhere]\n  hosts:"),
        SHOP + "---" + VIRTUAL,
    ),
    "MW201": (SHOP + "---" + VIRTUAL, SHOP + "---" + VIRTUAL.replace("prefix: /}", "prefix: /early}")),
    "MW301": (SHOP + "---" + SPLIT.replace("weight: 10", "weight: 0"), SHOP + "---" + SPLIT),
    "MW303": (
        SHOP
        + "---"
        + VIRTUAL.replace(
            "{destination: {host: catalog-v1}}",
            "{destination: {host: catalog-v1}, weight: 50}, {destination: {host: catalog-v1}, weight: 50}",
        ),
        SHOP + "---" + VIRTUAL,
    ),
    "MW402": (
        SHOP + "---" + VIRTUAL.replace("uri: {exact: /late}", "statPrefix: x, uri: {exact: /late}"),
        SHOP + "---" + VIRTUAL,
    ),
    "MW602": (
        SHOP + "---" + TARGET.replace("kind: ServiceAccount, name: shop", "kind: IdentityBinding, name: nobody"),
        SHOP + "---" + TARGET,
    ),
    "MW401": (SHOP + "---" + SPLIT + "---" + VIRTUAL, SHOP + "---" + VIRTUAL),
    "MW501": (SHOP.replace("selector: {app: catalog, version: v2}", "selector: {}"), SHOP),
    "MW502": (SHOP.replace("selector: {app: catalog, version: v2}", "selector: {app: nobody}"), SHOP),
    "MW503": (
        SHOP.replace("{name: http, port: 80}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: catalog-v2",
                     "{name: http, port: 80}, {name: http-b, port: 81, targetPort: web}]\n---\napiVersion: v1\n"
                     "kind: Service\nmetadata: {name: catalog-v2"),
        SHOP,
    ),
    "MW504": (SHOP.replace("ports: [{name: http,", "ports: [{name: mysql,"), SHOP),
    "MW505": (SHOP + "---" + ENTRY, SHOP + "---" + ENTRY + "---" + LOST),
    "MW506": (SHOP + "---" + ENTRY + "---" + LOST, SHOP),
    "MW601": (SHOP + "---" + AUTHORIZATION.replace("sa/shop", "sa/nobody"), SHOP + "---" + AUTHORIZATION),
    "MW603": (SHOP + "---" + AUTHORIZATION.replace("app: catalog", "app: nobody"), SHOP + "---" + AUTHORIZATION),
}  # fmt: skip


@pytest.mark.parametrize("code", CASES)
def test_each_code_is_found_where_it_is_and_nowhere_else(code: str) -> None:
    bad, good = CASES[code]
    mine = [finding for finding in found(bad) if finding.code == code]
    repaired = {finding.key for finding in found(good) if finding.code == code}
    assert {finding.key for finding in mine} - repaired, found(bad)
    assert repaired <= {CATALOG_V2}  # nothing but what the shop has by itself
    for finding in mine:
        assert finding.message
        assert finding.remedy
        assert finding.key.kind


def test_routes_that_answer_nobody_are_found_whatever_dialect_says_them() -> None:
    """Dialects that are in force today refuse these themselves; the Gateway API has them."""
    world = World(SHOP)
    key = next(key for key in world.objects if key.name == "catalog")
    host = "catalog.default.svc.cluster.local"
    for code, backends in (("MW104", ()), ("MW302", (Backend(Destination(host), weight=0),))):
        routes = Routes(host, Dialect.GATEWAY_API, (HttpRoute(key, backends=backends),))
        area = replace(world.mesh.areas["default"], meaning=Meaning(routes=(routes,)))
        subject = Subject(replace(world.mesh, areas={"default": area}), world.objects, frozenset(("default",)))
        told = [finding.code for family in analysis.FAMILIES for finding in family(subject)]
        assert code in told


def test_every_code_has_a_paragraph_in_the_document() -> None:
    root = Path(__file__).parents[2]
    folder = root / "services/manager/meshwright/manager/analyze"
    used = {code for file in folder.glob("*.py") for code in re.findall(r'"(MW\d{3})"', file.read_text())}
    told = set(re.findall(r"^### (MW\d{3})", (root / "docs/analyze.md").read_text(), re.MULTILINE))
    assert used == told
    assert set(CASES) <= used


def test_a_good_mesh_has_no_findings_but_what_is_worth_knowing() -> None:
    assert [finding for finding in found(SHOP + "---" + SPLIT) if finding.severity < Severity.WARNING] == []


PREFIX, EXACT, SEGMENTS = (
    lambda value, kind=kind: HttpMatch(path=TextMatch(kind, value)) for kind in (Text.PREFIX, Text.EXACT, Text.SEGMENTS)
)
HEADER = HttpMatch(headers=(("x", TextMatch(Text.EXACT, "1")),))


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        (HttpMatch(), HEADER, True),
        (HEADER, HttpMatch(), False),
        (HttpMatch(headers=(("x", TextMatch(Text.PRESENT)),)), HEADER, True),
        (HttpMatch(headers=(("x", TextMatch(Text.EXACT, "1", negated=True)),)), HEADER, False),
        (PREFIX("/"), HttpMatch(), True),
        (SEGMENTS("/"), PREFIX("/a"), True),
        (PREFIX("/a"), PREFIX("/ab"), True),
        (PREFIX("/ab"), PREFIX("/a"), False),
        (SEGMENTS("/shop"), PREFIX("/shop"), False),
        (SEGMENTS("/shop"), PREFIX("/shop/"), True),
        (SEGMENTS("/shop"), EXACT("/shop"), True),
        (SEGMENTS("/shop"), EXACT("/shopping"), False),
        (PREFIX("/shop"), SEGMENTS("/shop"), True),
        (EXACT("/a"), PREFIX("/a"), False),
        (EXACT("/a"), HttpMatch(path=TextMatch(Text.EXACT, "/A", ignore_case=True)), False),
        (HttpMatch(path=TextMatch(Text.EXACT, "/A", ignore_case=True)), EXACT("/a"), True),
        (HttpMatch(path=TextMatch(Text.REGEX, "/a.*")), EXACT("/ab"), False),
        (HttpMatch(methods=("GET", "PUT")), HttpMatch(methods=("GET",)), True),
        (HttpMatch(methods=("GET",)), HttpMatch(), False),
        (HttpMatch(callers=CallerMatch(labels=(("a", "1"),))), HttpMatch(), False),
        (HttpMatch(callers=CallerMatch(namespace="a")), HttpMatch(callers=CallerMatch("a", (("b", "1"),))), True),
        (HttpMatch(port=80), HttpMatch(port=81), False),
        (HttpMatch(gateways=("a/b",)), HttpMatch(gateways=("a/b", "c/d")), False),
    ],
)
def test_what_one_condition_says_of_another(wide: HttpMatch, narrow: HttpMatch, *, covered: bool) -> None:
    assert reachability.covers(wide, narrow) is covered


async def test_files_are_analyzed_alone_and_over_the_live_mesh(pki: Pki, tmp_path: Path) -> None:
    (tmp_path / "split.yaml").write_text(SPLIT)
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        shell = Shell(pki, tmp_path / "data", address)
        await admin.apply(objects(SHOP.replace("name: catalog-v2", "name: catalog-v3")))
        alone = await shell("analyze", "-f", str(tmp_path / "split.yaml"), status=1)
        assert "error MW101" in alone
        assert "split.yaml#1: TrafficSplit default/catalog: spec.backends[0].service: service catalog-v1" in alone
        over = await shell("analyze", "-f", str(tmp_path / "split.yaml"), "--live", "--json", status=1)
        [finding] = [each for each in json.loads(over)["findings"] if each["code"] == "MW101"]
        assert (finding["severity"], finding["field"]) == ("error", "spec.backends[1].service")
        assert finding["source"].endswith("split.yaml#1")
        assert "MW101" not in await shell("analyze", "--fail-on", "error")  # the mesh as it is
        assert await admin.list("TrafficSplit") == ([], 1)
        assert await admin.analyze(namespace="elsewhere") == []
        (tmp_path / "split.yaml").write_text("a: [")
        await shell("analyze", "-f", str(tmp_path / "split.yaml"), status=78)
