"""Keeps one kind of object as the cluster has it, told to a sink in the mesh's own values.

One decision to know: of each object only what the mesh needs is kept, already while a list is being read; and one that
can't be read is as if it weren't there, and hurts no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

import structlog

from meshwright.core import clock as clocks
from meshwright.core import kubernetes
from meshwright.core.health import Health
from meshwright.manager import metrics

_log = structlog.get_logger(__name__)
_WATCH_SECONDS = 60  # a connection that silently lost its other end costs this long at most

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Name = tuple[str, str]
"""Namespace and name."""
Raw = dict[str, Any]


class Sink(Protocol[T_contra]):
    """Who is told."""

    def replace(self, found: Mapping[Name, T_contra]) -> None:
        """Take all there is."""
        ...

    def put(self, name: Name, value: T_contra) -> None:
        """Take one that is new or different."""
        ...

    def drop(self, name: Name) -> None:
        """Forget one, which may not be known."""
        ...


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """A kind of object. `read` keeps of it what is needed, or nothing; `optional`: its definition may not be there."""

    kind: str
    path: str
    read: Callable[[Raw], T | None]
    query: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False


class Reflector(Generic[T]):
    """One kind. `listed` is set once its first list is there; `served` says whether the cluster has the kind."""

    def __init__(
        self,
        api: kubernetes.Api,
        resource: Resource[T],
        sink: Sink[T],
        health: Health,
        *,
        clock: clocks.Clock | None = None,
        watch_seconds: int = _WATCH_SECONDS,
    ) -> None:
        self.resource, self.listed, self.served = resource, asyncio.Event(), False
        self._api, self._sink, self._health, self._clock = api, sink, health, clock
        self._watch_seconds = watch_seconds

    async def run(self) -> None:
        """Follow until cancelled."""
        resource = self.resource
        restarts = metrics.KUBERNETES_RESTARTS.labels(resource.kind)
        await kubernetes.follow(
            self._api,
            resource.path,
            self._all,
            self._change,
            health=self._health,
            part=f"kubernetes {resource.kind}",
            clock=self._clock,
            broke=restarts.inc,
            absent=self._absent if resource.optional else None,
            keep=self._keep,
            seconds=self._watch_seconds,
            **cast("dict[str, Any]", resource.query),
        )

    def _all(self, kept: list[kubernetes.Object]) -> None:
        self._sink.replace({item["name"]: item["value"] for item in kept if item["value"] is not None})
        self.served = True
        self.listed.set()

    def _change(self, item: kubernetes.Object, deleted: bool) -> None:
        name = _name(item)
        value = None if deleted else self._read(item)
        if value is None:
            self._sink.drop(name)
        else:
            self._sink.put(name, value)

    def _keep(self, item: kubernetes.Object) -> kubernetes.Object:
        return {"name": _name(item), "value": self._read(item)}

    def _read(self, item: kubernetes.Object) -> T | None:
        try:
            return self.resource.read(cast(Raw, item))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            what = "/".join(_name(item))
            _log.warning("kubernetes_object_unreadable", kind=self.resource.kind, object=what, reason=str(error))
            return None

    def _absent(self) -> None:
        if self.served or not self.listed.is_set():
            _log.info("kubernetes_kind_not_installed", kind=self.resource.kind)
        self.served = False
        self._sink.replace({})
        self.listed.set()


def _name(item: kubernetes.Object) -> Name:
    metadata = item.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    return str(known.get("namespace") or ""), str(known.get("name") or "")
