"""What a resource leads to: the names that a client asks for, on the same stream, once it got it.

One decision to know: it is read from the message when that is serialised, and so is known of a mesh's resources and of
those that others put into a cache alike.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.config.core.v3.config_source_pb2 import ConfigSource
from meshwright.api.envoy.config.listener.v3.listener_pb2 import Listener
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

_MANAGER = f"/{HttpConnectionManager.DESCRIPTOR.full_name}"
_NONE: frozenset[str] = frozenset()


def of(message: Message) -> frozenset[str]:
    """Return the endpoints' name of a cluster, or the route configurations' of a listener; of other types nothing."""
    if isinstance(message, Cluster):
        if message.type != Cluster.EDS or not _same_stream(message.eds_cluster_config.eds_config):
            return _NONE
        return frozenset([message.eds_cluster_config.service_name or message.name])
    if isinstance(message, Listener):
        return frozenset(_routes(message))
    return _NONE


def _routes(listener: Listener) -> Iterator[str]:
    yield from _route(listener.api_listener.api_listener)
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        for one in chain.filters:
            yield from _route(one.typed_config)


def _route(configuration: Any) -> Iterator[str]:
    if not configuration.type_url.endswith(_MANAGER):
        return
    manager = HttpConnectionManager()
    try:
        manager.MergeFromString(configuration.value)
    except DecodeError:
        return  # whoever gets it refuses it
    if manager.HasField("rds") and _same_stream(manager.rds.config_source):
        yield manager.rds.route_config_name


def _same_stream(source: ConfigSource) -> bool:
    return source.WhichOneof("config_source_specifier") in ("ads", "self")
