"""Client status discovery: what clients have, by their own words (envoy.service.status.v3)."""

from __future__ import annotations

from typing import Any

import pytest
from xds_clients import DeltaClient, cluster, endpoints

from meshwright.api.envoy.admin.v3.config_dump_shared_pb2 import ClientResourceStatus
from meshwright.api.envoy.config.core.v3.base_pb2 import Node
from meshwright.api.envoy.service.status.v3.csds_pb2 import SYNCED, ClientStatusRequest, ClientStatusResponse
from meshwright.core import errors
from meshwright.manager.xds import types
from meshwright.manager.xds.cache import Cache
from meshwright.manager.xds.csds import ClientStatus
from meshwright.manager.xds.streams import Connection


class Rig:
    """A cache with clients that have no transport."""

    def __init__(self, *ids: str) -> None:
        self.cache = Cache()
        self.cache.update("g", [cluster("a"), endpoints("a"), endpoints("b")])
        self.clients: dict[str, DeltaClient] = {}
        self.joined = []
        for one in ids:
            node = Node(id=one, cluster="g")
            client = self.clients[one] = DeltaClient()
            connection = Connection(self.cache.admit(node, None), client.subscription, node)
            context = self.cache.streams.joined(connection)
            context.__enter__()
            self.joined.append(context)

    def ask(self, **options: Any) -> ClientStatusResponse:
        found: ClientStatusResponse = ClientStatus(self.cache.streams).status(ClientStatusRequest(**options))
        return found

    def told(self, **options: Any) -> dict[tuple[str, str], str]:
        [config] = self.ask(**options).config
        return {
            (types.short(one.type_url), one.name): ClientResourceStatus.Name(one.client_status)
            for one in config.generic_xds_configs
        }


def test_each_resource_has_the_clients_word() -> None:
    """Acknowledged, refused, on its way, and told that it isn't there."""
    rig = Rig("one")
    client = rig.clients["one"]
    client.ask(types.CLUSTER)
    client.settle(rig.cache.contents("g"))
    client.refuse = {types.ENDPOINT}
    client.ask(types.ENDPOINT, "a")
    client.settle()
    client.refuse = set()
    client.ask(types.ROUTE, "nowhere")
    client.settle()
    client.ask(types.ENDPOINT, "b")
    list(client.subscription.pending())
    assert rig.told() == {
        ("Cluster", "a"): "ACKED",
        ("ClusterLoadAssignment", "a"): "NACKED",
        ("ClusterLoadAssignment", "b"): "REQUESTED",
        ("RouteConfiguration", "nowhere"): "DOES_NOT_EXIST",
    }
    [config] = rig.ask().config
    refused = next(one for one in config.generic_xds_configs if one.client_status == ClientResourceStatus.NACKED)
    assert refused.error_state.details == "a refused by the test"
    first = config.generic_xds_configs[0]
    assert (first.config_status, first.version_info) == (SYNCED, client.known[types.CLUSTER]["a"])
    assert first.xds_config.type_url == types.CLUSTER
    assert config.node.id == "one"


def test_contents_can_be_left_out() -> None:
    rig = Rig("one")
    rig.clients["one"].ask(types.CLUSTER)
    rig.clients["one"].settle(rig.cache.contents("g"))
    [config] = rig.ask(exclude_resource_contents=True).config
    assert not config.generic_xds_configs[0].HasField("xds_config")


def test_nodes_are_chosen_by_id() -> None:
    rig = Rig("shop-0", "shop-1", "catalog-0")

    def chosen(**pattern: Any) -> list[str]:
        return [one.node.id for one in rig.ask(node_matchers=[{"node_id": pattern}]).config]

    assert chosen(exact="shop-1") == ["shop-1"]
    assert chosen(prefix="SHOP", ignore_case=True) == ["shop-0", "shop-1"]
    assert chosen(suffix="-0") == ["shop-0", "catalog-0"]
    assert chosen(contains="tal") == ["catalog-0"]
    with pytest.raises(errors.ConfigError, match="isn't understood"):
        chosen(safe_regex={"regex": ".*"})


def test_contents_of_many_are_refused() -> None:
    rig = Rig(*(f"n{number}" for number in range(17)))
    with pytest.raises(errors.ConfigError, match="exclude_resource_contents"):
        rig.ask()
    assert len(rig.ask(exclude_resource_contents=True).config) == 17
