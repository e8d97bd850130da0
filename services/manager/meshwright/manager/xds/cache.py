"""Raw resources of any type, set and removed by node group: xDS for a control plane of one's own.

One decision to know: what a group has is a picture that never changes; each update makes the next one, which shares all
that is the same and knows what differs. Put a `Cache` behind `server.XdsServer`; docs/xds.md shows it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from meshwright.core import errors
from meshwright.manager.xds import wire
from meshwright.manager.xds.streams import Connection, Streams

_REMEMBERED = 64  # updates of one type whose names are known; a client further behind compares everything
_MODULUS = 1 << 64
_NAMES = ("name", "cluster_name")  # the fields that name a resource, in Envoy's messages

Group = Callable[[Any, str | None], str]
"""Says to which group a client belongs: from its envoy.config.core.v3.Node and its SPIFFE ID (None in plain text).

It raises `meshwright.core.errors.Forbidden` for who may have nothing.
"""


def by_cluster(node: Any, _caller: str | None) -> str:
    """Group clients by the cluster that they say they belong to."""
    return str(node.cluster)


class Table:
    """All resources of one type that a group has; equal is only the same table."""

    def __init__(
        self,
        resources: Mapping[str, wire.Resource],
        serial: int = 0,
        recent: tuple[tuple[int, frozenset[str]], ...] = (),
        line: object = None,
        total: int = 0,
    ) -> None:
        self.resources, self._serial, self._recent = resources, serial, recent
        self._line = line or object()  # shared by the tables that came one from the other
        self._total = total
        self._leads: frozenset[str] | None = None
        self._since: dict[int, frozenset[str] | None] = {}
        self.version = f"{total:016x}"
        """A sum over the resources' versions: every replica that has the same resources tells the same one."""

    @property
    def leads(self) -> frozenset[str]:
        """The names that the resources lead to."""
        if self._leads is None:
            self._leads = frozenset().union(*(resource.leads for resource in self.resources.values()))
        return self._leads

    def changed(self, wanted: Mapping[str, wire.Resource | None]) -> Table:
        """Return the next table, with some resources put or, where None is wanted, removed."""
        differing = {name for name, made in wanted.items() if self.resources.get(name) != made}
        if not differing:
            return self
        resources, total = dict(self.resources), self._total
        for name in differing:
            before, made = resources.pop(name, None), wanted[name]
            total -= int(before.version, 16) if before else 0
            if made is not None:
                resources[name] = made
                total += int(made.version, 16)
        serial = self._serial + 1
        recent = (*self._recent, (serial, frozenset(differing)))[-_REMEMBERED:]
        leads = self._leads
        next_ = Table(resources, serial, recent, self._line, total % _MODULUS)
        if leads is not None and all(
            _leads(self.resources.get(name)) == _leads(resources.get(name)) for name in differing
        ):
            next_._leads = leads
        return next_

    def since(self, before: Table) -> frozenset[str] | None:
        """Return the names in which this table differs from an earlier one; None when that was too long ago."""
        if before._line is not self._line:
            return None
        serial = before._serial
        if serial not in self._since:
            later = [names for number, names in self._recent if number > serial]
            self._since[serial] = frozenset().union(*later) if len(later) == self._serial - serial else None
        return self._since[serial]


def _leads(resource: wire.Resource | None) -> frozenset[str]:
    return resource.leads if resource else frozenset()


_EMPTY = Table({})


class Contents:
    """What a group has of all types (`source.View`)."""

    def __init__(self, revision: int, tables: Mapping[str, Table]) -> None:
        self.revision, self.tables = revision, tables

    def version(self, type_url: str) -> str:
        """Return the version of a type as a whole."""
        return self._table(type_url).version

    def serves(self, _type_url: str) -> bool:
        """Whether resources of a type can come from here: of any."""
        return True

    def mark(self, type_url: str) -> object:
        """Return the table itself."""
        return self._table(type_url)

    def find(self, type_url: str, name: str) -> wire.Resource | None:
        """Return a resource by name."""
        table = self.tables.get(type_url)
        return table.resources.get(name) if table else None

    def all(self, type_url: str) -> Mapping[str, wire.Resource]:
        """Return all resources of a type."""
        return self._table(type_url).resources

    def leads(self, type_url: str) -> frozenset[str]:
        """Return the names that all resources of a type lead to."""
        return self._table(type_url).leads

    def changed_since(self, type_url: str, mark: object) -> frozenset[str] | None:
        """Return the names of what came, went or changed since a mark."""
        return self._table(type_url).since(mark) if isinstance(mark, Table) else None

    def _table(self, type_url: str) -> Table:
        return self.tables.get(type_url, _EMPTY)


