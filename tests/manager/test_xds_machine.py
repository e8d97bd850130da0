"""Any client against any changes: it ends with what it is to have, and no route ever leads to what it hasn't."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from xds_clients import DeltaClient, SotwClient, cluster, endpoints, listener, routes

from meshwright.manager.xds import types
from meshwright.manager.xds.cache import Cache

SERVICES = "abcd"
TYPES = (types.CLUSTER, types.ENDPOINT, types.LISTENER, types.ROUTE)

worlds = st.dictionaries(st.sampled_from(SERVICES), st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=4)


class Machine(RuleBasedStateMachine):
    """One client of either variant; responses reach it one by one, in order, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache()
        self.on_the_way: deque[bytes] = deque()
        self.client: Any = None
        self.checked = True

    @initialize(increments=st.booleans())
    def connect(self, increments: bool) -> None:
        """Begin with nothing."""
        self.cache.update("g")
        self.client = DeltaClient() if increments else SotwClient()
        self.client.follows = True
        self.client.ask(types.CLUSTER)
        self.client.ask(types.LISTENER)

    @rule(world=worlds, chosen=st.sets(st.sampled_from(SERVICES)), version=st.integers(1, 3))
    def change(self, world: dict[str, tuple[int, int]], chosen: set[str], version: int) -> None:
        """Have other clusters, endpoints and routes, all of which fit together."""
        made: list[Any] = [listener("l", "r", version % 2), routes("r", sorted(chosen & world.keys()), version)]
        for name, (of_cluster, of_endpoints) in world.items():
            made += [cluster(name, of_cluster), endpoints(name, of_endpoints)]
        self.cache.replace("g", made)

    @rule(steps=st.integers(1, 4))
    def take(self, steps: int) -> None:
        """Let the client take some of what is on its way."""
        for _ in range(steps):
            self._send()
            if self.on_the_way:
                self.client.take(self.on_the_way.popleft())

    @rule(type_url=st.sampled_from(TYPES))
    def refuse(self, type_url: str) -> None:
        """Refuse what comes of a type, until `accept`."""
        self.client.refuse = {type_url}

    @rule()
    def accept(self) -> None:
        """Refuse nothing any more."""
        self.client.refuse = set()

    @rule()
    def reconnect(self) -> None:
        """Lose the stream with all that is on its way."""
        self.on_the_way.clear()
        if isinstance(self.client, SotwClient):
            # The world says nothing of what a client had: what is gone by now goes at once.
            self.checked = False
        self.client.reconnect()

    @invariant()
    def nothing_leads_nowhere(self) -> None:
        """Make before break."""
        if self.client is not None and self.checked:
            assert self.client.broken == []

    def teardown(self) -> None:
        """Let it come to rest: then it has all that it is to have, and nothing else."""
        if self.client is None:
            return
        self.client.refuse = set()
        # What was refused is judged again with the next response: have one of each type.
        everything = [made for name in SERVICES for made in (cluster(name, 9), endpoints(name, 9))]
        self.cache.replace("g", [*everything, listener("l", "r", 9), routes("r", SERVICES, 9)])
        while self.on_the_way:
            self.client.take(self.on_the_way.popleft())
        self.client.settle(self.cache.contents("g"))
        self.client.settle()
        contents = self.cache.contents("g")
        assert contents is not None
        for type_url in TYPES:
            state = self.client.subscription.types[type_url]
            assert self.client.have[type_url].keys() == contents.all(type_url).keys()
            assert (state.nonce, state.error, state.refused) == ("", "", {})
        assert self.client.have[types.CLUSTER] == {name: cluster(name, 9) for name in SERVICES}
        assert self.client.have[types.ENDPOINT] == {name: endpoints(name, 9) for name in SERVICES}
        assert self.client.subscription.has(contents)
        assert self.client.settle() == []
        self.nothing_leads_nowhere()

    def _send(self) -> None:
        self.client.offer(self.cache.contents("g"))
        self.on_the_way.extend(self.client.subscription.pending())


TestMachine = pytest.mark.timeout(180)(Machine.TestCase)
TestMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
