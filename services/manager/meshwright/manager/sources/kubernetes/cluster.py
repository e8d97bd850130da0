"""Everything that follows one cluster: a reflector for each kind, and what they feed.

One decision to know: nothing is handed on before every kind was listed once. Half a picture would take endpoints away
from proxies that have them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from meshwright.core import clock as clocks
from meshwright.core import kubernetes
from meshwright.core.health import Health
from meshwright.manager import metrics
from meshwright.manager.configapi.catalogue import Catalogue
from meshwright.manager.configapi.writer import Writer
from meshwright.manager.model import kinds
from meshwright.manager.model.mesh import Discovered
from meshwright.manager.sources.kubernetes import candidate, found
from meshwright.manager.sources.kubernetes.admission import Admissions, Judge
from meshwright.manager.sources.kubernetes.candidate import Candidate, Candidates
from meshwright.manager.sources.kubernetes.landscape import Landscape
from meshwright.manager.sources.kubernetes.mirror import Board, Mirror
from meshwright.manager.sources.kubernetes.reflector import Reflector, Resource

_TOGETHER_SECONDS = 0.05  # changes that come together are handed on together: a rollout isn't one push a pod

SERVICES = Resource("Service", "/api/v1/services", found.service)
SLICES = Resource("EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices", found.endpoint_slice)
PODS = Resource("Pod", "/api/v1/pods", found.pod, {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"})
NAMESPACES = Resource("Namespace", "/api/v1/namespaces", found.namespace)


def custom(kind: kinds.Kind) -> Resource[Candidate]:
    """Return the resource of one of our kinds."""
    path = f"/apis/{kind.api_version}/{kind.plural}"
    return Resource(kind.name, path, partial(candidate.read, kind=kind), optional=True)


class Cluster:
    """`on_services` is told what was discovered."""

    def __init__(
        self,
        api: kubernetes.Api,
        health: Health,
        *,
        on_services: Callable[[Mapping[str, Discovered]], None],
        clock: clocks.Clock | None = None,
    ) -> None:
        self._api, self._health, self._clock = api, health, clock or clocks.SystemClock()
        self._on_services = on_services
        self._changed = asyncio.Event()  # for the mirror
        self._bell, self._handed_on = asyncio.Event(), asyncio.Event()
        self.landscape = Landscape(self._bell.set)
        self.candidates = Candidates(self._bell.set)
        land = self.landscape
        self._custom = {
            kind: Reflector(api, custom(kind), self.candidates.sink(kind), health, clock=clock) for kind in kinds.CUSTOM
        }
        self._reflectors: list[Reflector[Any]] = [
            Reflector(api, NAMESPACES, land.namespaces, health, clock=clock),
            Reflector(api, SERVICES, land.services, health, clock=clock),
            Reflector(api, PODS, land.pods, health, clock=clock),
            Reflector(api, SLICES, land.slices, health, clock=clock),
            *self._custom.values(),
        ]

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors:
                tasks.create_task(reflector.run(), name=f"follow {reflector.resource.kind}")
            tasks.create_task(self._hand_on(), name="hand on what the cluster has")

    async def known(self) -> None:
        """Return when every kind was listed once, and the first picture was handed on."""
        await self._handed_on.wait()

    def owns(self, kind: kinds.Kind) -> bool:
        """Return whether objects of a kind belong to the cluster, so that they can't be changed elsewhere."""
        reflector = self._custom.get(kind)
        return reflector is None or reflector.served

    def mirror(self, judge: Judge, catalogue: Catalogue, writer: Writer, board: Board) -> Mirror:
        """Return who brings this cluster's custom resources into the store."""
        return Mirror(
            self._api,
            self.candidates.found,
            Admissions(judge),
            catalogue,
            writer,
            board,
            self._health,
            self._changed,
            self._clock,
        )

    async def _hand_on(self) -> None:
        for reflector in self._reflectors:
            await reflector.listed.wait()
        self._bell.set()
        while True:
            await self._bell.wait()
            await self._clock.sleep(_TOGETHER_SECONDS)
            self._bell.clear()
            self._on_services(self.landscape.settle())
            self._changed.set()
            self._handed_on.set()
            for kind, count in {**self.landscape.counts(), **self.candidates.counts()}.items():
                metrics.KUBERNETES_OBJECTS.labels(kind).set(count)
