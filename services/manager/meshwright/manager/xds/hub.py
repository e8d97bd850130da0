"""All connected proxies of the mesh, and the newest snapshot for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from meshwright.core import errors
from meshwright.manager import metrics
from meshwright.manager.xds import node as nodes
from meshwright.manager.xds import streams
from meshwright.manager.xds.convergence import Convergence
from meshwright.manager.xds.proxyless import ProxylessView
from meshwright.manager.xds.snapshot import Snapshot, View

PROVIDER = "CERTIFICATE_PROVIDER"
"""Of the node's metadata: the instance in a gRPC client's bootstrap that has its certificate and its authorities."""

Connection = streams.Connection["Proxy"]


class Proxy:
    """A proxy, or another client of the mesh, that was let in."""

    def __init__(self, hub: Hub, introduced: Any, caller: str | None, trust_domain: str) -> None:
        self.node_id, self.spiffe_id = str(introduced.id), caller or ""
        self.node = nodes.parse(self.node_id)
        metadata = introduced.metadata.fields
        self._provider = metadata[PROVIDER].string_value if PROVIDER in metadata else ""
        self._hub, self._caller, self._trust_domain = hub, caller, trust_domain
        self._account: str | None = None  # which the caller was found to be
        self._served = False
        self._seen: Snapshot | None = None
        self._view: View | ProxylessView | None = None
        nodes.authorize(self.node, caller, trust_domain, None)

    def view(self) -> View | ProxylessView | None:
        """Return what the newest snapshot has for it.

        Asked at every snapshot: an account that was changed or taken away ends the stream of the old identity.
        """
        snapshot, node = self._hub.latest, self.node
        if snapshot is None:
            return None
        if snapshot is self._seen:
            return self._view
        account = snapshot.service_account(node.namespace, node.workload)
        if account is None or account != self._account:
            nodes.authorize(node, self._caller, self._trust_domain, account)
            self._account = account
        view: View | ProxylessView | None
        if node.proxyless:
            everything = snapshot.everything(node.namespace, node.workload)
            view = ProxylessView(everything, self._provider) if everything else None
        else:
            view = snapshot.view(node.namespace, node.workload)
        if view is None and self._served:
            raise errors.NotFound(f"workload {node.workload} of namespace {node.namespace} was deleted")
        self._served = self._served or view is not None
        self._seen, self._view = snapshot, view
        return view  # None: a proxy that starts before its WorkloadEntry is applied waits for it


class Hub(streams.Streams[Proxy]):
    """Where snapshots meet proxies."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: Snapshot | None = None
        self.convergence = Convergence()

    def publish(self, snapshot: Snapshot) -> None:
        """Make a snapshot the newest, and have every proxy take it."""
        self.latest = snapshot
        metrics.REVISION.set(snapshot.revision)
        self.convergence.published(snapshot.revision, len(self._connections))
        self.wake()

    @contextmanager
    def joined(self, connection: streams.Connection[Proxy]) -> Iterator[None]:
        """Count a proxy as connected for the length of the context."""
        with super().joined(connection):
            if self.latest is not None:  # what is on its way already was to reach others
                connection.subscription.begin(self.latest.revision)
            metrics.PROXIES.set(len(self._connections))
            try:
                yield
            finally:
                metrics.PROXIES.set(len(self._connections) - 1)


class MeshSource:
    """Who may have what of a mesh: what the server asks, with the hub behind it."""

    def __init__(self, hub: Hub, trust_domain: str) -> None:
        self.streams, self._trust_domain = hub, trust_domain

    def admit(self, node: Any, caller: str | None) -> Proxy:
        """Let a client in that introduces itself as `node` (envoy.config.core.v3.Node).

        Raises ConfigError for a node id of another shape, Forbidden when the caller can't be that node.
        """
        return Proxy(self.streams, node, caller, self._trust_domain)

    def settled(self, connection: Connection) -> None:
        """Tell how far a client has come."""
        for type_url, before, revision, acknowledged in connection.subscription.settled():
            self.streams.convergence.settled(type_url, before, revision, acknowledged)
