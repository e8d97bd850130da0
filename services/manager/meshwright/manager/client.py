"""A typed client of the configuration API, for the command line and for programs.

`async with Client("127.0.0.1:15012", identity, trust_domain="mesh.local") as client:`; identity None speaks plain text
to a manager on loopback or a Unix socket. All calls raise errors of `meshwright.core.errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core import errors, identity
from meshwright.core.config import Key, Object, from_json
from meshwright.core.grpc import Channel
from meshwright.manager.errors import Problem, Refused

_PAGES_AGAIN = 5
_POLL_SECONDS = 0.1

_ERRORS: dict[grpc.StatusCode, type[errors.MeshwrightError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.ConfigError,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Exhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request did: for each object, in order, what happened to it."""

    revision: int
    results: tuple[tuple[Key, str], ...]  # created, changed, unchanged, deleted
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One type of resources at one proxy."""

    type_url: str
    sent_version: str
    acknowledged_version: str
    error: str


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """One connected proxy."""

    node_id: str
    spiffe_id: str
    acknowledged_revision: int
    manager: str
    types: tuple[TypeStatus, ...]

    @property
    def workload(self) -> str:
        """The workload's name with its namespace: ``shop-0.default``."""
        parts = self.node_id.split("~")
        return parts[2] if len(parts) > 2 else self.node_id

    @property
    def error(self) -> str:
        """The reason of what the proxy refuses at the moment; empty when it refuses nothing."""
        return "; ".join(f"{state.type_url.rpartition('.')[2]}: {state.error}" for state in self.types if state.error)


@dataclass(frozen=True, slots=True)
class Status:
    """The newest revision and all connected proxies; `unreachable` names replicas whose proxies are missing."""

    revision: int
    proxies: tuple[ProxyStatus, ...]
    unreachable: tuple[str, ...] = field(default=())

    def behind(self, revision: int) -> tuple[ProxyStatus, ...]:
        """Return the proxies that haven't acknowledged `revision`."""
        return tuple(proxy for proxy in self.proxies if proxy.acknowledged_revision < revision)


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
        self, objects: Sequence[Object], *, dry_run: bool = False, accept_unvalidated: bool = False
    ) -> Outcome:
        """Put objects, all or none; raise Refused with every fault, each with its object's `source`."""
        request = config_pb2.ApplyRequest(
            objects=[config_pb2.Object(key=_key_message(found.key), json=found.json) for found in objects],
            dry_run=dry_run,
            accept_unvalidated=accept_unvalidated,
        )
        answer = await self._call(self._stub.Apply(request, timeout=self._timeout))
        return _outcome(answer, [found.source for found in objects])

    async def delete(
        self,
        keys: Sequence[Key],
        *,
        ignore_missing: bool = False,
        dry_run: bool = False,
        accept_unvalidated: bool = False,
        sources: Sequence[str] = (),
    ) -> Outcome:
        """Delete objects, all or none; `sources` are for faults, one for each key."""
        request = config_pb2.DeleteRequest(
            keys=map(_key_message, keys),
            ignore_missing=ignore_missing,
            dry_run=dry_run,
            accept_unvalidated=accept_unvalidated,
        )
        return _outcome(await self._call(self._stub.Delete(request, timeout=self._timeout)), sources)

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

    async def status(self) -> Status:
        """Return what each connected proxy has acknowledged."""
        answer = await self._call(self._stub.ProxyStatus(config_pb2.ProxyStatusRequest(), timeout=self._timeout))
        return Status(answer.revision, tuple(map(_proxy, answer.proxies)), tuple(answer.unreachable))

    async def wait(self, revision: int, *, timeout: float, proxies: int = 0) -> Status:
        """Return once at least `proxies` are connected and all have acknowledged `revision`.

        Raises DeadlineExceeded after `timeout` seconds, naming those that are behind and what they refuse.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            status = await self.status()
            behind = status.behind(revision)
            enough = len(status.proxies) >= proxies and not status.unreachable
            if status.revision >= revision and enough and not behind:
                return status
            if loop.time() + _POLL_SECONDS > end:
                raise errors.DeadlineExceeded(_late(status, behind, revision, timeout, proxies))
            await asyncio.sleep(_POLL_SECONDS)

    async def _call(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            details = error.details() or error.code().name
            kind = _ERRORS.get(error.code(), errors.Unavailable)
            if kind is errors.Unavailable:
                details = f"the manager at {self._server} doesn't answer: {details}"
            raise kind(details) from error


def _late(status: Status, behind: Sequence[ProxyStatus], revision: int, timeout: float, proxies: int) -> str:
    text = f"after {timeout:g} s revision {revision} isn't acknowledged"
    if status.revision < revision:
        text += f": the manager's newest is {status.revision}"
    if len(status.proxies) < proxies:
        text += f": {len(status.proxies)} of {proxies} proxies are connected"
    for proxy in behind[:5]:
        text += f"; {proxy.workload} is at {proxy.acknowledged_revision}" + (f" ({proxy.error})" if proxy.error else "")
    if status.unreachable:
        text += f"; replicas that don't answer: {', '.join(status.unreachable)}"
    return text


def _key_message(key: Key) -> Any:
    return config_pb2.Key(api_version=key.api_version, kind=key.kind, namespace=key.namespace, name=key.name)


def _key(message: Any) -> Key:
    return Key(message.api_version, message.kind, message.namespace, message.name)


def _outcome(answer: Any, sources: Sequence[str]) -> Outcome:
    if answer.violations:
        raise Refused(_problems(answer.violations, sources))
    actions = config_pb2.ApplyResponse.Action
    results = tuple((_key(result.key), actions.Name(result.action).lower()) for result in answer.results)
    return Outcome(answer.revision, results, _problems(answer.warnings, sources))


def _problems(violations: Iterable[Any], sources: Sequence[str]) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            _key(violation.key),
            violation.field,
            violation.message,
            sources[violation.index] if 0 <= violation.index < len(sources) else "",
        )
        for violation in violations
    )


def _proxy(message: Any) -> ProxyStatus:
    return ProxyStatus(
        message.node_id,
        message.spiffe_id,
        message.acknowledged_revision,
        message.manager,
        tuple(
            TypeStatus(state.type_url, state.sent_version, state.acknowledged_version, state.error)
            for state in message.types
        ),
    )