class Member:
    """A client that belongs to a group (`source.Client`)."""

    def __init__(self, cache: Cache, group: str, node_id: str, caller: str | None) -> None:
        self.group, self.node_id, self.spiffe_id = group, node_id, caller or ""
        self._cache = cache

    def view(self) -> Contents | None:
        """Return what its group has; None while nobody has set anything: it waits."""
        return self._cache.contents(self.group)


class Cache:
    """Resources by group, and the clients that follow them (`server.Source`). Belongs to one event loop."""

    def __init__(self, group: Group = by_cluster) -> None:
        self.streams: Streams[Member] = Streams()
        self._group = group
        self._groups: dict[str, Contents] = {}

    def update(
        self,
        group: str,
        put: Iterable[Message | tuple[str, str, bytes]] = (),
        remove: Iterable[tuple[str, str]] = (),
    ) -> int:
        """Set and remove resources of a group in one step; return the group's new revision.

        `put` are messages, or (type URL, name, serialised message) for types that this process doesn't know; `remove`
        are (type URL, name). What is put as it was before changes nothing. Raises ConfigError for a message that has
        neither a name nor a cluster_name.
        """
        changes: dict[str, dict[str, wire.Resource | None]] = {}
        for type_url, name in remove:
            changes.setdefault(type_url, {})[name] = None
        for one in put:
            type_url, made = _resource(one)
            changes.setdefault(type_url, {})[made.name] = made
        return self._apply(group, changes)

    def replace(self, group: str, resources: Iterable[Message | tuple[str, str, bytes]]) -> int:
        """Make these all that a group has, of all types, in one step; return the group's new revision."""
        before = self._groups.get(group)
        changes: dict[str, dict[str, wire.Resource | None]] = {
            type_url: dict.fromkeys(table.resources) for type_url, table in (before.tables if before else {}).items()
        }
        for one in resources:
            type_url, made = _resource(one)
            changes.setdefault(type_url, {})[made.name] = made
        return self._apply(group, changes)

    def forget(self, group: str) -> None:
        """Drop a group. Its clients keep what they have and wait until something is set for them again."""
        self._groups.pop(group, None)

    def contents(self, group: str) -> Contents | None:
        """Return what a group has; None when nothing was ever set for it."""
        return self._groups.get(group)

    def acknowledged(self, group: str) -> bool:
        """Whether every connected client of a group has accepted all that it asked for of the newest."""
        newest = self._groups.get(group)
        members = [one for one in self.streams.connections() if one.client.group == group]
        return newest is not None and all(one.subscription.has(newest) for one in members)

    def admit(self, node: Any, caller: str | None) -> Member:
        """Let a client in as a member of its group."""
        return Member(self, self._group(node, caller), str(node.id), caller)

    def settled(self, connection: Connection[Member]) -> None:
        """Take no notice: nobody measures how fast groups follow."""

    def _apply(self, group: str, changes: Mapping[str, Mapping[str, wire.Resource | None]]) -> int:
        before = self._groups.get(group) or Contents(0, {})
        tables = dict(before.tables)
        for type_url, wanted in changes.items():
            tables[type_url] = (tables.get(type_url) or Table({})).changed(wanted)
        self._groups[group] = Contents(before.revision + 1, tables)
        self.streams.wake(lambda connection: connection.client.group == group)
        return before.revision + 1


def _resource(given: Message | tuple[str, str, bytes]) -> tuple[str, wire.Resource]:
    if isinstance(given, tuple):
        type_url, name, value = given
        return type_url, wire.raw(name, type_url, value)
    type_url = f"type.googleapis.com/{given.DESCRIPTOR.full_name}"
    for field in _NAMES:
        name = getattr(given, field, "")
        if isinstance(name, str) and name:
            return type_url, wire.resource(name, given)
    raise errors.ConfigError(
        f"a {given.DESCRIPTOR.full_name} without a name",
        field="put",
        remedy="set its name, or give (type URL, name, bytes)",
    )
