"""What one proxy has, and what it must be sent next: the state-of-the-world protocol of xDS as a pure state machine.

One decision to know: make before break. Routes and listeners wait until the proxy has acknowledged the clusters and
endpoints that they lead to, and clusters are taken away only after no acknowledged route leads to them. Of each type
one response is under way at a time; what changes meanwhile is sent in one, after its acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from meshwright.manager.xds import convergence, types, wire
from meshwright.manager.xds.proxy import ProxyResources
from meshwright.manager.xds.snapshot import ClusterSet, View


@dataclass(frozen=True, slots=True)
class Request:
    """A DiscoveryRequest without what doesn't matter here; `error` is the reason of a refusal (NACK)."""

    type_url: str
    names: frozenset[str] = frozenset()
    version: str = ""
    nonce: str = ""
    error: str = ""


@dataclass(slots=True)
class TypeState:
    """One type: what the proxy asked for, what it was sent, and what it said about it."""

    asked: bool = False
    names: frozenset[str] = frozenset()
    sent: dict[str, wire.Resource] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)  # to be sent although the proxy has it
    last: frozenset[str] = frozenset()  # what the last response held
    refused: set[str] = field(
        default_factory=set
    )  # judged again with the next response, so that no refusal is forgotten
    nonce: str = ""  # of the response under way; empty: none is
    last_nonce: str = ""
    sent_version: str = ""
    acknowledged_version: str = ""
    error: str = ""

    @property
    def quiet(self) -> bool:
        """Whether everything sent was accepted."""
        return not self.nonce and not self.error and not self.again


