"""A watch on etcd that survives its server: it goes on where it was, with capped back-off, or says that it can't.

One decision to know: etcd may cut one revision's changes into several messages, so after an outage the last revision is
asked for again and the keys that were already delivered are left out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc

from meshwright.api.etcd import kv_pb2, rpc_pb2, rpc_pb2_grpc
from meshwright.core import errors
from meshwright.core.store.api import Change, Report, Resync
from meshwright.core.store.etcd_endpoints import Endpoints, translate
from meshwright.core.store.etcd_ranges import key_range

_END: Any = grpc.aio.EOF
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0
_ANSWER_SECONDS = 5.0  # for a new watch to be confirmed; afterwards silence is normal
# `fragment` (WatchCreateRequest, field 8) is newer than the package that the descriptors come from. Without it the
# changes of a long outage arrive in one message without bound.
_FRAGMENT = b"\x40\x01"


class Watch:
    """One watch; iterate `changes()` once."""

    def __init__(self, endpoints: Endpoints, prefix: str, since: int, report: Report | None) -> None:
        self._endpoints, self._prefix, self._report = endpoints, prefix, report or (lambda _reason: None)
        self._next = since + 1  # the revision to ask for
        self._seen: set[str] = set()  # keys of that revision that were delivered
        self._since = since
        self._pause = _FIRST_PAUSE
        self._out = False

    async def changes(self) -> AsyncIterator[Change | Resync]:
        """Yield changes until they can't be continued."""
        while True:
            member = self._endpoints.current
            try:
                async for item in self._follow(member):
                    yield item
                    if isinstance(item, Resync):
                        return
                reason = "etcd ended the watch"
            except grpc.aio.AioRpcError as error:
                if error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
                    raise translate(error, f"watch {self._prefix}") from error
                reason = str(translate(error, f"watch {self._prefix}"))
            except TimeoutError:
                reason = f"etcd, watch {self._prefix}: no answer from {self._endpoints.names[member]}"
            self._endpoints.leave(member)
            if not self._out:
                self._out = True
                self._report(reason)
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
            self._pause = min(self._pause * 2, _LAST_PAUSE)

    async def _follow(self, member: int) -> AsyncIterator[Change | Resync]:
        call = self._endpoints.stub(rpc_pb2_grpc.WatchStub, member).Watch(metadata=(("hasleader", "true"),))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await call.write(self._request())
                created = await call.read()
            if created is _END:
                return
            lost = self._lost(created)
            if lost:
                yield lost
                return
            self._pause, self._since = _FIRST_PAUSE, max(self._since, created.header.revision)
            if self._out:
                self._out = False
                self._report("")
            while (response := await call.read()) is not _END:
                lost = self._lost(response)
                if lost:
                    yield lost
                    return
                for change in self._unseen(response):
                    yield change
        finally:
            call.cancel()

    def _request(self) -> Any:
        key, end = key_range(self._prefix)
        create = rpc_pb2.WatchCreateRequest(key=key, range_end=end, start_revision=self._next, progress_notify=True)
        create.MergeFromString(_FRAGMENT)
        return rpc_pb2.WatchRequest(create_request=create)

    def _lost(self, response: Any) -> Resync | None:
        if response.compact_revision:
            return Resync(f"etcd has compacted its history up to revision {response.compact_revision}")
        if response.canceled:
            if "permission denied" in response.cancel_reason:
                raise errors.Forbidden(f"etcd, watch {self._prefix}: permission denied")
            return Resync(f"etcd cancelled the watch: {response.cancel_reason or 'no reason given'}")
        if response.created and response.header.revision < self._since:
            return Resync(f"etcd is at revision {response.header.revision}, before {self._since}: not the same store")
        return None

    def _unseen(self, response: Any) -> list[Change]:
        changes = []
        for event in response.events:
            key, revision = event.kv.key.decode(), event.kv.mod_revision
            if revision > self._next:
                self._next, self._seen = revision, set()
            elif key in self._seen:
                continue
            self._seen.add(key)
            value = None if event.type == kv_pb2.Event.DELETE else event.kv.value
            changes.append(Change(key, value, revision))
        if not response.events and response.header.revision >= self._next:  # a notice that all up to here was sent
            self._next, self._seen = response.header.revision + 1, set()
        return changes
