"""Reports to adapters in other processes: a batch from the work queue becomes one request a template, or a few.

Behind the queue, so that a record is acknowledged only when the adapter has taken it; a batch that it refused comes
again, and its deduplication id says that it is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pydantic

from meshwright.api.istio.mixer.adapter.model.v1beta1 import report_pb2
from meshwright.api.policy.v1 import remote_pb2 as pb
from meshwright.core.identity import IdentitySource
from meshwright.dataplane.grpc import NativeChannel
from meshwright.mixer.adapter.v1 import Entry, GenericEntry, Host, Value
from meshwright.mixer.remote import wire
from meshwright.mixer.remote.channels import open_channel
from meshwright.mixer.remote.handlers import REPORTS, Reports, packed
from meshwright.mixer.remote.keeper import Keep

REPORT_SECONDS = 5.0
MAX_REQUEST = 1 << 20
SESSION_TYPE = "google.protobuf.Any.type_url"

_COMMON = frozenset({"instance", "origin"})


class ReportError(Exception):
    """The adapter can't be asked at present."""


class RemoteReports:
    """An adapter like those in Python, to whoever delivers reports. Configuration doesn't know its name."""

    name = REPORTS
    templates: frozenset[str] = frozenset()
    parameters: type[pydantic.BaseModel] = Reports

    def __init__(self, identity: IdentitySource | None, keep: Callable[[str], Keep | None]) -> None:
        self._identity, self._keep = identity, keep

    @asynccontextmanager
    async def open(self, parameters: Reports, host: Host) -> AsyncIterator[_Handler]:
        """A channel of its own, on the adapters' loop; tokens and sessions are the keeper's."""
        async with open_channel(pb.Remote.FromString(parameters.remote), self._identity) as channel:
            yield _Handler(parameters, channel, self._keep)


class _Handler:
    def __init__(self, parameters: Reports, channel: NativeChannel, keep: Callable[[str], Keep | None]) -> None:
        self._name, self._channel, self._keep = parameters.handler, channel, keep
        self._plans = {name: pb.Encoding.FromString(plan) for name, plan in parameters.plans.items()}

    async def report(self, batch: Sequence[Entry]) -> None:
        """Return when the adapter took all of it."""
        keep = self._keep(self._name)
        if keep is None:
            raise ReportError("the handler isn't in the configuration any more")
        if keep.handler.token is not None and keep.authorization is None:
            raise ReportError("there is no token at present")
        config = keep.handler.remote.adapter_config
        if keep.handler.remote.session_based:
            if keep.session is None:
                raise ReportError("the adapter has opened no session yet")
            config = packed(SESSION_TYPE, keep.session.encode())
        methods: dict[str, list[tuple[pb.Encoding, Mapping[str, Value], str]]] = {}
        for entry in batch:
            plan = self._plans.get(entry.instance)
            if plan is not None:
                methods.setdefault(plan.method, []).append((plan, fields_of(entry), entry.origin.record_id))
        for method, entries in methods.items():
            call = self._channel.unary_unary(method, bytes, report_pb2.ReportResult.FromString)
            for part, dedup_id in _parts(entries):
                request = wire.request(entries[0][0], part, config, dedup_id)
                await call(request, timeout=REPORT_SECONDS, metadata=keep.metadata)


def _parts(
    entries: Sequence[tuple[pb.Encoding, Mapping[str, Value], str]],
) -> list[tuple[list[bytes], str]]:
    """Encoded instances in requests that a server with usual limits takes, each with its deduplication id."""
    parts: list[tuple[list[bytes], str]] = []
    size = 0
    for plan, fields, record_id in entries:
        encoded = wire.instance(plan, fields)
        if not parts or size + len(encoded) > MAX_REQUEST:
            parts.append(([], record_id))
            size = 0
        parts[-1][0].append(encoded)
        size += len(encoded)
    return parts


def fields_of(entry: Entry) -> Mapping[str, Value]:
    """The fields as plans name them: those of maps as NAME.KEY."""
    if isinstance(entry, GenericEntry):
        return entry.fields
    found: dict[str, Any] = {}
    for each in dataclasses.fields(entry):
        value = getattr(entry, each.name)
        if each.name in _COMMON or value is None:
            continue
        if isinstance(value, Mapping):
            found.update({f"{each.name}.{key}": inner for key, inner in value.items()})
        else:
            found[each.name] = value
    return found
