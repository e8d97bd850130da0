"""What the protocol needs to know of resources, whoever makes them: a mesh's snapshots, or a cache that others fill.

One decision to know: a view never changes. What a client must be sent is the difference between two, and marks say
cheaply whether there is any.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Protocol

from meshwright.manager.xds import wire


class View(Protocol):
    """What one client is to have, of all types, at one moment."""

    @property
    def revision(self) -> int:
        """The number of the configuration; clients that acknowledged all of it count as having it."""

    def version(self, type_url: str) -> str:
        """Return what clients are told as the version of a type as a whole."""

    def serves(self, type_url: str) -> bool:
        """Whether resources of a type can come from here; requests for others are answered with silence."""

    def mark(self, type_url: str) -> object:
        """Return something that is equal in two views only if the client's resources of the type are."""

    def find(self, type_url: str, name: str) -> wire.Resource | None:
        """Return a resource by name."""

    def all(self, type_url: str) -> Mapping[str, wire.Resource]:
        """Return what a client gets that subscribes to everything (`*`)."""

    def leads(self, type_url: str) -> Set[str]:
        """Return all names that the resources of `all` lead to."""

    def changed_since(self, type_url: str, mark: object) -> Set[str] | None:
        """Return the names of what came, went or changed since a view with this mark; None: compare everything."""


class Client(Protocol):
    """One client that was let in."""

    @property
    def node_id(self) -> str:
        """What it calls itself."""

    @property
    def spiffe_id(self) -> str:
        """Who it is by its certificate; empty without one."""

    def view(self) -> View | None:
        """Return what it is to have now, None while that isn't known.

        Raises Forbidden or NotFound when it may have nothing any more, which ends its streams.
        """
