"""meshwright.config.v1.ConfigService: from messages to the parts that know, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core import errors
from meshwright.core.config.history import Events
from meshwright.core.grpc import peer_id
from meshwright.manager.analyze import analysis
from meshwright.manager.configapi import conditions, messages
from meshwright.manager.configapi import plan as plans
from meshwright.manager.configapi.catalogue import Catalogue
from meshwright.manager.configapi.chronicle import Chronicle
from meshwright.manager.configapi.edit import Editor
from meshwright.manager.configapi.preview import Depth
from meshwright.manager.configapi.selection import Selection
from meshwright.manager.configapi.status import StatusBoard
from meshwright.manager.configapi.terms import Terms
from meshwright.manager.explain.request import Request
from meshwright.manager.explain.route import explain

PAGE_BYTES = 2 << 20


class ConfigService(config_pb2_grpc.ConfigServiceServicer):
    """The servicer."""

    def __init__(self, catalogue: Catalogue, editor: Editor, chronicle: Chronicle, status: StatusBoard) -> None:
        self._catalogue, self._editor, self._chronicle, self._status = catalogue, editor, chronicle, status

    async def Apply(self, request: Any, context: Any) -> Any:
        """Put objects, all or none."""
        documents = [(messages.key(found.key), found.json) for found in request.objects]
        outcome = await self._editor.apply(documents, _terms(request, context))
        return messages.fill(config_pb2.ApplyResponse(), outcome)

    async def Delete(self, request: Any, context: Any) -> Any:
        """Delete objects, all or none."""
        keys = [messages.key(found) for found in request.keys]
        terms = _terms(request, context)
        outcome = await self._editor.delete(keys, terms, ignore_missing=request.ignore_missing)
        return messages.fill(config_pb2.DeleteResponse(), outcome)

    async def Rollback(self, request: Any, context: Any) -> Any:
        """Make every object what it was at a revision, all or none."""
        terms = _terms(request, context, request.message or f"rollback to revision {request.revision}")
        outcome = await self._editor.rollback(request.revision, terms)
        return messages.fill(config_pb2.ApplyResponse(), outcome)

    async def List(self, request: Any, context: Any) -> Any:
        """List objects, page by page."""
        state = self._catalogue.state
        response = config_pb2.ListResponse(revision=state.revision)
        size = 0
        for name, key in Selection.of(messages.key(request.filter)).pages(state.objects, request.after):
            if size > PAGE_BYTES:
                break
            found = state.objects[key]
            response.objects.append(messages.object_message(found, state.revisions.get(key, 0)))
            size += len(found.text)
            response.next = name
        else:
            response.next = ""
        return response

    async def ProxyStatus(self, request: Any, context: Any) -> Any:
        """Say what each proxy has acknowledged."""
        response = self._status.here()
        if not request.this_replica:
            await self._status.add_others(response)
        return response

    async def History(self, request: Any, context: Any) -> Any:
        """List revisions."""
        selection = Selection.of(messages.key(request.filter))
        found = await self._chronicle.revisions(selection, before=request.before, limit=request.limit)
        floor, head = await self._chronicle.bounds()
        revisions = list(map(messages.revision_message, found))
        return config_pb2.HistoryResponse(revisions=revisions, floor=floor, head=head)

    async def Diff(self, request: Any, context: Any) -> Any:
        """Say how objects differ between two revisions, page by page."""
        newer = request.newer if request.HasField("newer") else (await self._chronicle.bounds())[1]
        after = messages.key(request.after) if request.HasField("after") else None
        response = config_pb2.DiffResponse(newer=newer)
        size = 0
        async for found in self._chronicle.differences(request.older, newer, after):
            if size > PAGE_BYTES:
                response.next.CopyFrom(response.objects[-1].key)
                break
            response.objects.append(messages.difference_message(found))
            size += len(found.before or "") + len(found.after or "")
        return response

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Send each revision's changes."""
        selection = Selection.of(messages.key(request.filter))
        async for events in self._chronicle.watch(request.after if request.HasField("after") else None):
            for message in _event_messages(events, selection):
                yield message

    async def Conditions(self, request: Any, context: Any) -> Any:
        """Say what is in force of some objects."""
        if len(request.keys) > conditions.MAX_KEYS:
            raise errors.Exhausted(f"{len(request.keys)} objects in one request: at most {conditions.MAX_KEYS}")
        proxies = self._status.here()
        await self._status.add_others(proxies)
        state = self._catalogue.state
        response = config_pb2.ConditionsResponse(revision=state.revision, unreachable=proxies.unreachable)
        for given in map(messages.key, request.keys):
            key = plans.named(given)
            if key is None:
                raise errors.ConfigError(f"unknown kind {given.kind}", field="keys", remedy="see 'meshwright get'")
            told = conditions.conditions(key, state, proxies.proxies, proxies.unreachable)
            response.objects.add(
                key=messages.key_message(key),
                revision=state.revisions.get(key, 0) if key in state.objects else 0,
                conditions=[
                    config_pb2.ConditionsResponse.Condition(
                        type=found.type, status=bool(found.status), reason=found.reason, message=found.message
                    )
                    for found in told
                ],
            )
        return response

    async def Analyze(self, request: Any, context: Any) -> Any:
        """Find what is probably wrong. In a thread: a large mesh takes seconds, and proxies shouldn't wait for that."""
        documents = [(messages.key(found.key), found.json) for found in request.objects]
        plans.check_size([text for _, text in documents])
        state = self._catalogue.state
        found = await asyncio.to_thread(analysis.live, documents, state)
        return config_pb2.AnalyzeResponse(
            revision=state.revision,
            findings=[
                messages.finding_message(each, found.places.get(each.key, -1))
                for each in found.findings
                if request.namespace in ("", each.key.namespace)
            ],
            left_out=found.left_out,
        )

    async def ExplainRoute(self, request: Any, context: Any) -> Any:
        """Say which route takes a request, and why."""
        headers = {found.name.lower(): found.value for found in request.headers}
        asked = Request(request.host, request.path, request.method or "GET", headers)
        state = self._catalogue.state
        found = await asyncio.to_thread(explain, state.mesh, asked, request.from_namespace, request.from_workload)
        return messages.explanation_message(found, state.revision)


def _terms(request: Any, context: Any, message: str = "") -> Terms:
    return Terms(
        peer_id(context) or "",
        message or request.message,
        request.dry_run,
        request.accept_unvalidated,
        messages.expectation(request.expected),
        _depth(request.preview),
    )


def _depth(number: int) -> Depth:
    try:
        return Depth(number)
    except ValueError:
        raise errors.ConfigError(f"{number} isn't known", field="preview", remedy="0, 1 or 2") from None


def _event_messages(events: Events, selection: Selection) -> list[Any]:
    """Cut one revision into messages that the transport takes; one without changes where none fits."""
    commit = events.commit

    def part() -> Any:
        return config_pb2.WatchEvent(
            revision=commit.revision, author=commit.author, time=commit.time, message=commit.message
        )

    parts = [part()]
    size = 0
    for key, text in sorted(events.objects.items()):
        if not selection.fits(key):
            continue
        if size > PAGE_BYTES:
            parts[-1].more = True
            parts.append(part())
            size = 0
        parts[-1].changes.add(key=messages.key_message(key), json=text or "")
        size += len(text or "")
    return parts
