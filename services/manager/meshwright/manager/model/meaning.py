"""What the objects of a namespace mean: each dialect's part, in the inner model's words.

A dialect is a folder with a schema for each kind and one pure function ``translate(members, context) -> Meaning``;
`DIALECTS` in `model.dialects` lists them. A new dialect is a new folder and a line there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from meshwright.core.config import Key
from meshwright.manager.model.access import Access, Binding, PeerRule, TokenRule
from meshwright.manager.model.external import External
from meshwright.manager.model.gateway import Gateway
from meshwright.manager.model.observing import Observing
from meshwright.manager.model.parse import Parsed
from meshwright.manager.model.routing import Routes
from meshwright.manager.model.traffic import TrafficPolicy


@dataclass(frozen=True, slots=True)
class Notice:
    """What a dialect found while translating: a reference that leads nowhere, a feature that isn't done.

    `reason` is the word of a status condition (``RefNotFound``); the object is in force but for what is named.
    """

    key: Key
    field: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Named:
    """A service that is only a name: it has the ports of those that answer for it, and no workloads of its own."""

    name: str
    backends: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Meaning:
    """One namespace's objects of one dialect."""

    routes: tuple[Routes, ...] = ()
    policies: tuple[TrafficPolicy, ...] = ()
    access: tuple[Access, ...] = ()
    peers: tuple[PeerRule, ...] = ()
    tokens: tuple[TokenRule, ...] = ()
    notices: tuple[Notice, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    externals: tuple[External, ...] = ()
    observed: tuple[Observing, ...] = ()
    bindings: tuple[Binding, ...] = ()
    named: tuple[Named, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a translation may know beside its objects."""

    namespace: str
    root_namespace: str
    trust_domain: str


Translate = Callable[[Iterable[Parsed], Context], Meaning]
