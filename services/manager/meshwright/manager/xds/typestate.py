"""One resource type on one stream: what the client asked for, what it was sent, and what it said about it.

One decision to know: both variants of the protocol, state of the world and increments, are this one state; they differ
in how a request changes what is asked for, and in how much of it a response has. Rules are those of Envoy's document
"xDS REST and gRPC protocol".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from meshwright.manager.xds import types, wire
from meshwright.manager.xds.source import View

_NOTHING: frozenset[str] = frozenset()
_ABSENT = wire.Resource("", b"", "")  # the client was told that there is no such resource
_REMOVED_LAST = (types.CLUSTER, types.ENDPOINT)  # once no acknowledged route leads there any more


@dataclass(frozen=True, slots=True)
class Request:
    """A DiscoveryRequest without what doesn't matter here; `error` is the reason of a refusal (NACK)."""

    type_url: str
    names: frozenset[str] = _NOTHING
    version: str = ""
    nonce: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """A DeltaDiscoveryRequest; `versions` are the resources that the client has from an earlier stream."""

    type_url: str
    subscribe: frozenset[str] = _NOTHING
    unsubscribe: frozenset[str] = _NOTHING
    versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str = ""


@dataclass(slots=True)
class Answer:
    """What a response has: resources to take, and, of increments only, names of what is no more."""

    resources: tuple[wire.Resource, ...]
    removed: tuple[str, ...] = ()
    changed: tuple[wire.Resource, ...] = ()
    """Those of `resources` that the client doesn't have yet."""


