"""Changes to the configuration: judge, ask the owners, commit in one revision. What gRPC and REST have in common.

One decision to know: requests are judged against the state at one revision, and committed only if that is still the
newest; if another replica was faster, the request is judged again against what that one made, unless it said which
revision it expects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.manager import metrics
from meshwright.manager.configapi import plan as plans
from meshwright.manager.configapi.catalogue import Catalogue, State
from meshwright.manager.configapi.chronicle import Chronicle
from meshwright.manager.configapi.owners import Owners
from meshwright.manager.configapi.preview import Previews
from meshwright.manager.configapi.terms import Expectation, Outcome, Terms
from meshwright.manager.configapi.writer import Writer
from meshwright.manager.xds.convergence import Convergence

MAX_MESSAGE = 1_000
_ATTEMPTS = 5
_SETTLE_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Editor:
    """Without a `writer` the configuration is a folder's, and can't be changed here."""

    def __init__(
        self,
        catalogue: Catalogue,
        writer: Writer | None,
        chronicle: Chronicle,
        owners: Owners,
        previews: Previews,
        convergence: Convergence,
        owned: plans.Owned = plans.nobodys,
    ) -> None:
        self._catalogue, self._writer, self._chronicle, self._owners = catalogue, writer, chronicle, owners
        self._previews, self._convergence = previews, convergence
        self._owned = owned  # by a cluster
        self._turn = asyncio.Lock()  # requests at one replica wait for each other instead of losing conflicts

    async def apply(self, documents: Sequence[tuple[Key | None, str]], terms: Terms) -> Outcome:
        """Put objects, all or none; each as the key that the request claims and its JSON."""

        async def judge(state: State) -> plans.Plan:
            return plans.apply(documents, state, self._owned)

        return await self._change(judge, terms)

    async def delete(self, keys: Sequence[Key], terms: Terms, *, ignore_missing: bool = False) -> Outcome:
        """Delete objects, all or none."""

        async def judge(state: State) -> plans.Plan:
            return plans.delete(keys, state, ignore_missing=ignore_missing, owned=self._owned)

        return await self._change(judge, terms)

    async def rollback(self, revision: int, terms: Terms) -> Outcome:
        """Make every object what it was at `revision`, all or none."""

        async def judge(state: State) -> plans.Plan:
            texts, gone = await self._chronicle.restoring(revision, state)
            return plans.rollback(texts, gone, state, self._owned)

        return await self._change(judge, terms)

    async def _change(self, judge: Callable[[State], Awaitable[plans.Plan]], terms: Terms) -> Outcome:
        if self._writer is None and not terms.dry_run:
            raise errors.ConfigError(
                "this manager serves a folder of files", remedy="change the files, or start it without --config"
            )
        if len(terms.message) > MAX_MESSAGE:
            raise errors.ConfigError(f"has {len(terms.message)} characters: at most {MAX_MESSAGE}", field="message")
        async with self._turn:
            for _ in range(_ATTEMPTS):
                state = await self._expected(terms.expected)
                plan = await judge(state)
                if not plan.findings.violations:
                    found = await self._owners.judge(plan, accept_unvalidated=terms.accept_unvalidated)
                    plan.findings.violations += found.violations
                    plan.findings.warnings += found.warnings
                if plan.findings.violations:
                    metrics.REJECTED.inc()
                    return Outcome(plan, state.revision)
                if terms.dry_run:
                    return Outcome(plan, state.revision, await self._previews.of(plan.mesh(state), terms.preview))
                if self._writer is None or not (plan.put or plan.delete):
                    return Outcome(plan, state.revision)
                texts = {key: parsed.text for key, parsed in plan.put.items()}
                accepted = self._convergence.now()
                commit = partial(self._writer.commit, author=terms.author, message=terms.message)
                try:
                    revision = await commit(texts, plan.delete, state.revision)
                except errors.Conflict:
                    await self._catalogue.reached(state.revision + 1, _SETTLE_SECONDS)
                    continue
                self._convergence.accepted(revision, accepted)
                metrics.COMMITS.inc()
                _log.info("committed", revision=revision, put=len(texts), deleted=len(plan.delete), caller=terms.author)
                # Whoever applies and lists sees what they applied.
                await self._catalogue.reached(revision, _SETTLE_SECONDS)
                return Outcome(plan, revision)
        raise errors.Conflict(f"others changed the configuration {_ATTEMPTS} times meanwhile: try again")

    async def _expected(self, expected: Expectation) -> State:
        """Return the present state; raise Conflict, which names who made it, unless it is as expected."""
        newest = max((expected.revision or 0, *(revision for _, revision in expected.objects)))
        if self._catalogue.state.revision < newest:  # another replica's answer, which this one is about to read
            try:
                await self._catalogue.reached(newest, _SETTLE_SECONDS)
            except errors.DeadlineExceeded:
                raise errors.Conflict(
                    f"the configuration is at revision {self._catalogue.state.revision}, you expected {newest}: look "
                    "at the newest and try again"
                ) from None
        state = self._catalogue.state
        if expected.revision is not None and expected.revision != state.revision:
            who = await self._chronicle.blame(None, state.revision)
            raise errors.Conflict(
                f"the configuration is at revision {state.revision}, changed by {who}; you expected "
                f"{expected.revision}: read again and retry"
            )
        for given, revision in expected.objects:
            key = plans.named(given) or given
            now = state.revisions.get(key, 0) if key in state.objects else 0
            if now != revision:
                who = await self._chronicle.blame(key, now)
                what = f"was last changed in revision {now} by {who}" if now else f"doesn't exist (deleted by {who})"
                if not now and who == "somebody":
                    what = "doesn't exist"
                wanted = f"you expected revision {revision}" if revision else "you expected that it didn't exist"
                raise errors.Conflict(f"{key} {what}; {wanted}: read again and retry")
        return state
