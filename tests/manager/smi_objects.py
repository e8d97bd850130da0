"""Valid objects of every SMI kind and version, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshwright.core import errors
from meshwright.manager.smi import conversion, quantity

Raw = dict[str, Any]

names = st.sampled_from(["a", "b", "shop-2", "x" * 63, "0"])
ports = st.integers(1, 65535)
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
regexes = st.sampled_from(["/.*", ".*", "/api/v[12](/.*)?", "^/exact$", "", r"/a\.b", "(?i)/x", "[a-z]{2,5}"])


def subject(*, port: bool) -> st.SearchStrategy[Raw]:
    fields: dict[str, Any] = {"group": st.just("access.smi-spec.io")}
    if port:
        fields["port"] = ports
    kinds = st.sampled_from(["ServiceAccount", "IdentityBinding"])
    return st.fixed_dictionaries({"kind": kinds, "name": names}, optional=fields)


def rules(*kinds: str) -> st.SearchStrategy[list[Raw]]:
    rule = st.fixed_dictionaries(
        {"kind": st.sampled_from(kinds), "name": names}, optional={"matches": st.lists(names, max_size=3)}
    )
    return st.lists(rule, min_size=1, max_size=4)


def target(version: str) -> st.SearchStrategy[Raw]:
    old = version in ("v1alpha1", "v1alpha2")
    sources = st.lists(subject(port=old), min_size=1, max_size=3)
    which = "specs" if version == "v1alpha1" else "rules"
    if not old:
        kinds = ("HTTPRouteGroup", "TCPRoute", "UDPRoute")
        spec = st.fixed_dictionaries({"destination": subject(port=False), "sources": sources, "rules": rules(*kinds)})
        return st.fixed_dictionaries({"spec": spec})
    spec = st.fixed_dictionaries(
        {"destination": subject(port=True)},
        optional={"sources": sources, which: rules("HTTPRouteGroup", "TCPRoute")},
    )
    return spec if version == "v1alpha1" else st.fixed_dictionaries({"spec": spec})


def matches(version: str) -> st.SearchStrategy[list[Raw]]:
    methods = st.just(["*"]) | st.lists(st.sampled_from(METHODS), min_size=1, max_size=3, unique=True)
    fields: dict[str, Any] = {"pathRegex": regexes, "methods": methods}
    if version == "v1alpha1":
        match = st.fixed_dictionaries({"name": names, **fields})
    else:
        header = st.sampled_from(["x-one", "X-Two", "user-agent"])
        as_map = st.dictionaries(header, regexes, max_size=2)
        as_list = as_map.map(lambda found: [{name: value} for name, value in found.items()])
        fields["headers"] = as_map | as_list
        match = st.fixed_dictionaries({"name": names}, optional=fields)
    return st.lists(match, min_size=1, max_size=3, unique_by=lambda each: each["name"])


def group(version: str) -> st.SearchStrategy[Raw]:
    found = st.fixed_dictionaries({"matches": matches(version)})
    return found | st.fixed_dictionaries({"spec": found})  # both places are written, in every version


def tcp(version: str) -> st.SearchStrategy[Raw]:
    if version != "v1alpha4":
        return st.sampled_from([{}, {"spec": {}}])
    found = st.fixed_dictionaries({"ports": st.lists(ports, max_size=3)}, optional={"name": names})
    return st.fixed_dictionaries({"spec": st.fixed_dictionaries({"matches": found})})


whole = st.integers(0, 1_000_000)
quantities = (
    st.integers(0, 1000)
    | st.integers(0, 1000).map(str)
    | st.integers(0, 5000).map(lambda number: f"{number}m")
    | st.sampled_from(["1.5", "0.25", "1k", "1Ki", "1e2", "2E1", "+3", ".5", "0"])
)


def holds(given: list[Any]) -> bool:
    """Whether there are weights in this ratio, and one above 0."""
    try:
        return any(quantity.weights(given))
    except errors.ConfigError:
        return False


def split(version: str) -> st.SearchStrategy[Raw]:
    weight = quantities if version == "v1alpha1" else whole

    def spec(found: list[tuple[str, Any]]) -> st.SearchStrategy[Raw]:
        backends = [{"service": f"b{name[:9]}", "weight": weight} for name, weight in found]
        groups = st.lists(st.fixed_dictionaries({"kind": st.just("HTTPRouteGroup"), "name": names}), max_size=2)
        more = {"matches": groups} if version in ("v1alpha3", "v1alpha4") else {}
        return st.fixed_dictionaries({"service": st.just("root"), "backends": st.just(backends)}, optional=more)

    found = st.lists(st.tuples(names, weight), min_size=1, max_size=4, unique_by=lambda each: each[0])
    some = found.filter(lambda each: holds([weight for _, weight in each]))
    return st.fixed_dictionaries({"spec": some.flatmap(spec)})


def binding(_: str) -> st.SearchStrategy[Raw]:
    identities = st.just(["cluster.local/ns/default/sa/service-a"])
    schemes = st.fixed_dictionaries({"serviceAccount": names}, optional={"spiffeIdentities": identities})
    return st.fixed_dictionaries({"spec": st.fixed_dictionaries({"schemes": schemes})})


CONTENT = {
    "TrafficTarget": target,
    "IdentityBinding": binding,
    "HTTPRouteGroup": group,
    "TCPRoute": tcp,
    "UDPRoute": lambda _: tcp("v1alpha4"),
    "TrafficSplit": split,
}
CASES = [
    (group, kind, version)
    for (group, kind), older in conversion.VERSIONS.items()
    for version in (*older, conversion.HUB)
]


def objects(group: str, kind: str, version: str) -> st.SearchStrategy[Raw]:
    """Return objects of a kind and version."""
    metadata = st.fixed_dictionaries(
        {"name": names, "namespace": st.just("shop")},
        optional={"labels": st.just({"a": "b"}), "annotations": st.just({"team": "shop"})},
    )
    return st.builds(
        lambda content, metadata: {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": metadata, **content},
        CONTENT[kind](version),
        metadata,
    )
