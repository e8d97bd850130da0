"""Smeagol, the draft before SMI: what it wrote, in both its spellings, and what that means here."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from meshes import SHOP, World, message

from meshwright.core.config import from_document
from meshwright.manager.model.access import PeerRule, PeerTls
from meshwright.manager.model.meaning import Context
from meshwright.manager.model.parse import Parsed, parse
from meshwright.manager.smeagol.translate import translate

CONTEXT = Context("default", "mesh-root", "mesh.local")
FIRST = """
apiVersion: v1beta1
kind: Canary
name: front
spec:
  services:
  - catalog-v1: 50%
  - catalog-v2: 30%
"""
SECOND = """
apiVersion: v1beta1
kind: Canary
metadata: {name: roll}
spec:
  service: catalog
  backends: [{service: catalog-v1, weight: 1}, {service: catalog-v2, weight: 500m}]
"""
TLS = """
apiVersion: v1beta1
kind: MutualTLS
name: secure
spec:
  subjectNames: [catalog.example.com]
  selector: {matchLabels: {app: catalog}}
"""
MONITOR = """
apiVersion: v1beta1
kind: Monitor
name: measured
spec:
  selector: {matchLabels: {app: catalog}}
  metricLabels: {team: shop}
"""


def read(text: str) -> Parsed:
    """Read a document as a file is read, and as the API reads it: both are the same."""
    document = yaml.safe_load(text)
    result = parse(from_document(document, "file.yaml").json)
    assert isinstance(result, Parsed), result
    assert parse(json.dumps(document)) == result
    return result


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        (FIRST, "Canary", "front"),
        (SECOND, "Canary", "roll"),
        (TLS, "TLSConfig", "secure"),
        (MONITOR, "Sidecar", "measured"),
    ],
)
def test_every_spelling_is_one_object(text: str, kind: str, name: str) -> None:
    found = read(text)
    assert (found.key.api_version, found.key.kind, found.key.name) == ("smi.meshwright.io/v1beta1", kind, name)
    grouped = read(text.replace("apiVersion: v1beta1", "apiVersion: smi.meshwright.io/v1beta1"))
    assert grouped == found
    assert read(text.replace(f"\nname: {name}", f"\nmetadata: {{name: {name}}}")) == found


def test_percentages_that_dont_add_up_are_ratios_and_that_is_said() -> None:
    meaning = translate([read(FIRST)], CONTEXT)
    [routes] = meaning.routes
    assert routes.host == "front.default.svc.cluster.local"
    assert [(each.destination.host.split(".")[0], each.weight) for each in routes.http[0].backends] == [
        ("catalog-v1", 50),
        ("catalog-v2", 30),
    ]
    [notice] = meaning.notices
    assert (notice.field, notice.reason) == ("spec.services", "Normalised")
    assert "80 %" in notice.message
    assert not translate([read(FIRST.replace("30%", "50%"))], CONTEXT).notices


def test_a_canary_is_the_service_that_is_called() -> None:
    """It has the ports of those behind it, and is there as long as the Canary is."""
    world = World(SHOP)
    assert "front" not in world.mesh.areas["default"].services
    world.apply(FIRST)
    front = world.mesh.areas["default"].services["front"]
    assert [port.number for port in front.ports] == [80]
    view = world.snapshot.view("default", "shop-0")
    assert view is not None
    [name] = view.route_names
    hosts = {host["name"]: host for host in message(view.route(name))["virtual_hosts"]}
    clusters = hosts["front.default.svc.cluster.local:80"]["routes"][0]["route"]["weighted_clusters"]["clusters"]
    assert {cluster["name"].split("|")[3].split(".")[0]: cluster["weight"] for cluster in clusters} == {
        "catalog-v1": 50,
        "catalog-v2": 30,
    }
    world.apply(remove=("Canary/front",))
    assert "front" not in world.mesh.areas["default"].services


def test_backends_are_a_traffic_split() -> None:
    [routes] = translate([read(SECOND)], CONTEXT).routes
    assert routes.host == "catalog.default.svc.cluster.local"
    assert [each.weight for each in routes.http[0].backends] == [1000, 500]


def test_a_traffic_split_of_the_same_service_comes_first() -> None:
    split = SECOND.replace("v1beta1", "split.smi-spec.io/v1alpha1").replace("Canary", "TrafficSplit")
    meaning = translate([read(SECOND), read(split)], CONTEXT)
    assert not meaning.routes
    assert [notice.reason for notice in meaning.notices] == ["Conflicted"]


def test_mutual_tls_is_asked_for_and_what_isnt_done_is_said() -> None:
    found = read(TLS)
    meaning = translate([found, read(MONITOR)], CONTEXT)
    assert meaning.peers == (PeerRule(found.key, (("app", "catalog"),), PeerTls.STRICT),)
    assert {notice.field for notice in meaning.notices} == {"spec.subjectNames", "spec.metricLabels"}


@pytest.mark.parametrize(
    ("text", "old", "new", "says"),
    [
        (FIRST, "50%", "50", "write text"),
        (FIRST, "50%", "101%", "0% to 100%"),
        (FIRST, "catalog-v2", "catalog-v1", "twice"),
        (FIRST, "catalog-v2", "front", "itself"),
        (FIRST, "- catalog-v2: 30%", "- {catalog-v2: 30%, other: 1%}", "one service an entry"),
        (FIRST.replace("30%", "0%"), "50%", "0%", "all shares are 0"),
        (SECOND, "500m", "half", "quantity"),
        (SECOND, "500m", "1n", "apart"),
        (SECOND, "service: catalog\n", "service: catalog.other\n", "isn't a service of namespace default"),
        (SECOND, "  service: catalog\n", "", "either services, or service and backends"),
        (TLS, "{app: catalog}", "{}", "needed"),
        (MONITOR, "metricLabels", "metricLabel", "did you mean metricLabels"),
        (MONITOR, "name: measured", "name: measured\nmetadata: {name: other}", "unknown field"),
    ],
)
def test_what_is_wrong_is_told(text: str, old: str, new: str, says: str) -> None:
    document: Any = yaml.safe_load(text.replace(old, new))
    result = parse(json.dumps(document))
    assert not isinstance(result, Parsed)
    assert any(says in fault.message for fault in result), result
