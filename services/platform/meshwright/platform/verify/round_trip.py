"""One object's way: the API server takes it, mixer judges it, the manager distributes it and says so in its status."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from meshwright.core import errors, kubernetes
from meshwright.core.identity import IdentitySource
from meshwright.manager.client import Client

_API_VERSION = "config.istio.io/v1alpha2"
_GOOD = {"compiledAdapter": "denier", "params": {"status": {"code": 7, "message": "not for meshwright-verify"}}}
_BAD = {"params": {"status": {"code": "seven"}}}
_POLL_SECONDS = 0.2

T = TypeVar("T")


async def run(api: kubernetes.Api, manager: str, identity: IdentitySource, trust_domain: str, namespace: str) -> None:
    """Walk the whole way, there and back, with a handler that no rule uses; leave nothing behind.

    `manager` is host:port of its configuration API. The caller sets the deadline.
    """
    async with Client(manager, identity, trust_domain=trust_domain) as client:
        handler = _Handler(api, client, namespace, f"meshwright-verify-{secrets.token_hex(4)}")
        await handler.create()
        try:
            await _until("Accepted is True in its status", handler.accepted, lambda found: found == "True")
            await _until("the manager distributes it", handler.distributed, bool)
            await handler.spoil()  # what mixer refuses stays out, and its author is told
            await _until("Accepted is False after a mistake", handler.accepted, lambda found: found == "False")
        finally:
            with contextlib.suppress(errors.NotFound):
                await api.delete(handler.path)
        await _until("the manager has forgotten it", handler.distributed, lambda found: not found)


@dataclass(frozen=True, slots=True)
class _Handler:
    api: kubernetes.Api
    client: Client
    namespace: str
    name: str

    @property
    def collection(self) -> str:
        return f"/apis/{_API_VERSION}/namespaces/{self.namespace}/handlers"

    @property
    def path(self) -> str:
        return f"{self.collection}/{self.name}"

    async def create(self) -> None:
        metadata = {"name": self.name, "namespace": self.namespace}
        document = {"apiVersion": _API_VERSION, "kind": "handler", "metadata": metadata, "spec": _GOOD}
        await self.api.create(self.collection, document)

    async def spoil(self) -> None:
        await self.api.merge(self.path, {"spec": _BAD})

    async def accepted(self) -> str:
        """Return what the status says of the newest version."""
        found: dict[str, Any] = await self.api.get(self.path)
        for condition in found.get("status", {}).get("conditions", ()):
            if (condition["type"], condition.get("observedGeneration")) == (
                "Accepted",
                found["metadata"]["generation"],
            ):
                return str(condition["status"])
        return "nothing"

    async def distributed(self) -> bool:
        objects, _revision = await self.client.list("handler", self.name, self.namespace)
        return bool(objects)


async def _until(what: str, ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> None:
    """Wait for it; when the check's deadline ends the wait, say what wasn't so."""
    found: T | None = None
    try:
        while True:
            found = await ask()
            if holds(found):
                return
            await asyncio.sleep(_POLL_SECONDS)
    except asyncio.CancelledError:
        print(f"        waited until {what}; last seen: {found}", flush=True)
        raise
