"""The manager's table of kinds against those who own them."""

from __future__ import annotations

import json

from meshwright.manager.model import kinds, parse
from meshwright.mixer.config.kinds import KINDS


def test_the_manager_knows_all_of_mixers_kinds() -> None:
    """The two services know nothing of each other, so each has the names."""
    assert {(kind.api_version, kind.name) for kind in kinds.KINDS if kind.owner == "mixer"} == set(KINDS)


def test_plurals_are_those_that_clusters_have() -> None:
    plurals = {kind.name: kind.plural for kind in kinds.KINDS}
    assert plurals["listentry"] == "listentries"
    assert plurals["apikey"] == "apikeys"
    assert plurals["prometheus"] == "prometheuses"
    assert plurals["cloudwatch"] == "cloudwatches"
    assert plurals["QuotaSpec"] == "quotaspecs"


def test_a_kind_without_fields_needs_no_spec() -> None:
    document = {"apiVersion": "config.istio.io/v1alpha2", "kind": "checknothing", "metadata": {"name": "nothing"}}
    assert isinstance(parse.parse(json.dumps(document)), parse.Parsed)


def test_a_kind_of_the_whole_cluster_lives_in_no_namespace() -> None:
    document = {
        "apiVersion": "rbac.istio.io/v1alpha1",
        "kind": "ClusterRbacConfig",
        "metadata": {"name": "default"},
        "spec": {"mode": "ON"},
    }
    parsed = parse.parse(json.dumps(document))
    assert isinstance(parsed, parse.Parsed)
    assert parsed.key.namespace == ""
