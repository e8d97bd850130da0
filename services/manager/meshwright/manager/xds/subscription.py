"""What one client has, and what it must be sent next: the xDS protocol of one stream as a pure state machine.

One decision to know: make before break. Routes and listeners wait until the client has acknowledged the clusters and
endpoints that they lead to, and clusters are taken away only after no acknowledged route leads to them. Of each type
one response is under way at a time; what changes meanwhile is sent in one, after its acknowledgement.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshwright.core import errors
from meshwright.manager.xds import convergence, types
from meshwright.manager.xds.responses import Responses
from meshwright.manager.xds.source import View
from meshwright.manager.xds.typestate import DeltaRequest, Request, TypeState

__all__ = ["DeltaRequest", "Request", "Subscription", "TypeState"]

MAX_TYPES = 64
MAX_NAMES = 200_000  # that a client may subscribe to, of all types together

_FIRST = (types.CLUSTER, types.ENDPOINT)
_THEN = (types.LISTENER, types.ROUTE)


class Subscription:
    """One stream's state. Call `request` and `offer` as things happen, and send what `pending` returns."""

    def __init__(self, responses: Responses | None = None) -> None:
        self.types: dict[str, TypeState] = {type_url: TypeState(type_url) for type_url in types.ORDER}
        self._others: list[str] = []  # types that no order is kept for
        self.acknowledged_revision = 0
        self._responses = responses or Responses()
        self._view: View | None = None
        self._examined: View | None = None  # all of which is sent, so that answers leave nothing to look for
        self._skipped = False
        self._current = False
        self._led: dict[str, object] = {}  # marks of the views whose leads the client has asked for
        self._settled = dict.fromkeys(convergence.MEASURED, 0)  # the revision of which the client has all of a type
        self._told = dict(self._settled)

    def begin(self, revision: int) -> None:
        """Count only revisions after this one as having reached the client."""
        self._settled = dict.fromkeys(self._settled, revision)
        self._told = dict(self._settled)

    def settled(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield what has settled since the last time: type, revision before and now, revision of what was last sent."""
        if self._told == self._settled:
            return
        for type_url, revision in self._settled.items():
            before, self._told[type_url] = self._told[type_url], revision
            if before < revision:
                acknowledged = self.types[type_url].acknowledged_version
                yield type_url, before, revision, int(acknowledged) if acknowledged.isdecimal() else 0

    def has(self, view: View) -> bool:
        """Whether the client has accepted all that it asked for of a view, which is the last that it was offered."""
        return self._current and self._view is view

    def offer(self, view: View) -> None:
        """Take what the client is to have from now on."""
        self._view = view

    def request(self, request: Request | DeltaRequest) -> None:
        """Take a request: a first one, a change of names, an acknowledgement or a refusal.

        Raises Exhausted when the client asks for more names or types than one may.
        """
        state = self._state(request.type_url)
        if request.nonce and request.nonce == state.nonce:
            state.settle(request.error)
            if isinstance(request, DeltaRequest) and state.asked and not (request.subscribe or request.unsubscribe):
                return
        self._examined = None
        if isinstance(request, DeltaRequest):
            more = state.delta_request(request)
        elif request.nonce and request.nonce != state.last_nonce:
            return  # about a response that a newer one has overtaken: what it asks for is asked for again
        else:
            more = state.request(request)
        if more and sum(len(one.names) for one in self.types.values()) > MAX_NAMES:
            raise errors.Exhausted(
                f"subscriptions to more than {MAX_NAMES} resources: that many are taken of one stream"
            )

    def pending(self) -> list[bytes]:
        """Return the responses that are due, in order."""
        view = self._view
        due: list[bytes] = []
        if view is None:
            return due
        self._current = False
        if view is self._examined:
            self._settle(types.CLUSTER, view)
            self._settle(types.LISTENER, view)
            self._finish(view)
            return due
        self._skipped = False
        self._send(types.CLUSTER, view, due, keep_old=True)
        self._settle(types.CLUSTER, view)
        self._send(types.ENDPOINT, view, due, keep_old=True)
        for type_url in self._others:
            if view.serves(type_url):
                self._send(type_url, view, due)
        if not self._ready(view):
            return due
        self._send(types.LISTENER, view, due)
        self._settle(types.LISTENER, view)
        self._send(types.ROUTE, view, due)
        if not self._routed(view):
            return due
        for type_url in _FIRST:
            if self.types[type_url].held:
                self._send(type_url, view, due)
        if not self._skipped:
            self._examined = view
        self._finish(view)
        return due

    def _finish(self, view: View) -> None:
        """Note whether the client has all of a view."""
        for state in self.types.values():
            if state.nonce or state.error or state.again:
                return
        self._current = True
        if self.types[types.LISTENER].asked and self._follows(types.CLUSTER, view):
            self.acknowledged_revision = view.revision

    def _state(self, type_url: str) -> TypeState:
        state = self.types.get(type_url)
        if state is None:
            if len(self.types) >= MAX_TYPES:
                raise errors.Exhausted(f"more than {MAX_TYPES} resource types on one stream")
            state = self.types[type_url] = TypeState(type_url)
            self._others.append(type_url)
        return state

    def _send(self, type_url: str, view: View, due: list[bytes], *, keep_old: bool = False) -> None:
        state = self.types[type_url]
        if not state.asked:
            return
        if state.nonce:
            self._skipped = True
            return
        answer = state.due(view, keep_old=keep_old)
        if answer is None:
            return
        version = view.version(type_url)
        nonce, response = self._responses.make(type_url, version, answer, delta=state.delta, after=state.last_nonce)
        state.under_way(version, nonce)
        if type_url == types.CLUSTER:
            # A client takes a changed cluster into use only once it got the cluster's endpoints again.
            endpoints = self.types[types.ENDPOINT]
            for resource in answer.changed:
                endpoints.again |= resource.leads & endpoints.sent.keys()
        due.append(response)

    def _settle(self, type_url: str, view: View) -> None:
        """Note that nothing of a type is due or under way, right after looking whether something is."""
        state = self.types[type_url]
        if state.asked and state.quiet:
            self._settled[type_url] = view.revision

    def _ready(self, view: View) -> bool:
        """Whether clusters and endpoints are in place. Before anything is routed nothing can break: nobody waits."""
        clusters, endpoints = self.types[types.CLUSTER], self.types[types.ENDPOINT]
        listeners, routes = self.types[types.LISTENER], self.types[types.ROUTE]
        if not clusters.asked or not (routes.sent or routes.returning or listeners.returning):
            return True
        return clusters.quiet and endpoints.quiet and self._follows(types.CLUSTER, view)

    def _routed(self, view: View) -> bool:
        """Whether what routes is as it shall be, so that nothing leads to the clusters of before any more."""
        for type_url in _THEN:
            state = self.types[type_url]
            if state.asked and (state.nonce or state.error or state.again):
                return False
        return self._follows(types.LISTENER, view)

    def _follows(self, type_url: str, view: View) -> bool:
        """Whether the client asks for all that its resources lead to; it does so after taking them."""
        state, next_ = self.types[type_url], self.types[types.LEADS_TO[type_url]]
        if not state.wildcard:
            return True  # who asks for single resources knows itself when it has what they lead to
        if next_.wildcard:
            return True
        led = view.mark(type_url), next_.names
        if self._led.get(type_url) != led:
            if not view.leads(type_url) <= next_.names:
                return False
            self._led[type_url] = led
        return True
