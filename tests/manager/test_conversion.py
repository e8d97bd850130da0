"""Between the versions of SMI's kinds nothing is lost, widened or turned round."""

from __future__ import annotations

import copy
import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smi_objects import CASES, Raw, holds, objects, quantities

from meshwright.core import errors
from meshwright.manager.model.parse import Parsed, parse
from meshwright.manager.smi import conversion, quantity

OLDER = [case for case in CASES if case[2] != conversion.HUB]


def obj(api_version: str, kind: str, **content: Any) -> Raw:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "one", "namespace": "shop"}, **content}


@pytest.mark.parametrize(("group", "kind", "version"), OLDER)
@settings(max_examples=40)
@given(data=st.data())
def test_to_the_hub_and_back_is_the_identity(data: st.DataObject, group: str, kind: str, version: str) -> None:
    given_ = data.draw(objects(group, kind, version))
    before = copy.deepcopy(given_)
    hub = conversion.convert(given_, f"{group}/{conversion.HUB}")
    assert hub["apiVersion"] == f"{group}/{conversion.HUB}"
    assert conversion.convert(hub, given_["apiVersion"]) == before
    assert given_ == before, "what is given isn't changed"


@pytest.mark.parametrize(("group", "kind", "version"), OLDER)
@settings(max_examples=40)
@given(data=st.data())
def test_from_the_hub_and_back_is_the_identity(data: st.DataObject, group: str, kind: str, version: str) -> None:
    hub = data.draw(objects(group, kind, conversion.HUB))
    assert conversion.convert(conversion.convert(hub, f"{group}/{version}"), f"{group}/{conversion.HUB}") == hub


@pytest.mark.parametrize(("group", "kind", "version"), CASES)
@settings(max_examples=40)
@given(data=st.data())
def test_every_valid_object_is_taken_and_kept_as_the_hubs(
    data: st.DataObject, group: str, kind: str, version: str
) -> None:
    given_ = data.draw(objects(group, kind, version))
    result = parse(json.dumps(given_))
    assert isinstance(result, Parsed), result
    assert result.key.api_version == f"{group}/{conversion.HUB}"
    again = parse(result.text)
    assert isinstance(again, Parsed)
    assert again.text == result.text


@pytest.mark.parametrize(("group", "kind", "version"), OLDER)
@settings(max_examples=40)
@given(data=st.data())
def test_what_is_shown_in_an_older_version_is_valid_there(
    data: st.DataObject, group: str, kind: str, version: str
) -> None:
    hub = data.draw(objects(group, kind, conversion.HUB))
    if kind == "TrafficTarget" and all(rule["kind"] == "UDPRoute" for rule in hub["spec"]["rules"]):
        return  # nothing of it can be said there
    shown = conversion.convert(hub, f"{group}/{version}")
    result, own = parse(json.dumps(shown)), parse(json.dumps(hub))
    assert isinstance(result, Parsed), result
    assert isinstance(own, Parsed)
    assert result.text == own.text


def test_a_destinations_port_stays_in_force() -> None:
    """The reference's converters drop it, which opens all other ports."""
    old = obj(
        "access.smi-spec.io/v1alpha1",
        "TrafficTarget",
        destination={"kind": "ServiceAccount", "name": "db", "port": 5432},
        sources=[{"kind": "ServiceAccount", "name": "api"}],
        specs=[{"kind": "TCPRoute", "name": "all"}],
    )
    result = parse(json.dumps(old))
    assert isinstance(result, Parsed)
    assert result.document.port == 5432
    assert json.loads(result.text)["metadata"]["annotations"] == {"smi.meshwright.io/destination-port": "5432"}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (["1", "500m"], [1000, 500]),
        (["1500m", "100m", "10m"], [1500, 100, 10]),
        ([1, 2], [1, 2]),
        (["1k", "1Ki"], [1000, 1024]),
        (["1u", "1"], [1, 1_000_000]),
        (["0", "1e3"], [0, 1000]),
        (["1G", "2G"], [1, 2]),
    ],
)
def test_weights_keep_their_ratio(given_: list[Any], expected: list[int]) -> None:
    """The reference takes "1" and "500m" for 1 and 500."""
    assert quantity.weights(given_) == expected


