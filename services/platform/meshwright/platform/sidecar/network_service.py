"""Network services of a pod: a client that keeps the pod connected, and an example endpoint that a pod offers.

One decision to know: a pod that asks for a network service doesn't start without it. The client runs as a native
sidecar whose start-up probe looks for its ready file, so the application finds its interfaces; when policy takes one
away the client ends, the kubelet starts it again, and it asks again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import structlog

from meshwright.core import errors, logs, process
from meshwright.nsm.client import Attachment, Client
from meshwright.nsm.endpoint import Endpoint
from meshwright.platform.demo.workload_api import WorkloadIdentity

_PATIENCE_SECONDS = 120.0  # for the first identity, and for a service that nobody offers yet
_RETRY_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_RETRIED = (errors.NotFound, errors.Unavailable, errors.DeadlineExceeded)

_log = structlog.get_logger(__name__)


def connect(options: argparse.Namespace) -> int:
    """Connect the process's network namespace to the services, until stopped."""
    logs.setup("network-service-client", "info")
    return process.run("meshwright-sidecar connect", lambda stop: _connected(options, stop))


def offer(options: argparse.Namespace) -> int:
    """Offer a network service from the process's network namespace, until stopped."""
    logs.setup("network-service-endpoint", "info")
    return process.run("meshwright-sidecar offer", lambda stop: _offering(options, stop))


async def _connected(options: argparse.Namespace, stop: asyncio.Event) -> None:
    async with contextlib.AsyncExitStack() as stack:
        identity = await stack.enter_async_context(_identity(options))
        client = await stack.enter_async_context(Client(options.name, connect_to=options.nsmgr, identity=identity))
        attachments: list[Attachment] = []
        try:
            for number, url in enumerate(options.services):
                attachment = await _attach(client, url, f"{options.name}-{number}", stop)
                if attachment is None:
                    return
                attachments.append(attachment)
                _log.info("network_service_connected", url=url, interface=attachment.interface,
                          addresses=attachment.addresses, endpoint=attachment.endpoint_addresses)  # fmt: skip
            with _ready(options.ready_file):
                await _until_lost(attachments, stop)
        finally:
            for attachment in attachments:
                with contextlib.suppress(errors.MeshwrightError):  # what isn't closed ends with its tokens
                    await attachment.close()


async def _attach(client: Client, url: str, identifier: str, stop: asyncio.Event) -> Attachment | None:
    """Ask until there is an answer; None when stopped meanwhile. A refusal by policy is raised."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _PATIENCE_SECONDS
    while not stop.is_set():
        try:
            return await client.connect(url, identifier=identifier)
        except _RETRIED as error:
            if loop.time() > end:
                raise
            _log.info("network_service_awaited", url=url, reason=str(error))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _RETRY_SECONDS)
    return None


async def _until_lost(attachments: list[Attachment], stop: asyncio.Event) -> None:
    while not stop.is_set():
        for attachment in attachments:
            if attachment.lost:
                raise errors.Unavailable(f"{attachment.interface} isn't kept any more: {attachment.lost}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)


async def _offering(options: argparse.Namespace, stop: asyncio.Event) -> None:
    async with contextlib.AsyncExitStack() as stack:
        identity = await stack.enter_async_context(_identity(options))
        socket = options.sockets / f"{options.name}.sock"
        endpoint = Endpoint(
            options.name,
            services=[options.service],
            prefix=options.prefix,
            listen=f"unix:{socket}",
            connect_to=options.nsmgr,
            identity=identity,
            socket_mode=0o666,  # the node's manager runs as another user
        )
        await stack.enter_async_context(endpoint)
        stack.enter_context(_ready(options.ready_file))
        _log.info("network_service_offered", service=options.service, prefix=options.prefix)
        await stop.wait()


def _identity(options: argparse.Namespace) -> WorkloadIdentity:
    return WorkloadIdentity(Path(options.agent_socket), patience=_PATIENCE_SECONDS)


@contextlib.contextmanager
def _ready(file: Path | None) -> Iterator[None]:
    if file:
        file.write_text("ready\n")
    try:
        yield
    finally:
        if file:
            file.unlink(missing_ok=True)
