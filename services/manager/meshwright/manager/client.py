"""A typed client of the configuration API, for the command line and for programs.

`async with Client("127.0.0.1:15012", identity, trust_domain="mesh.local") as client:`; identity None speaks plain text
to a manager on loopback or a Unix socket. All calls raise errors of `meshwright.core.errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core import errors, identity
from meshwright.core.config import Key, Object, from_json
from meshwright.core.grpc import Channel
from meshwright.manager import answers
from meshwright.manager.analyze.finding import Finding
from meshwright.manager.answers import (
    Condition,
    Event,
    Expectation,
    ObjectDiff,
    Outcome,
    Preview,
    Revision,
    Status,
)
from meshwright.manager.explain.request import Request
from meshwright.manager.explain.route import Explanation

_PAGES_AGAIN = 5
_POLL_SECONDS = 0.1

_ERRORS: dict[grpc.StatusCode, type[errors.MeshwrightError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.ConfigError,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.OUT_OF_RANGE: errors.Compacted,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Exhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}


class Client:
    """One manager's configuration API. `timeout` is the deadline of each call, in seconds."""

    def __init__(
        self,
        server: str,
        credentials: identity.IdentitySource | None,
        *,
        trust_domain: str = "mesh.local",
        timeout: float = 15.0,
    ) -> None:
        peer = identity.part_id(trust_domain, "manager") if credentials else None
        self._server, self._timeout = server, timeout
        self._channel = Channel(server, credentials, peer=peer)
        self._stub = config_pb2_grpc.ConfigServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        """Use the client for the length of the context."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self._channel.close()

    async def apply(
        self,
        objects: Sequence[Object],
        *,
        dry_run: bool = False,
        accept_unvalidated: bool = False,
        message: str = "",
        expected: Expectation | None = None,
        preview: Preview = "none",
    ) -> Outcome:
        """Put objects, all or none; raise Refused with every fault, each with its object's `source`.

        `preview` is of a dry run: ``names`` of the resources that proxies would be sent, ``text``: how they differ.
        """
        request = config_pb2.ApplyRequest(
            objects=[config_pb2.Object(key=answers.key_message(found.key), json=found.json) for found in objects],
            dry_run=dry_run,
            accept_unvalidated=accept_unvalidated,
            message=message,
            expected=answers.expectation(expected),
            preview=f"PREVIEW_{preview.upper()}",
        )
        answer = await self._call(self._stub.Apply(request, timeout=self._timeout))
        return answers.outcome(answer, [found.source for found in objects])

    async def delete(
        self,
        keys: Sequence[Key],
        *,
        ignore_missing: bool = False,
        dry_run: bool = False,
        accept_unvalidated: bool = False,
        message: str = "",
        expected: Expectation | None = None,
        preview: Preview = "none",
        sources: Sequence[str] = (),
    ) -> Outcome:
        """Delete objects, all or none; `sources` are for faults, one for each key."""
        request = config_pb2.DeleteRequest(
            keys=map(answers.key_message, keys),
            ignore_missing=ignore_missing,
            dry_run=dry_run,
            accept_unvalidated=accept_unvalidated,
            message=message,
            expected=answers.expectation(expected),
            preview=f"PREVIEW_{preview.upper()}",
        )
        return answers.outcome(await self._call(self._stub.Delete(request, timeout=self._timeout)), sources)

    async def rollback(
        self,
        revision: int,
        *,
        dry_run: bool = False,
        accept_unvalidated: bool = False,
        message: str = "",
        expected: Expectation | None = None,
        preview: Preview = "none",
    ) -> Outcome:
        """Make every object what it was at `revision`, in a new revision, or do nothing."""
        request = config_pb2.RollbackRequest(
            revision=revision,
            dry_run=dry_run,
            accept_unvalidated=accept_unvalidated,
            message=message,
            expected=answers.expectation(expected),
            preview=f"PREVIEW_{preview.upper()}",
        )
        return answers.outcome(await self._call(self._stub.Rollback(request, timeout=self._timeout)), ())

    async def history(
        self, kind: str = "", name: str = "", namespace: str = "", *, before: int = 0, limit: int = 0
    ) -> tuple[list[Revision], int]:
        """Return revisions that changed what fits, the newest first, and the oldest one whose state is kept."""
        wanted = config_pb2.Key(kind=kind, namespace=namespace, name=name)
        request = config_pb2.HistoryRequest(filter=wanted, before=before, limit=limit)
        answer = await self._call(self._stub.History(request, timeout=self._timeout))
        return [answers.revision(found) for found in answer.revisions], answer.floor

    async def diff(self, older: int, newer: int | None = None) -> tuple[list[ObjectDiff], int]:
        """Return how objects differ between two revisions, and the newer one; None: the newest."""
        found: list[ObjectDiff] = []
        request = config_pb2.DiffRequest(older=older, newer=newer)
        while True:
            page = await self._call(self._stub.Diff(request, timeout=self._timeout))
            found += map(answers.object_diff, page.objects)
            if not page.HasField("next"):
                return found, page.newer
            request = config_pb2.DiffRequest(older=older, newer=page.newer, after=page.next)

    async def watch(
        self, after: int | None = None, *, kind: str = "", name: str = "", namespace: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Yield each revision that changed what fits, after revision `after` (None: the newest), for ever.

        Compacted: what changed after `after` is no longer kept; list, and watch after the list's revision.
        """
        wanted = config_pb2.Key(kind=kind, namespace=namespace, name=name)
        call = self._stub.Watch(config_pb2.WatchRequest(after=after, filter=wanted))
        changes: dict[Key, Object | None] = {}
        try:
            async for part in call:
                for change in part.changes:
                    changes[answers.key(change.key)] = from_json(change.json, "the manager") if change.json else None
                if not part.more and changes:
                    yield Event(part.revision, part.author, part.time, part.message, changes)
                    changes = {}
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        finally:
            call.cancel()

    async def conditions(self, keys: Sequence[Key]) -> list[tuple[Key, int, tuple[Condition, ...]]]:
        """Return, for each object, its key, the revision that changed it last (0: none) and what is in force of it."""
        request = config_pb2.ConditionsRequest(keys=map(answers.key_message, keys))
        answer = await self._call(self._stub.Conditions(request, timeout=self._timeout))
        return [
            (
                answers.key(found.key),
                found.revision,
                tuple(Condition(told.type, told.status, told.reason, told.message) for told in found.conditions),
            )
            for found in answer.objects
        ]

    async def wait_for(self, keys: Sequence[Key], condition: str, *, timeout: float) -> None:
        """Return once `condition` is true of all objects; raise DeadlineExceeded, which says of which it isn't and why.

        ``Deleted`` is true of what isn't there.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            waiting = [
                (key, told)
                for key, revision, told in await self.conditions(keys)
                if not _holds(condition, revision, told)
            ]
            if not waiting:
                return
            if loop.time() + _POLL_SECONDS > end:
                raise errors.DeadlineExceeded(_unfulfilled(waiting, condition, timeout))
            await asyncio.sleep(_POLL_SECONDS)

    async def list(
        self, kind: str = "", name: str = "", namespace: str = "", api_version: str = ""
    ) -> tuple[list[Object], int]:
        """Return the objects that fit (empty fits all) at one revision, and that revision."""
        wanted = config_pb2.Key(api_version=api_version, kind=kind, namespace=namespace, name=name)
        for _ in range(_PAGES_AGAIN):
            found: list[Object] = []
            after, revision = "", None
            while True:
                request = config_pb2.ListRequest(filter=wanted, after=after)
                page = await self._call(self._stub.List(request, timeout=self._timeout))
                if revision not in (None, page.revision):
                    break  # changed between two pages: begin again
                revision, after = page.revision, page.next
                found += [from_json(entry.json, "the manager") for entry in page.objects]
                if not after:
                    return found, revision
        raise errors.Conflict("the configuration changes faster than it can be listed: try again")

    async def analyze(self, objects: Sequence[Object] = (), *, namespace: str = "") -> Sequence[tuple[Finding, str]]:
        """Return what is probably wrong in the mesh, as it would be with `objects` applied, and in which of these."""
        request = config_pb2.AnalyzeRequest(
            objects=[config_pb2.Object(key=answers.key_message(found.key), json=found.json) for found in objects],
            namespace=namespace,
        )
        answer = await self._call(self._stub.Analyze(request, timeout=self._timeout))
        return answers.findings(answer, [found.source for found in objects])

    async def explain(self, request: Request, workload: str, namespace: str = "default") -> Explanation:
        """Return which route takes a request of a workload, why those before it don't, and what becomes of it."""
        headers = [
            config_pb2.ExplainRouteRequest.Header(name=name, value=value) for name, value in request.headers.items()
        ]
        asked = config_pb2.ExplainRouteRequest(
            host=request.authority,
            path=request.path,
            method=request.method,
            headers=headers,
            from_namespace=namespace,
            from_workload=workload,
        )
        return answers.explanation(await self._call(self._stub.ExplainRoute(asked, timeout=self._timeout)))

    async def status(self) -> Status:
        """Return what each connected proxy has acknowledged."""
        answer = await self._call(self._stub.ProxyStatus(config_pb2.ProxyStatusRequest(), timeout=self._timeout))
        return answers.status(answer)

    async def wait(self, revision: int, *, timeout: float, proxies: int = 0) -> Status:
        """Return once at least `proxies` are connected and all have acknowledged `revision`.

        Raises DeadlineExceeded after `timeout` seconds, naming those that are behind and what they refuse.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            status = await self.status()
            lacking = status.lacking(revision, proxies)
            if not lacking:
                return status
            if loop.time() + _POLL_SECONDS > end:
                raise errors.DeadlineExceeded(f"after {timeout:g} s {lacking}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _call(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    def _error(self, error: grpc.aio.AioRpcError) -> errors.MeshwrightError:
        details = error.details() or error.code().name
        kind = _ERRORS.get(error.code(), errors.Unavailable)
        if kind is errors.Unavailable:
            details = f"the manager at {self._server} doesn't answer: {details}"
        return kind(details)


def _holds(condition: str, revision: int, told: Sequence[Condition]) -> bool:
    if condition == "Deleted":
        return not revision
    return any(found.type == condition and found.status for found in told)


def _unfulfilled(waiting: Sequence[tuple[Key, Sequence[Condition]]], condition: str, timeout: float) -> str:
    text = f"after {timeout:g} s {condition} isn't true of"
    for key, told in waiting[:5]:
        found = next((one for one in told if one.type in (condition, "Accepted") and not one.status), None)
        why = (
            f"{found.reason}: {found.message}" if found else "it is still there" if condition == "Deleted" else "never"
        )
        text += f" {key} ({why});"
    return text.rstrip(";") + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
