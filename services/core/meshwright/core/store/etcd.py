"""The store on etcd: a small asyncio client of its public gRPC API (docs/adr tells why it is our own).

One decision to know: nothing is cached and nothing is queued here; every call is one request with a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from meshwright.api.etcd import rpc_pb2, rpc_pb2_grpc
from meshwright.core import errors
from meshwright.core.store import api, etcd_lease
from meshwright.core.store.api import Change, Compare, Entry, Lease, Operation, Put, Resync
from meshwright.core.store.etcd_endpoints import Endpoints
from meshwright.core.store.etcd_ranges import key_range
from meshwright.core.store.etcd_watch import Watch

_Entries = list[Entry]  # inside the class `list` is the method


class EtcdStore:
    """A `Store` on an etcd cluster. `tls` is a folder with cert.pem, key.pem and ca.pem; None is for tests only."""

    def __init__(self, endpoints: Sequence[str], tls: Path | None) -> None:
        self._endpoints = Endpoints(endpoints, tls)

    async def __aenter__(self) -> Self:
        """Use the store for the length of the context; connects when it is first called."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._endpoints.close()

    async def get(self, key: str, *, timeout: float = api.DEADLINE_SECONDS) -> Entry | None:
        """Return the entry, or None."""
        response = await self._read(rpc_pb2.RangeRequest(key=key.encode()), key, timeout)
        return _entry(response.kvs[0]) if response.kvs else None

    async def list(
        self, prefix: str, *, keys_only: bool = False, timeout: float = api.DEADLINE_SECONDS
    ) -> tuple[list[Entry], int]:
        """Return the entries under `prefix`, in pages that are all read at one revision."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            try:
                return await self._pages(prefix, keys_only, deadline)
            except _CompactedMeanwhile:
                continue  # the deadline ends this, should it happen again and again

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expect: int | None = None,
        lease: Lease | None = None,
        timeout: float = api.DEADLINE_SECONDS,
    ) -> int:
        """Write and return the new revision."""
        compares = [] if expect is None else [Compare(key, expect)]
        revision = await self.transaction(compares, [Put(key, value, lease)], timeout=timeout)
        if revision is None:
            raise api.conflict(key, expect or 0)
        return revision

    async def delete(self, key: str, *, expect: int | None = None, timeout: float = api.DEADLINE_SECONDS) -> bool:
        """Delete; return whether there was something."""
        compares = [] if expect is None else [_compare(Compare(key, expect))]
        request = rpc_pb2.TxnRequest(compare=compares, success=[_operation(api.Delete(key))])
        response = await self._write("Txn", request, key, timeout)
        if not response.succeeded:
            raise api.conflict(key, expect or 0)
        return bool(response.responses[0].response_delete_range.deleted)

    async def delete_prefix(self, prefix: str, *, timeout: float = api.DEADLINE_SECONDS) -> int:
        """Delete all under `prefix` in one revision."""
        if not prefix:
            raise errors.ConfigError("an empty prefix would delete everything", field="prefix")
        key, end = key_range(prefix)
        request = rpc_pb2.DeleteRangeRequest(key=key, range_end=end)
        return int((await self._write("DeleteRange", request, prefix, timeout)).deleted)

    async def transaction(
        self, compares: Sequence[Compare], operations: Sequence[Operation], *, timeout: float = api.DEADLINE_SECONDS
    ) -> int | None:
        """Apply all operations in one revision, or nothing."""
        api.check_transaction(compares, operations)
        request = rpc_pb2.TxnRequest(
            compare=[_compare(compare) for compare in compares], success=[_operation(item) for item in operations]
        )
        subject = operations[0].key if operations else "transaction"
        response = await self._write("Txn", request, subject, timeout)
        return int(response.header.revision) if response.succeeded else None

    def watch(self, prefix: str, since: int, *, report: api.Report | None = None) -> AsyncIterator[Change | Resync]:
        """Yield every change after `since` under `prefix`."""
        return Watch(self._endpoints, prefix, since, report).changes()

    def lease(self, ttl_seconds: float) -> AbstractAsyncContextManager[Lease]:
        """Hold a lease until the context ends."""
        return etcd_lease.hold(self._endpoints, ttl_seconds)

    async def compact(self, revision: int, *, timeout: float = api.DEADLINE_SECONDS) -> None:
        """Make etcd forget what was before `revision`; needs the rights of its administrator."""
        await self._write("Compact", rpc_pb2.CompactionRequest(revision=revision, physical=True), "compaction", timeout)

    async def _pages(self, prefix: str, keys_only: bool, deadline: float) -> tuple[_Entries, int]:
        loop = asyncio.get_running_loop()
        key, end = key_range(prefix)
        revision, page, entries = 0, api.PAGE * (16 if keys_only else 1), _Entries()
        while True:
            request = rpc_pb2.RangeRequest(key=key, range_end=end, limit=page, revision=revision, keys_only=keys_only)
            try:
                response = await self._read(request, prefix, deadline - loop.time())
            except errors.Exhausted as error:
                if page == 1 or "larger than max" not in str(error):
                    raise
                page = max(1, page // 4)  # large values: smaller pages
                continue
            except errors.MeshwrightError as error:
                cause = error.__cause__
                if revision and isinstance(cause, grpc.aio.AioRpcError) and cause.code() is _OUT_OF_RANGE:
                    raise _CompactedMeanwhile from error
                raise
            revision = revision or int(response.header.revision)
            entries += map(_entry, response.kvs)
            if not response.more:
                return entries, revision
            key = response.kvs[-1].key + b"\0"

    async def _read(self, request: Any, subject: str, timeout: float) -> Any:
        return await self._endpoints.call(
            rpc_pb2_grpc.KVStub, "Range", request, timeout=timeout, subject=subject, repeatable=True
        )

    async def _write(self, method: str, request: Any, subject: str, timeout: float) -> Any:
        return await self._endpoints.call(rpc_pb2_grpc.KVStub, method, request, timeout=timeout, subject=subject)


_OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE


class _CompactedMeanwhile(Exception):  # noqa: N818 - never leaves this module
    """The revision that a list had begun with is gone."""


def _entry(pair: Any) -> Entry:
    return Entry(pair.key.decode(), pair.value, pair.mod_revision)


def _compare(compare: Compare) -> Any:
    return rpc_pb2.Compare(
        key=compare.key.encode(),
        target=rpc_pb2.Compare.MOD,
        result=rpc_pb2.Compare.EQUAL,
        mod_revision=compare.revision,
    )


def _operation(item: Operation) -> Any:
    if isinstance(item, Put):
        put = rpc_pb2.PutRequest(key=item.key.encode(), value=item.value, lease=item.lease.id if item.lease else 0)
        return rpc_pb2.RequestOp(request_put=put)
    return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=item.key.encode()))