@dataclass(slots=True)
class TypeState:
    """The state in three steps: a request changes what is asked for, `due` finds the answer, `settle` judges it."""

    type_url: str
    delta: bool = False
    asked: bool = False
    wildcard: bool = False
    names: frozenset[str] = _NOTHING
    sent: dict[str, wire.Resource] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)  # to be answered although the client may have it
    refused: dict[str, str] = field(default_factory=dict)
    """What the client refused, and its words; judged again with the next response, so that nothing is forgotten."""
    nonce: str = ""  # of the response under way; empty: none is
    last_nonce: str = ""
    sent_version: str = ""
    acknowledged_version: str = ""
    error: str = ""
    returning: bool = False  # the client was served before, by another stream
    _named: bool = False  # once a name was asked for, no name no longer means all
    _last: tuple[wire.Resource, ...] = ()
    _mark: object = None  # of the view that `sent` was compared with
    held: bool = False  # something is no more, and the client hasn't been told yet

    @property
    def quiet(self) -> bool:
        """Whether everything sent was accepted."""
        return not self.nonce and not self.error and not self.again

    def is_under_way(self, name: str) -> bool:
        """Whether a resource was sent and the client hasn't said yet what it thinks of it."""
        return bool(self.nonce) and any(resource.name == name for resource in self._last)

    def request(self, request: Request) -> bool:
        """Take a request of the state of the world; return whether it asks for more than before."""
        named = request.names
        wildcard = types.ANY in named or (
            not named and not self._named and not self.names and self.type_url in types.WILDCARD
        )
        names = named - {types.ANY} if types.ANY in named else named
        self._named = self._named or bool(named)
        if not self.asked:
            self.asked, self.wildcard, self.names = True, wildcard, names
            self.returning = bool(request.version)
            return True
        if names is self.names and wildcard is self.wildcard:
            return False
        added, gone = names - self.names, self.names - names
        more = bool(added) or (wildcard and not self.wildcard)
        self._move(names, wildcard=wildcard)
        self.again |= added
        self._forget(gone)
        return more

    def delta_request(self, request: DeltaRequest) -> bool:
        """Take a request of increments; return whether it asks for more than before."""
        first = not self.asked
        if not first and not request.subscribe and not request.unsubscribe:
            return False  # nothing but an answer
        if first:
            self.asked = self.delta = True
            self.returning = bool(request.versions)
        subscribe = request.subscribe - {types.ANY}
        wildcard = self.wildcard
        if first and not request.subscribe and not request.unsubscribe:
            wildcard = self.type_url in types.WILDCARD
        if types.ANY in request.unsubscribe:
            wildcard = False
        if types.ANY in request.subscribe:
            wildcard = True
        if first:
            self.sent = {
                name: wire.Resource(name, b"", version)
                for name, version in request.versions.items()
                if wildcard or name in subscribe
            }
        gone = (self.names & request.unsubscribe) - subscribe
        more = bool(subscribe) or (wildcard and not self.wildcard)
        if subscribe or gone or wildcard is not self.wildcard:
            self._move((self.names | subscribe) - gone, wildcard=wildcard)
        if not first:
            self.again |= subscribe
        if wildcard:
            self.again |= gone  # the client can't tell whether all has it: it is told
        else:
            self._forget(gone)
        return more

    def _move(self, names: frozenset[str], *, wildcard: bool) -> None:
        if wildcard and not self.wildcard:
            self._mark = None
        if self.wildcard and not wildcard:
            self.sent = {name: resource for name, resource in self.sent.items() if name in names}
            for name in self.refused.keys() - names:
                self._acquit(name)
        self.names, self.wildcard = names, wildcard

    def _forget(self, gone: Iterable[str]) -> None:
        for name in gone:
            self.again.discard(name)
            if not self.wildcard:
                self.sent.pop(name, None)
                self._acquit(name)

    def _acquit(self, name: str) -> None:
        """Forget a refusal of what is no more or isn't wanted any more."""
        if self.refused.pop(name, None) is not None and not self.refused:
            self.error = ""

    def due(self, view: View, *, keep_old: bool = False) -> Answer | None:
        """Return what the client is to be sent now, and count it as sent.

        With `keep_old`, clusters and endpoints that are no more stay until it is asked without.
        """
        mark = view.mark(self.type_url)
        releases = self.held and not keep_old
        if not self.again and not releases and (mark is self._mark or mark == self._mark):
            return None
        changed: dict[str, wire.Resource] = {}
        removed: list[str] = []
        keep_old = keep_old and self.type_url in _REMOVED_LAST
        self.held = self.held and not releases
        if self._mark is None and not self.sent and not self.again:
            self._begin(view, changed, removed)
        else:
            for name in self._candidates(view, mark, everything=releases):
                self._compare(name, view, changed, removed, keep_old=keep_old)
        self._mark = mark
        whole = self._is_whole()
        if not changed and not removed and not self._greets(whole=whole):
            self.again.clear()
            return None
        for name in self.refused.keys() - changed.keys():
            if (resource := view.find(self.type_url, name)) is not None:
                changed[name] = resource
        self.again.clear()
        for name in removed:
            self._acquit(name)
            if self.delta and name in self.names:
                self.sent[name] = _ABSENT
            else:
                self.sent.pop(name, None)
        self._last = tuple(changed.values())
        if whole:
            return self._everything(view)
        self.sent |= changed
        if self.delta:
            return Answer(self._last, tuple(removed), self._last)
        return Answer(self._last, (), self._last) if changed else None

    def _begin(self, view: View, changed: dict[str, wire.Resource], removed: list[str]) -> None:
        """Do for a client that has nothing what `_compare` does for each name."""
        if self.wildcard:
            changed.update(view.all(self.type_url))
        find, type_url = view.find, self.type_url
        for name in sorted(self.names - changed.keys()):
            resource = find(type_url, name)
            if resource is not None:
                changed[name] = resource
            elif self.delta:
                removed.append(name)

    def _candidates(self, view: View, mark: object, *, everything: bool) -> list[str]:
        """Return the names of resources that may have to be sent or taken away, in order."""
        changed: Set[str] | None = None
        if mark == self._mark:
            changed = _NOTHING
        elif self._mark is not None:
            changed = view.changed_since(self.type_url, self._mark)
        if changed is None or everything:
            everything_known = {*self.names, *self.sent, *self.again}
            if self.wildcard:
                everything_known.update(view.all(self.type_url))
            return sorted(everything_known)
        if self.wildcard:
            return sorted(changed | self.again)
        return sorted((self.names & changed) | self.again)

    def _compare(
        self, name: str, view: View, changed: dict[str, wire.Resource], removed: list[str], *, keep_old: bool
    ) -> None:
        asked = self.wildcard or name in self.names
        resource = view.find(self.type_url, name) if asked else None
        before = self.sent.get(name)
        if resource is not None:
            if before is None or before.version != resource.version or name in self.again:
                changed[name] = resource
        elif before is None or before is _ABSENT:
            if self.delta and (name in self.again or (before is None and name in self.names)):
                removed.append(name)
        elif keep_old and name not in self.again:
            self.held = True
        else:
            removed.append(name)

    def _is_whole(self) -> bool:
        """Whether a response has all that the client asks for, and not only what changed."""
        return not self.delta and self.type_url in types.WILDCARD

    def _greets(self, *, whole: bool) -> bool:
        """Whether there is an answer even if there is nothing: the client waits to hear that."""
        if self.sent_version or self.last_nonce:
            return False
        return whole or (self.delta and self.wildcard and not self.returning)

    def _everything(self, view: View) -> Answer:
        wanted = dict(view.all(self.type_url)) if self.wildcard else {}
        for name in sorted(self.names - wanted.keys()):
            if (resource := view.find(self.type_url, name)) is not None:
                wanted[name] = resource
        if self.held:
            wanted |= {name: resource for name, resource in self.sent.items() if name not in wanted}
        self.sent = wanted
        return Answer(tuple(wanted.values()), (), self._last)

    def under_way(self, version: str, nonce: str) -> None:
        """Note that an answer goes out."""
        self.nonce = self.last_nonce = nonce
        self.sent_version, self.error = version, ""

    def settle(self, error: str) -> None:
        """Take what the client says about the response under way: it accepts it, or refuses it in its own words."""
        self.nonce, self.error = "", error
        if error:
            # Who is named was refused for sure; of the others of a refused response it isn't known.
            named = {resource.name for resource in self._last if resource.name in error}
            for resource in self._last:
                self.refused[resource.name] = error if resource.name in named or not named else ""
            return
        self.acknowledged_version = self.sent_version
        if self.refused:
            for resource in self._last:
                self.refused.pop(resource.name, None)