class Subscription:
    """One stream's state. Call `request` and `offer` as things happen, and send what `pending` yields."""

    def __init__(self) -> None:
        self.types = {type_url: TypeState() for type_url in types.ORDER}
        self.acknowledged_revision = 0
        self._view: View | None = None
        self._shared: ClusterSet | None = None  # the outbound clusters that were last sent
        self._own: ProxyResources | None = None  # whose clusters were last sent beside them
        self._compared = 0  # the snapshot up to which the endpoints that were sent are known to be current
        self._unasked = True  # endpoints or routes that were announced may not be subscribed yet
        self._nonces = 0
        self._settled = dict.fromkeys(convergence.MEASURED, 0)  # the revision of which the proxy has all of a type
        self._told = dict(self._settled)

    def begin(self, revision: int) -> None:
        """Count only revisions after this one as having reached the proxy."""
        self._settled = dict.fromkeys(self._settled, revision)
        self._told = dict(self._settled)

    def settled(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield what has settled since the last time: type, revision before and now, revision of what was last sent."""
        for type_url, revision in self._settled.items():
            before, self._told[type_url] = self._told[type_url], revision
            if before < revision:
                yield type_url, before, revision, int(self.types[type_url].acknowledged_version or 0)

    def offer(self, view: View) -> None:
        """Take what the proxy is to have from now on."""
        self._view = view

    def request(self, request: Request) -> None:
        """Take a request: a first one, a change of names, an acknowledgement or a refusal."""
        state = self.types.get(request.type_url)
        if state is None:
            return  # a type that isn't served is answered with silence, which proxies bear
        if request.nonce and request.nonce != state.last_nonce:
            return  # about a response that a newer one has overtaken
        if request.nonce and request.nonce == state.nonce:
            self._answer(state, request)
        added = request.names - state.names
        if not state.asked or added:
            state.again |= added if state.asked else request.names
            self._unasked = True
        if request.type_url not in types.WILDCARD:
            for gone in state.names - request.names:
                state.sent.pop(gone, None)
                state.again.discard(gone)
                state.refused.discard(gone)
        state.asked, state.names = True, request.names

    def pending(self) -> Iterator[bytes]:
        """Yield the responses that are due, in order."""
        if self._view is None:
            return
        view = self._view
        yield from self._send_clusters(view, keep_old=True)
        self._settle(types.CLUSTER, view)
        yield from self._send_endpoints(view)
        if self._ready(view):
            yield from self._send_listeners(view)
            self._settle(types.LISTENER, view)
            yield from self._send_routes(view)
            if self._routed(view):
                yield from self._send_clusters(view, keep_old=False)
                if self._complete(view):
                    self.acknowledged_revision = view.revision

    def _settle(self, type_url: str, view: View) -> None:
        """Note that nothing of a type is due or under way, right after looking whether something is."""
        state = self.types[type_url]
        if state.asked and state.quiet:
            self._settled[type_url] = view.revision

    def _answer(self, state: TypeState, request: Request) -> None:
        state.nonce = ""
        state.error = request.error
        if request.error:
            state.refused |= state.last
        else:
            state.acknowledged_version = state.sent_version

    def _send_clusters(self, view: View, *, keep_old: bool) -> Iterator[bytes]:
        state = self.types[types.CLUSTER]
        if not state.asked or state.nonce or (self._shared is view.shared and self._own is view.own):
            return
        wanted = {**view.shared.by_name, **view.own_clusters}
        changed = [name for name, resource in wanted.items() if state.sent.get(name) != resource]
        old = {name: resource for name, resource in state.sent.items() if name not in wanted}
        if not changed and state.sent_version and (keep_old or not old):
            if not old:
                self._shared, self._own = view.shared, view.own
            return
        kept = old if keep_old else {}
        own = [resource.body for resource in view.own_clusters.values()]
        yield self._respond(types.CLUSTER, [*own, view.shared.body, *(resource.body for resource in kept.values())])
        state.sent = {**wanted, **kept}
        # A proxy takes a changed cluster into use only once it got the cluster's endpoints again.
        endpoints = self.types[types.ENDPOINT]
        endpoints.again |= endpoints.names.intersection(changed).intersection(view.shared.by_name)
        self._shared, self._own = (None, None) if kept else (view.shared, view.own)
        self._unasked = True

    def _send_endpoints(self, view: View) -> Iterator[bytes]:
        state = self.types[types.ENDPOINT]
        if not state.asked or state.nonce:
            return
        changed = view.endpoints_changed_since(self._compared)
        candidates = state.names if changed is None else state.names & (changed | state.again)
        self._compared = view.serial
        yield from self._send_named(types.ENDPOINT, candidates, view.endpoint)

    def _send_listeners(self, view: View) -> Iterator[bytes]:
        state = self.types[types.LISTENER]
        if not state.asked or state.nonce or (state.sent_version and state.sent == view.listeners):
            return
        yield self._respond(types.LISTENER, (resource.body for resource in view.listeners.values()))
        changed = {name for name, resource in view.listeners.items() if state.sent.get(name) != resource}
        if changed:  # as with clusters: a changed listener waits for its routes
            routes = self.types[types.ROUTE]
            routes.again |= routes.names & view.route_names
        state.sent = dict(view.listeners)
        self._unasked = True

    def _send_routes(self, view: View) -> Iterator[bytes]:
        state = self.types[types.ROUTE]
        if not state.asked or state.nonce:
            return
        yield from self._send_named(types.ROUTE, state.names, view.route)

    def _send_named(
        self, type_url: str, candidates: Iterable[str], find: Callable[[str], wire.Resource | None]
    ) -> Iterator[bytes]:
        state = self.types[type_url]
        due: dict[str, wire.Resource] = {}
        for name in sorted(candidates):
            resource = find(name)
            if resource is not None and (name in state.again or state.sent.get(name) != resource):
                due[name] = resource
        state.again.clear()
        if not due:
            return
        for name in sorted(state.refused - due.keys()):
            resource = find(name)
            if resource is not None:
                due[name] = resource
        state.refused.clear()
        state.last = frozenset(due)
        state.sent |= due
        yield self._respond(type_url, (resource.body for resource in due.values()))

    def _respond(self, type_url: str, bodies: Iterable[bytes]) -> bytes:
        assert self._view is not None
        state = self.types[type_url]
        self._nonces += 1
        state.nonce = state.last_nonce = str(self._nonces)
        state.sent_version, state.error = str(self._view.revision), ""
        return wire.response(type_url, state.sent_version, state.nonce, bodies)

    def _ready(self, view: View) -> bool:
        """Whether clusters and endpoints are in place. Before anything is routed nothing can break: nobody waits."""
        clusters, endpoints = self.types[types.CLUSTER], self.types[types.ENDPOINT]
        if not self.types[types.ROUTE].sent or not clusters.asked:
            return True
        return clusters.quiet and endpoints.quiet and self._all_asked(view)

    def _routed(self, view: View) -> bool:
        listeners, routes = self.types[types.LISTENER], self.types[types.ROUTE]
        if not listeners.asked:
            return False
        return listeners.quiet and routes.quiet and view.route_names <= routes.names

    def _complete(self, view: View) -> bool:
        return all(state.quiet for state in self.types.values()) and self._all_asked(view)

    def _all_asked(self, view: View) -> bool:
        """Whether the proxy subscribed to the endpoints of all its clusters; it does so after taking the clusters."""
        if self._unasked:
            self._unasked = not view.shared.by_name.keys() <= self.types[types.ENDPOINT].names
        return not self._unasked
