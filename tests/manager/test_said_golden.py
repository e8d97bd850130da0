"""Translators of routes and policies: what is said in the inner model's words gives exactly the resources of a file.

Each file shows what a proxy has that it doesn't have while nothing is said. `--update-golden` writes the files anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from meshes import SHOP, message
from speaking import CATALOG, ORIGIN, V1, V2, Speaker, connections, http, policy, speaking, to
from test_acceptance import MESH

from meshwright.manager.model.routing import (
    Backend,
    CallerMatch,
    ConnectionMatch,
    ConnectionRoute,
    Cors,
    Destination,
    DirectResponse,
    Fault,
    HeaderChanges,
    HttpMatch,
    HttpRoute,
    Mirror,
    Redirect,
    Retries,
    Rewrite,
    Routes,
    Text,
    TextMatch,
)
from meshwright.manager.model.traffic import (
    Balancing,
    Ejection,
    Hash,
    Limits,
    Settings,
    Subset,
    Tls,
    TlsMode,
    TrafficPolicy,
)
from meshwright.manager.xds import types

FOLDER = Path(__file__).parent / "golden" / "said"
FEED = "feed.default.svc.cluster.local"
GONE = "gone.default.svc.cluster.local"


def route(**more: Any) -> HttpRoute:
    return HttpRoute(ORIGIN, **{"backends": (to(),), **more})


def when(**conditions: Any) -> HttpRoute:
    return route(matches=(HttpMatch(**conditions),))


def text(value: str, kind: Text = Text.EXACT, **more: Any) -> TextMatch:
    return TextMatch(kind, value, **more)


CASES: dict[str, tuple[Routes | TrafficPolicy, ...]] = {
    "route-paths": (
        http(
            when(path=text("/a", ignore_case=True)),
            when(path=text("/b", Text.PREFIX)),
            when(path=text("/c/", Text.SEGMENTS)),
            when(path=text(".d", Text.SUFFIX)),
            when(path=text("/e[0-9]|/f", Text.REGEX)),
            when(path=text("/g", Text.SEGMENTS, negated=True)),
        ),
    ),
    "route-conditions": (
        http(
            when(methods=("PUT", "POST"), authority=text("cat", Text.PREFIX), scheme=text("http")),
            when(headers=(("x-a", text("1", negated=True)), ("x-b", TextMatch(Text.PRESENT)))),
            when(query=(("q", text("1")), ("r", text("2", negated=True)), ("s", TextMatch(Text.PRESENT)))),
            when(callers=CallerMatch(labels=(("app", "shop"),)), gateways=("mesh",), port=80),
            when(callers=CallerMatch(labels=(("app", "till"),))),
            when(gateways=("default/edge",)),
        ),
    ),
    "route-shares": (
        http(
            route(
                backends=(
                    to(subset="v1", weight=3),
                    to(weight=0),
                    Backend(
                        Destination(CATALOG, labels=V2.labels), 1, HeaderChanges(set=(("host", "v2"), ("x-a", "1%")))
                    ),
                    to(GONE),
                    Backend(Destination(CATALOG), fault="refused"),
                ),
                matches=(HttpMatch(path=text("/a")),),
            ),
            route(backends=(Backend(Destination(GONE), missing=True),), matches=(HttpMatch(path=text("/b")),)),
            route(backends=()),
        ),
        policy(),
    ),
    "route-answers": (
        http(
            route(
                backends=(),
                redirect=Redirect(307, "https", "b.example", 8443, prefix="/"),
                matches=(HttpMatch(path=text("/a", Text.SEGMENTS)),),
            ),
            route(
                backends=(),
                redirect=Redirect(path="/z"),
                matches=(HttpMatch(path=text("/b")),),
                response_headers=HeaderChanges(remove=("server",)),
            ),
            route(backends=(), response=DirectResponse(418, "teapot", "text/plain")),
        ),
    ),
    "route-changes": (
        http(
            route(rewrite=Rewrite(prefix="/"), matches=(HttpMatch(path=text("/a", Text.SEGMENTS)),)),
            route(rewrite=Rewrite(prefix="/x"), matches=(HttpMatch(path=text("/b", Text.PREFIX)),)),
            route(rewrite=Rewrite(path="/all", authority="c.example"), matches=(HttpMatch(path=text("/c")),)),
            route(
                rewrite=Rewrite(regex=("a+", "b")),
                request_headers=HeaderChanges((("x-a", "1"),), (("x-b", "2"),), ("x-c",)),
                response_headers=HeaderChanges(remove=("x-d",)),
                websocket=False,
            ),
        ),
    ),
    "route-time": (
        http(
            route(timeout_seconds=1.5, attempt_seconds=0.5, matches=(HttpMatch(path=text("/a")),)),
            route(
                timeout_seconds=0,
                timeout_header="x-time",
                retries_header="x-tries",
                retries=Retries(2, 0.1, ("5xx", "429"), 0.025, remote_localities=True, another_host=False),
                matches=(HttpMatch(path=text("/b")),),
            ),
            route(retries=Retries(9), matches=(HttpMatch(path=text("/c")),)),
            route(retries=Retries(0)),
        ),
    ),
    "route-faults": (
        http(
            route(fault=Fault(12.5, 2, 0.01, 503), matches=(HttpMatch(path=text("/a")),)),
            route(fault=Fault(abort_percent=100, grpc_status=14), matches=(HttpMatch(path=text("/b")),)),
            route(fault=Fault(delay_header="x-wait", abort_header="x-break")),
        ),
    ),
    "route-cors": (
        http(
            route(
                cors=Cors((text("https://a.example"), text("*")), ("PUT",), ("x-a",), ("x-b",), 60, True, False),
                matches=(HttpMatch(methods=("PUT",)),),
            ),
        ),
    ),
    "route-mirrors": (
        http(
            route(
                mirrors=(
                    Mirror(Destination(CATALOG, subset="v2"), 0.5),
                    Mirror(Destination(GONE)),
                    Mirror(Destination(CATALOG), 0),
                )
            )
        ),
    ),
    "cluster-subsets": (
        policy(
            Settings(Balancing.ROUND_ROBIN, warmup_seconds=30),
            Subset("v1", V1.labels, Settings(Balancing.RANDOM)),
            Subset("v2", V2.labels, ports=((80, Settings(limits=Limits(requests=7))),)),
            ports=((80, Settings(ejection=Ejection(5, 3, 2, False, 10, 600, 100, 20))),),
        ),
    ),
    "cluster-limits": (
        policy(
            Settings(
                limits=Limits(1, 2, 3, 4, 5, 6, 0.5, 60, 90, 3600, (3, 30, 10), True),
            ),
            Subset("v1", V1.labels, Settings(limits=Limits(retry_budget=(20.0, 3)))),
        ),
    ),
    "cluster-hash": (
        http(route(backends=(to(subset="v1"), to(subset="v2"), to()))),
        policy(
            Settings(hash=Hash(header="x-user")),
            Subset("v1", V1.labels, Settings(hash=Hash(cookie="c", cookie_path="/", cookie_seconds=60, table=100))),
            Subset("v2", V2.labels, Settings(hash=Hash(source_address=True, ring=64))),
        ),
    ),
    "cluster-tls": (
        policy(
            Settings(tls=Tls(TlsMode.SIMPLE, authorities="/ca.pem", names=("a.example",), server_name="a.example")),
            Subset("v1", V1.labels, Settings(tls=Tls(TlsMode.DISABLED))),
            Subset("v2", V2.labels, Settings(tls=Tls(TlsMode.MUTUAL, "/c.pem", "/k.pem", unverified=True))),
        ),
    ),
    "listener-connections": (
        connections(
            ConnectionRoute(
                ORIGIN,
                matches=(
                    ConnectionMatch(("a.example", "*.b.example")),
                    ConnectionMatch(source_subnets=("10.1.0.0/16",)),
                ),
                backends=(to(FEED, 2), to(GONE), to(FEED, 0)),
            ),
            ConnectionRoute(ORIGIN, matches=(ConnectionMatch(("a.example",)),), backends=(to(GONE),)),
            ConnectionRoute(ORIGIN),
            ConnectionRoute(ORIGIN, matches=(ConnectionMatch(destination_subnets=("10.2.0.0/16",)),)),
            host=FEED,
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_translation(case: str, pytestconfig: pytest.Config) -> None:
    """What is said always gives the same resources."""
    shown = yaml.safe_dump(_resources(case), sort_keys=False, width=120)
    expected = FOLDER / f"{case}.out.yaml"
    if pytestconfig.getoption("--update-golden"):
        expected.parent.mkdir(exist_ok=True)
        expected.write_text(shown)
    assert shown == expected.read_text()


def test_no_file_is_left_over() -> None:
    assert {path.name.removesuffix(".out.yaml") for path in FOLDER.iterdir()} == CASES.keys()


def _resources(case: str) -> dict[str, Any]:
    redirecting = case.startswith("listener")
    with speaking(MESH if redirecting else SHOP) as speaker:
        workload = "pod-0" if redirecting else "shop-0"
        speaker.say()
        before = _all(speaker, workload)
        speaker.say(*CASES[case])
        found = _all(speaker, workload)
    return {
        kind: shown
        for kind, by_name in found.items()
        if (shown := {name: each for name, each in by_name.items() if before[kind].get(name) != each})
    }


def _all(speaker: Speaker, workload: str) -> dict[str, dict[str, Any]]:
    view = speaker.snapshot.view("default", workload)
    assert view is not None
    found = {
        types.short(kind): {name: message(each) for name, each in sorted(view.all(kind).items())}
        for kind in types.ORDER
    }
    for each in found["Cluster"].values():
        if shown_tls := each.get("transport_socket", {}).get("typed_config", {}).get("common_tls_context"):
            for own in ("tls_certificate_sds_secret_configs", "combined_validation_context", "tls_params"):
                shown_tls.pop(own, None)  # the mesh's own, which other files show
    for each in found["RouteConfiguration"].values():
        each["virtual_hosts"] = [host for host in each["virtual_hosts"] if host["name"].startswith(f"{CATALOG}:")]
    return found
