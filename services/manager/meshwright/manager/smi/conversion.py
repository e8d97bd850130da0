"""From every version of an SMI kind to every other, through the newest, losing nothing.

One decision to know: conversion is by raw objects and total. An API server converts what it stored years ago, status
and all, and may be answered with a failure but never with less than it gave. What a version has no field for travels in
annotations (`smi.carried`), which are taken off again on the way back; an edit made meanwhile in the older version
stays. v1alpha4 is the hub.

Places that several versions know: HTTPRouteGroups keep `matches` at the root before v1alpha3 and under `spec` since;
one that has it in the other place keeps it in the other place of whatever version it is shown in.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from meshwright.core import errors
from meshwright.manager.smi import carried, quantity

Raw = dict[str, Any]

HUB = "v1alpha4"
VERSIONS = {
    ("access.smi-spec.io", "TrafficTarget"): ("v1alpha1", "v1alpha2", "v1alpha3"),
    ("access.smi-spec.io", "IdentityBinding"): (),
    ("specs.smi-spec.io", "HTTPRouteGroup"): ("v1alpha1", "v1alpha2", "v1alpha3"),
    ("specs.smi-spec.io", "TCPRoute"): ("v1alpha1", "v1alpha2", "v1alpha3"),
    ("specs.smi-spec.io", "UDPRoute"): (),
    ("split.smi-spec.io", "TrafficSplit"): ("v1alpha1", "v1alpha2", "v1alpha3"),
}
"""Kinds, and their versions before the hub."""


def convert(given: Raw, wanted: str) -> Raw:
    """Return an object in another version of its group (``split.smi-spec.io/v1alpha1``); raise ConfigError."""
    group, _, version = str(given.get("apiVersion")).partition("/")
    to_group, _, to_version = wanted.partition("/")
    kind = str(given.get("kind"))
    known = (*VERSIONS.get((group, kind), ()), HUB) if (group, kind) in VERSIONS else ()
    if to_group != group or version not in known or to_version not in known:
        raise errors.ConfigError(f"{kind[:60]} of {group[:60]}/{version[:20]} doesn't become {wanted[:80]}")
    made = copy.deepcopy(given)
    try:
        if version != HUB:
            _UP.get((kind, version), _nothing)(made)
        if to_version != HUB:
            _DOWN.get((kind, to_version), _nothing)(made)
    except (TypeError, AttributeError, KeyError, IndexError, ValueError) as error:
        raise errors.ConfigError(f"{kind} has another form than {group}/{version} says: {error}") from error
    made["apiVersion"] = wanted
    return made


def _nothing(_: Raw) -> None:
    """Say the same in both versions."""


def _keep(made: Raw, name: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    metadata = made.setdefault("metadata", {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), name: text}


def _take(made: Raw, name: str) -> str | None:
    metadata = made.get("metadata") or {}
    found = metadata.get("annotations") or {}
    if name not in found:
        return None
    text = found[name]
    metadata["annotations"] = {key: value for key, value in found.items() if key != name}
    if not metadata["annotations"]:
        del metadata["annotations"]
    return str(text)


def _take_json(made: Raw, name: str, shape: type) -> Any:
    """Take what `_keep` kept; what a person wrote there instead counts as nothing kept."""
    text = _take(made, name)
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, shape) else None


# TrafficTarget


def _target_up(made: Raw) -> None:
    spec = made["spec"]
    absent = [name for name in ("sources", "rules") if name not in spec]
    if absent:
        _keep(made, carried.ABSENT, ",".join(absent))
    spec |= {name: [] for name in absent}
    port = spec["destination"].pop("port", None) if "destination" in spec else None
    if port is not None:
        _keep(made, carried.DESTINATION_PORT, str(port))
    ports = [source.pop("port", None) for source in spec["sources"]]
    if any(port is not None for port in ports):
        _keep(made, carried.SOURCE_PORTS, ports)
    for kept in _take_json(made, carried.UDP_RULES, list) or ():
        match kept:
            case [int(index), {**rule}]:
                spec["rules"].insert(index, rule)


def _target_down(made: Raw) -> None:
    spec = made["spec"]
    udp = [[index, rule] for index, rule in enumerate(spec["rules"]) if rule.get("kind") == "UDPRoute"]
    if udp:
        spec["rules"] = [rule for rule in spec["rules"] if rule.get("kind") != "UDPRoute"]
        _keep(made, carried.UDP_RULES, udp)
    ports = _take_json(made, carried.SOURCE_PORTS, list) or ()
    for source, port in zip(spec["sources"], ports, strict=False):
        if isinstance(port, int):
            source["port"] = port
    port = _take(made, carried.DESTINATION_PORT) or ""
    if port.isascii() and port.isdecimal():
        spec["destination"]["port"] = int(port[:6])
    absent = (_take(made, carried.ABSENT) or "").split(",")
    for name, unsaid in (("sources", False), ("rules", bool(udp))):
        if name in absent and not spec[name] and not unsaid:
            del spec[name]


def _first_target_up(made: Raw) -> None:
    made["spec"] = {
        new: made.pop(old)
        for old, new in (("destination", "destination"), ("sources", "sources"), ("specs", "rules"))
        if old in made
    }
    _target_up(made)


def _first_target_down(made: Raw) -> None:
    _target_down(made)
    spec = made.pop("spec")
    if "rules" in spec:
        spec["specs"] = spec.pop("rules")
    made |= spec


# HTTPRouteGroup


def _move(made: Raw) -> None:
    """Swap the two places of matches."""
    if "spec" in made:
        spec = made.pop("spec")
        if set(spec) - {"matches"} or "matches" in made:
            raise ValueError("matches belong under spec or at the root, and nothing else does")
        made |= spec
    elif "matches" in made:
        made["spec"] = {"matches": made.pop("matches")}


def _matches(made: Raw) -> list[Raw]:
    return list(made.get("spec", made).get("matches") or ())


_ANY: Raw = {"pathRegex": ".*", "methods": ["*"]}


def _first_group_up(made: Raw) -> None:
    kept = _take_json(made, carried.MATCHES, dict) or {}
    for match in _matches(made):
        of_match = kept.get(match.get("name"))
        if not isinstance(of_match, dict):
            continue
        if "headers" in of_match:
            match["headers"] = of_match["headers"]
        implied = of_match.get("implied")
        for field in implied if isinstance(implied, list) else ():
            if field in _ANY and match.get(field) == _ANY[field]:
                del match[field]
    _move(made)


def _first_group_down(made: Raw) -> None:
    _move(made)
    kept: Raw = {}
    for match in _matches(made):
        of_match: Raw = {}
        if "headers" in match:
            of_match["headers"] = match.pop("headers")
        implied = [field for field in _ANY if field not in match]
        if implied:
            of_match["implied"] = implied
            match |= {field: copy.copy(_ANY[field]) for field in implied}
        if of_match:
            kept[match["name"]] = of_match
    if kept:
        _keep(made, carried.MATCHES, kept)


# TCPRoute


def _tcp_up(made: Raw) -> None:
    if "spec" in made:
        _keep(made, carried.SPEC, "empty")
    made["spec"] = _take_json(made, carried.MATCHES, dict) or {"matches": {"ports": []}}


def _tcp_down(made: Raw) -> None:
    spec = made.pop("spec", {})
    if _take(made, carried.SPEC) == "empty":
        made["spec"] = {}
    if spec != {"matches": {"ports": []}}:
        _keep(made, carried.MATCHES, spec)


# TrafficSplit


def _split_up(made: Raw) -> None:
    matches = _take_json(made, carried.MATCHES, list)
    if matches is not None:
        made["spec"]["matches"] = matches


def _split_down(made: Raw) -> None:
    if "matches" in made["spec"]:
        _keep(made, carried.MATCHES, made["spec"].pop("matches"))


def _first_split_up(made: Raw) -> None:
    backends = made["spec"]["backends"]
    given = [backend["weight"] for backend in backends]
    whole = quantity.weights(given)
    for backend, weight in zip(backends, whole, strict=True):
        backend["weight"] = weight
    if given != whole:
        _keep(made, carried.WEIGHTS, given)
    _split_up(made)


def _first_split_down(made: Raw) -> None:
    _split_down(made)
    backends = made["spec"]["backends"]
    given = _take_json(made, carried.WEIGHTS, list) or []
    try:
        same = quantity.weights(given) == [backend["weight"] for backend in backends]
    except errors.ConfigError:
        same = False
    if same:
        for backend, weight in zip(backends, given, strict=True):
            backend["weight"] = weight


Step = Callable[[Raw], None]
_UP: dict[tuple[str, str], Step] = {
    ("TrafficTarget", "v1alpha1"): _first_target_up,
    ("TrafficTarget", "v1alpha2"): _target_up,
    ("HTTPRouteGroup", "v1alpha1"): _first_group_up,
    ("HTTPRouteGroup", "v1alpha2"): _move,
    ("TCPRoute", "v1alpha1"): _tcp_up,
    ("TCPRoute", "v1alpha2"): _tcp_up,
    ("TCPRoute", "v1alpha3"): _tcp_up,
    ("TrafficSplit", "v1alpha1"): _first_split_up,
    ("TrafficSplit", "v1alpha2"): _split_up,
}
_DOWN: dict[tuple[str, str], Step] = {
    ("TrafficTarget", "v1alpha1"): _first_target_down,
    ("TrafficTarget", "v1alpha2"): _target_down,
    ("HTTPRouteGroup", "v1alpha1"): _first_group_down,
    ("HTTPRouteGroup", "v1alpha2"): _move,
    ("TCPRoute", "v1alpha1"): _tcp_down,
    ("TCPRoute", "v1alpha2"): _tcp_down,
    ("TCPRoute", "v1alpha3"): _tcp_down,
    ("TrafficSplit", "v1alpha1"): _first_split_down,
    ("TrafficSplit", "v1alpha2"): _split_down,
}
