"""Brings admitted custom resources into the store, and tells each what became of it. Runs in the elected replica.

One decision to know: every round compares all that is wanted with all that the store has, and commits the difference
in one revision. So nothing is lost by a change that came while nobody was elected, and an object that somebody removed
from the store behind the cluster's back returns.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors, kubernetes
from meshwright.core.config import Key
from meshwright.core.health import Health
from meshwright.manager import metrics
from meshwright.manager.configapi.acknowledged import acknowledged
from meshwright.manager.configapi.catalogue import Catalogue, State
from meshwright.manager.configapi.refusals import complaining, refused
from meshwright.manager.configapi.writer import Writer
from meshwright.manager.model import kinds
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.notices import notices
from meshwright.manager.model.parse import Parsed
from meshwright.manager.sources.kubernetes import status
from meshwright.manager.sources.kubernetes.admission import Admission, Admissions
from meshwright.manager.sources.kubernetes.candidate import Candidate

AUTHOR = "cluster"
"""Who made a revision, in the history: the cluster says who changed the custom resource."""

_SETTLE_SECONDS = 5.0
_TOGETHER_SECONDS = 0.05  # changes of one `kubectl apply` become one revision
_PROXIES_SECONDS = 1.0  # until proxies are asked again what they have
_RETRY_SECONDS = 5.0
_WORDING_SECONDS = 5.0  # a status that only says the same in other words is written so often at most
_AT_ONCE = 8  # statuses that are being written

_log = structlog.get_logger(__name__)


class Board(Protocol):
    """Who knows what proxies have acknowledged."""

    def here(self) -> Any:
        """Return a ProxyStatusResponse for this replica's proxies."""
        ...

    async def add_others(self, response: Any) -> None:
        """Add those of the other replicas."""
        ...


