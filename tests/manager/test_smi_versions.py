"""An object of SMI is one object, whatever version it was written in, asked for in or deleted in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshwright.core import errors
from meshwright.core.config import Key, Snapshot, from_document
from meshwright.core.health import Health
from meshwright.manager.configapi import plan
from meshwright.manager.configapi.catalogue import Catalogue, State
from meshwright.manager.configapi.plan import Action
from meshwright.manager.configapi.selection import Selection

OLD = """
apiVersion: split.smi-spec.io/v1alpha1
kind: TrafficSplit
metadata: {name: catalog}
spec: {service: catalog, backends: [{service: v1, weight: 1}, {service: v2, weight: 3}]}
"""
NEW = OLD.replace("v1alpha1", "v1alpha4")
HUB = Key("split.smi-spec.io/v1alpha4", "TrafficSplit", "default", "catalog")


def json_of(text: str) -> str:
    return from_document(yaml.safe_load(text), "file.yaml").json


def test_applied_in_one_version_and_changed_in_another() -> None:
    created = plan.apply([(Key("split.smi-spec.io/v1alpha1", "TrafficSplit", "", "catalog"), json_of(OLD))], State())
    assert created.results == [(HUB, Action.CREATED)]
    state = State(1, created.after)
    assert plan.apply([(None, json_of(NEW))], state).results == [(HUB, Action.UNCHANGED)]
    changed = plan.apply([(None, json_of(OLD.replace("weight: 3", "weight: 3500m")))], state)
    assert changed.results == [(HUB, Action.CHANGED)]
    twice = plan.apply([(None, json_of(OLD)), (None, json_of(NEW))], State())
    assert "twice" in twice.findings.violations[0].message
    deleted = plan.delete(
        [Key("split.smi-spec.io/v1alpha2", "TrafficSplit", "", "catalog")], state, ignore_missing=False
    )
    assert deleted.results == [(HUB, Action.DELETED)]


@pytest.mark.parametrize("version", ["split.smi-spec.io/v1alpha1", "split.smi-spec.io/v1alpha4", ""])
def test_asked_for_in_any_version(version: str) -> None:
    assert Selection.of(Key(version, "TrafficSplit", "", "")).fits(HUB)


def test_a_kind_by_its_former_name() -> None:
    found = Key("smi.meshwright.io/v1beta1", "TLSConfig", "default", "secure")
    assert Selection.of(Key("v1beta1", "MutualTLS", "", "")).fits(found)
    with pytest.raises(errors.ConfigError, match="unknown kind"):
        Selection.of(Key("", "MutualTls2", "", ""))


def test_a_folder_that_has_it_twice_is_refused() -> None:
    catalogue = Catalogue(Health("mesh"), strict=True, on_change=lambda _: None)

    def snapshot(*texts: str) -> Snapshot:
        documents: list[Any] = [yaml.safe_load(text) for text in texts]
        found = [from_document(document, f"{number}.yaml") for number, document in enumerate(documents)]
        return Snapshot(1, {Key(o.api_version, o.kind, o.namespace or "default", o.name): o for o in found})

    with pytest.raises(errors.ConfigError, match=r"1\.yaml.*keep one"):
        catalogue.start(snapshot(OLD, NEW))
    catalogue.start(snapshot(OLD))
    assert list(catalogue.state.objects) == [HUB]