@given(st.lists(quantities, min_size=1, max_size=5).filter(holds))
def test_any_quantities_become_weights_in_exactly_their_ratio(given_: list[Any]) -> None:
    whole, amounts = quantity.weights(given_), [quantity.amount(each) for each in given_]
    assert [Fraction(each * sum(amounts)) for each in whole] == [each * sum(whole) for each in amounts]


@pytest.mark.parametrize("text", ["", "-1", "1 ", "m", "1mm", "0x1", "1e999", "1" * 40, True, 1.5, None, "١"])
def test_what_is_no_quantity_is_refused(text: Any) -> None:
    with pytest.raises(errors.ConfigError, match="quantity"):
        quantity.amount(text)


def test_ratios_that_no_proxy_can_hold_are_refused() -> None:
    with pytest.raises(errors.ConfigError, match="apart"):
        quantity.weights(["1n", "1"])


def test_an_edit_in_the_older_version_stays() -> None:
    hub = obj(
        "split.smi-spec.io/v1alpha4",
        "TrafficSplit",
        spec={
            "service": "root",
            "backends": [{"service": "a", "weight": 1}, {"service": "b", "weight": 3}],
            "matches": [{"kind": "HTTPRouteGroup", "name": "some"}],
        },
    )
    old = conversion.convert(hub, "split.smi-spec.io/v1alpha1")
    assert "matches" not in old["spec"]
    old["spec"]["backends"][0]["weight"] = "1500m"
    edited = conversion.convert(old, "split.smi-spec.io/v1alpha4")
    assert edited["spec"]["backends"] == [{"service": "a", "weight": 1500}, {"service": "b", "weight": 3000}]
    assert edited["spec"]["matches"] == hub["spec"]["matches"]
    edited["spec"]["backends"][0]["weight"] = 3000
    back = conversion.convert(edited, "split.smi-spec.io/v1alpha1")
    assert [backend["weight"] for backend in back["spec"]["backends"]] == [3000, 3000]


def test_udp_rules_and_ports_come_back_to_their_places() -> None:
    sources = [{"kind": "ServiceAccount", "name": "api"}]
    rules = [{"kind": "UDPRoute", "name": "u"}, {"kind": "TCPRoute", "name": "t"}, {"kind": "UDPRoute", "name": "v"}]
    destination = {"kind": "ServiceAccount", "name": "db"}
    spec = {"destination": destination, "sources": sources, "rules": rules}
    hub = obj("access.smi-spec.io/v1alpha4", "TrafficTarget", spec=spec)
    old = conversion.convert(hub, "access.smi-spec.io/v1alpha1")
    assert old["specs"] == [rules[1]]
    assert conversion.convert(old, hub["apiVersion"]) == hub


@given(st.sampled_from(CASES), st.sampled_from(CASES), st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["v1alpha1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["spec", "matches", "rules", "sources", "destination", "backends", "weight", "name", "port"]),
        inner, max_size=4,
    ), max_leaves=12,
), st.sampled_from(["destination-port", "source-ports", "absent", "udp-rules", "matches", "weights", "spec"]),
   st.sampled_from(["", "x", "[]", "{}", "[1]", '{"a":1}', '[[0,{}]]', '[[true,{}],[9,1]]', "[" * 9999]))  # fmt: skip
def test_whatever_comes_is_converted_or_refused_with_a_sentence(
    case: tuple[str, str, str], other: tuple[str, str, str], content: Any, name: str, text: str
) -> None:
    group, kind, version = case
    metadata = {"name": "one", "annotations": {f"smi.meshwright.io/{name}": text}}
    given_ = {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": metadata, "spec": content}
    if isinstance(content, dict):
        given_ |= content
    try:
        made = conversion.convert(given_, f"{group}/{other[2]}")
    except errors.ConfigError as error:
        assert error.message
    else:
        assert made["apiVersion"] == f"{group}/{other[2]}"


def test_versions_that_arent_there_are_named() -> None:
    with pytest.raises(errors.ConfigError, match="doesn't become"):
        conversion.convert(obj("split.smi-spec.io/v1alpha4", "TrafficSplit"), "specs.smi-spec.io/v1alpha4")
    with pytest.raises(errors.ConfigError, match="doesn't become"):
        conversion.convert(obj("split.smi-spec.io/v2", "TrafficSplit"), "split.smi-spec.io/v1alpha4")