class Mirror:
    """`run` works until it is cancelled; `bell` is rung when something may be different."""

    def __init__(
        self,
        api: kubernetes.Api,
        candidates: Mapping[Key, Candidate],
        admissions: Admissions,
        catalogue: Catalogue,
        writer: Writer,
        board: Board,
        health: Health,
        bell: asyncio.Event,
        clock: clocks.Clock | None = None,
    ) -> None:
        self._bell = bell
        self._api, self._candidates, self._admissions = api, candidates, admissions
        self._catalogue, self._writer, self._board, self._health = catalogue, writer, board, health
        self._clock = clock or clocks.SystemClock()
        self._admission: Admission | None = None
        self._admitted: dict[Key, tuple[str, str]] = {}  # of what the admission was made
        self._written: dict[str, float] = {}  # when an object's status was last written, by uid

    async def run(self) -> None:
        """Work."""
        self._admission = None
        while True:
            self._bell.clear()
            try:
                pause = await self._round()
                self._health.set("kubernetes mirror", True)
            except errors.Conflict:
                pause = 0.0  # another replica, or a person, was faster: compare with what they made
            except errors.MeshwrightError as error:
                self._health.degrade("kubernetes mirror", f"custom resources wait to come into force: {error}")
                pause = _RETRY_SECONDS
            await self._rung(pause)
            await self._clock.sleep(_TOGETHER_SECONDS)

    async def _rung(self, pause: float | None) -> None:
        ringing = asyncio.ensure_future(self._bell.wait())
        waits: list[asyncio.Future[Any]] = [ringing]
        if pause is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(pause)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _round(self) -> float | None:
        """Commit and tell; return after how long there is more to do, None: when the bell rings."""
        candidates = dict(self._candidates)
        admission = await self._admit(candidates)
        await self._commit(admission)
        waiting = await self._tell(candidates, admission)
        metrics.KUBERNETES_REJECTED.set(sum(not verdict.accepted for verdict in admission.verdicts.values()))
        if waiting:
            return _PROXIES_SECONDS
        return _RETRY_SECONDS if admission.undecided else None

    async def _admit(self, candidates: Mapping[Key, Candidate]) -> Admission:
        made_of = {key: (candidate.text, candidate.created) for key, candidate in candidates.items()}
        if self._admission is None or self._admission.undecided or made_of != self._admitted:
            before = self._admission.verdicts if self._admission else {}
            self._admission, self._admitted = await self._admissions.admit(candidates), made_of
            for key, verdict in self._admission.verdicts.items():
                if not verdict.accepted and before.get(key) != verdict:
                    _log.warning("object_not_in_force", object=str(key), reason=verdict.reason, message=verdict.message)
        return self._admission

    async def _commit(self, admission: Admission) -> None:
        state = self._catalogue.state
        put, delete = difference(admission, state)
        if not (put or delete):
            return
        try:
            revision = await self._writer.commit(put, delete, state.revision, author=AUTHOR)
        except errors.Conflict:
            await self._catalogue.reached(state.revision + 1, _SETTLE_SECONDS)
            raise
        metrics.COMMITS.inc()
        _log.info("cluster_mirrored", revision=revision, put=len(put), deleted=len(delete))
        await self._catalogue.reached(revision, _SETTLE_SECONDS)

    async def _tell(self, candidates: Mapping[Key, Candidate], admission: Admission) -> bool:
        """Write the statuses that differ; return whether some object still waits for proxies."""
        state = self._catalogue.state
        told = _told(state, admission.objects)
        waiting = {
            key
            for key, found in admission.objects.items()
            if not found.kind.owner and not status.programmed(candidates[key])
        }
        proxies = await self._proxies() if waiting else ()
        complaints = complaining(proxies)
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        writes = []
        for key, candidate in candidates.items():
            reached = None
            if key in waiting:
                reached = acknowledged(proxies, state.revisions.get(key, 0), refused(state.mesh, key, complaints))
            if reached is not None and reached.complete:
                waiting.discard(key)
            standing = status.Standing(admission.verdicts[key], told.get(key, ()), reached)
            wanted = status.conditions(candidate, standing, now)
            if key in admission.objects and key not in waiting and reached is None:
                wanted += [dict(candidate.conditions["Programmed"])] if "Programmed" in candidate.conditions else []
            if status.differ(candidate, wanted) and self._due(candidate, wanted):
                writes.append((candidate, wanted))
        for start in range(0, len(writes), _AT_ONCE):
            await asyncio.gather(*(self._write(*write) for write in writes[start : start + _AT_ONCE]))
        known = {candidate.uid for candidate in candidates.values()}
        self._written = {uid: when for uid, when in self._written.items() if uid in known}
        return bool(waiting)

    async def _proxies(self) -> Sequence[Any]:
        response = self._board.here()
        await self._board.add_others(response)
        return list(response.proxies)

    def _due(self, candidate: Candidate, wanted: Sequence[Mapping[str, Any]]) -> bool:
        last = self._written.get(candidate.uid, float("-inf"))
        return status.flips(candidate, wanted) or self._clock.monotonic() - last >= _WORDING_SECONDS

    async def _write(self, candidate: Candidate, wanted: Sequence[Mapping[str, Any]]) -> None:
        key = candidate.key
        kind = kinds.find(key.api_version, key.kind)
        if kind is None:
            return
        home = f"namespaces/{key.namespace}/" if kind.namespaced else ""
        path = f"/apis/{key.api_version}/{home}{kind.plural}/{key.name}"
        self._written[candidate.uid] = self._clock.monotonic()
        try:
            status_now = {"observedGeneration": candidate.generation, "conditions": list(wanted)}
            await self._api.merge(f"{path}/status", {"status": status_now})
        except (errors.NotFound, errors.Conflict) as error:  # deleted meanwhile, or a definition without a status
            _log.info("status_not_written", object=str(key), reason=str(error))
        except errors.MeshwrightError as error:  # the object is in force all the same; the next round tries again
            _log.warning("status_not_written", object=str(key), reason=str(error))
            self._health.degrade("kubernetes status", f"statuses of custom resources can't be written: {error}")
        else:
            metrics.KUBERNETES_STATUSES.inc()
            self._health.set("kubernetes status", True)


def difference(admission: Admission, state: State) -> tuple[dict[Key, str], set[Key]]:
    """Return what must be put into the store and deleted from it."""
    put = {
        key: found.text
        for key, found in admission.objects.items()
        if key not in state.objects or state.objects[key].text != found.text
    }
    delete = {
        key
        for key, found in state.objects.items()
        if found.mirrored and key not in admission.objects and found.kind.owner not in admission.undecided
    }
    return put, delete


def _told(state: State, objects: Mapping[Key, Parsed]) -> dict[Key, list[Notice]]:
    told: dict[Key, list[Notice]] = defaultdict(list)
    for notice in notices(state.mesh, objects.keys()):
        told[notice.key].append(notice)
    return told
