"""What the checks work with: the running platform, the application, the two callers, and the platform's own APIs."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meshwright.api.collector.v1 import collector_pb2_grpc
from meshwright.core import errors
from meshwright.core.grpc import Channel
from meshwright.core.identity import part_id, workload_id
from meshwright.manager.answers import Status
from meshwright.manager.client import Client
from meshwright.platform.demo import client as http
from meshwright.platform.demo import command_line, objects
from meshwright.platform.demo.application import Application
from meshwright.platform.demo.client import Answer
from meshwright.platform.demo.workload_api import WorkloadIdentity
from meshwright.platform.demo.workloads import NAMESPACE, Workload
from meshwright.platform.up.app import Platform
from meshwright.platform.up.ports import HOST

CUSTOMER, MALLORY = "customer", "mallory"


@dataclass(frozen=True, slots=True)
class Caller:
    """A workload that calls shop from outside: this process, with one of its identities."""

    identity: WorkloadIdentity
    shop: http.Client


@dataclass(slots=True)
class Session:
    """One run of the demo."""

    platform: Platform
    application: Application
    customer: Caller
    mallory: Caller
    manager: Client
    collector: collector_pb2_grpc.CollectorQueryStub
    hashes: dict[str, set[str]] = field(default_factory=dict)  # of client certificates, by who was called

    @property
    def folder(self) -> Path:
        """Where the filled documents are."""
        return self.platform.layout.data / "demo"

    def workload(self, name: str) -> Workload:
        """One workload of the application."""
        return next(workload for workload in self.application.workloads if workload.name == name)

    async def shop(self) -> Answer:
        """Ask the shop as the customer, through the whole chain."""
        answer = await self.get("/")
        self._note(answer)
        return answer

    async def get(self, path: str, caller: Caller | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask the shop for `path`, as the customer when nobody else is named."""
        # Without a trace of its own a request isn't traced: a thousand traces would only push out the one to look at.
        untraced = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"}
        return await (caller or self.customer).shop.get("shop", path, untraced | dict(headers or {}))

    def version(self, answer: Answer) -> str:
        """Which version of catalog took part in an answer."""
        return str(json.loads(answer.body)["upstream"]["version"])

    async def apply(self, name: str, **values: object) -> int:
        """Fill a document and apply it as `meshwright apply -f` does; return the revision."""
        return await self.apply_file(objects.fill(self.folder, name, **values))

    async def apply_file(self, path: Path) -> int:
        """Apply a file with `meshwright apply -f`; return the revision."""
        answer = await command_line.run_json(self.platform, "apply", "-f", str(path), "-o", "json")
        return int(answer["revision"])

    async def acknowledged(self, revision: int, seconds: float = 20.0) -> Status:
        """Wait until every sidecar of the application has acknowledged `revision`; raise when one refuses it."""
        status = await self.manager.wait(revision, timeout=seconds, proxies=len(self.application.workloads))
        for proxy in status.proxies:
            if proxy.error:
                raise errors.Conflict(f"{proxy.workload} refused revision {revision}: {proxy.error}")
        return status

    def _note(self, answer: Answer) -> None:
        """Remember by which certificates each service of the chain was called (XFCC, RFC-less but Envoy's format)."""
        if answer.status != 200:
            return
        hop = json.loads(answer.body)
        while hop:
            fields = xfcc(hop["caller"])
            if "Hash" in fields:
                self.hashes.setdefault(hop["service"], set()).add(fields["Hash"])
            hop = hop.get("upstream")


def xfcc(header: str) -> dict[str, str]:
    """Return the fields of an x-forwarded-client-cert header's last element, the one that this hop's sidecar wrote."""
    last = header.rsplit(",", 1)[-1]
    pairs = (part.partition("=") for part in last.split(";") if part)
    return {name: value.strip('"') for name, _, value in pairs}


@contextlib.asynccontextmanager
async def opened(platform: Platform, application: Application) -> AsyncIterator[Session]:
    """Take the callers' identities and open the platform's APIs."""
    trust_domain = platform.settings.trust_domain
    shop = next(workload for workload in application.workloads if workload.app == "shop")
    async with contextlib.AsyncExitStack() as stack:

        async def caller(name: str) -> Caller:
            source = WorkloadIdentity(platform.layout.socket("agent"), workload_id(trust_domain, NAMESPACE, name))
            await stack.enter_async_context(source)
            client = http.Client(HOST, shop.port.number, source, shop.spiffe_id(trust_domain))
            stack.callback(client.close)
            return Caller(source, client)

        async def channel(part: str, address: str) -> Channel:
            return await stack.enter_async_context(Channel(address, platform.admin, peer=part_id(trust_domain, part)))

        ports = platform.ports
        yield Session(
            platform,
            application,
            await caller(CUSTOMER),
            await caller(MALLORY),
            await stack.enter_async_context(Client(ports.manager.address, platform.admin, trust_domain=trust_domain)),
            collector_pb2_grpc.CollectorQueryStub(await channel("collector", ports.collector.address)),
        )
