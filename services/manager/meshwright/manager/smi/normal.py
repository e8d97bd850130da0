"""One form of what the specification lets people write in several, before schemas look at it.

Examples and definitions of SMI disagree: about where an HTTPRouteGroup's matches are, whether headers are a map or a
list of maps, and which of a TCPRoute's empty parts are written. All of it is read; what is kept is one form.
"""

from __future__ import annotations

from typing import Any

from meshwright.manager.smi import conversion

Raw = dict[str, Any]

_ROOT = ("v1alpha1", "v1alpha2")  # versions in which matches are at an object's root


def newest(raw: Raw) -> Raw:
    """Return a valid object of any version in the newest; raise ConfigError where that can't say it."""
    group = str(raw["apiVersion"]).partition("/")[0]
    return conversion.convert(raw, f"{group}/{conversion.HUB}")


def route_group(raw: Raw) -> Raw:
    """Put matches where their version has them, and headers into a map."""
    made = dict(raw)
    version = str(raw.get("apiVersion")).rpartition("/")[2]
    spec = made.get("spec")
    if version in _ROOT:
        if isinstance(spec, dict) and "matches" not in made and spec.keys() == {"matches"}:
            made |= made.pop("spec")
        if isinstance(made.get("matches"), list):
            made["matches"] = [_match(match) for match in made["matches"]]
        return made
    if "matches" in made and "spec" not in made:
        made["spec"] = spec = {"matches": made.pop("matches")}
    if isinstance(spec, dict) and isinstance(spec.get("matches"), list):
        made["spec"] = {**spec, "matches": [_match(match) for match in spec["matches"]]}
    return made


def _match(match: Any) -> Any:
    if not isinstance(match, dict) or not isinstance(match.get("headers"), list):
        return match
    merged: Raw = {}
    for entry in match["headers"]:
        if not isinstance(entry, dict) or merged.keys() & entry.keys():
            return match  # for the schema to refuse
        merged |= entry
    return {**match, "headers": merged}


def port_route(raw: Raw) -> Raw:
    """Write out that all ports are meant."""
    version = str(raw.get("apiVersion")).rpartition("/")[2]
    spec = raw.get("spec")
    if version != conversion.HUB or spec not in (None, {}, {"matches": None}, {"matches": {}}):
        return raw
    return {**raw, "spec": {"matches": {"ports": []}}}
