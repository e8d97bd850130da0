"""Check 5: a network service between two namespaces, by policy, over descriptors only, with nothing left behind."""

from __future__ import annotations

import statistics
import time
from contextlib import AsyncExitStack

from meshwright.core import errors
from meshwright.core.identity import workload_id
from meshwright.nsm.client import Client
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.endpoint import Endpoint
from meshwright.platform.demo import enclaves
from meshwright.platform.demo.enclaves import Enclave
from meshwright.platform.demo.harness import Failure, Measurements, Skip
from meshwright.platform.demo.session import Session
from meshwright.platform.demo.workload_api import WorkloadIdentity
from meshwright.platform.demo.workloads import NAMESPACE
from meshwright.platform.up.part import State

SERVICE, INTERFACE = "demo-vl", "nsm-1"
URL = f"kernel://{SERVICE}/{INTERFACE}"
_PREFIX = "172.16.7.0/24"
_REASON = "mallory may not have this private line"


async def run(session: Session) -> Measurements:
    """Connect a client to an endpoint, ping, try a forbidden client, close, and look for remains."""
    layout, trust_domain = session.platform.layout, session.platform.settings.trust_domain
    status = session.platform.supervisor.status("forwarder")
    if status.state is not State.HEALTHY or status.pid is None:
        raise Skip(f"the forwarder can't serve here: {status.reason}")
    forwarder = status.pid
    async with AsyncExitStack() as stack:
        try:
            near, far, other = [await stack.enter_async_context(enclaves.made(forwarder)) for _ in range(3)]
        except errors.Unavailable as error:
            raise Skip(
                f"this user may not make network namespaces ({error}); it needs CAP_SYS_ADMIN, or unprivileged user "
                "namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, AppArmor's "
                "apparmor_restrict_unprivileged_userns)"
            ) from error
        identity = await stack.enter_async_context(
            WorkloadIdentity(layout.socket("agent"), workload_id(trust_domain, NAMESPACE, "line"))
        )
        manager = f"unix:{layout.socket('nsmgr')}"
        endpoint = Endpoint(
            "demo-vl-1", services=[SERVICE], prefix=_PREFIX, listen=f"unix:{layout.socket('demo-vl')}",
            connect_to=manager, identity=identity, namespace=_descriptor(stack, far),
        )  # fmt: skip
        await stack.enter_async_context(endpoint)
        before = await _interfaces(near, far, other)
        allowed = await stack.enter_async_context(
            Client("customer", connect_to=manager, identity=session.customer.identity)
        )
        began = time.monotonic()
        attachment = await allowed.connect(URL, namespace=_descriptor(stack, near))
        connected = time.monotonic() - began
        address = attachment.endpoint_addresses[0].partition("/")[0]
        times = await near.ping(address)
        during = await _interfaces(near, far, other)
        refusal = await _refused(session, stack, manager, other)
        began = time.monotonic()
        await attachment.close()
        closed = time.monotonic() - began
        after = await _interfaces(near, far, other)
        measured = {
            "connected_after_seconds": round(connected, 3),
            "client_interface": f"{attachment.interface} {', '.join(attachment.addresses)}",
            "endpoint_address": address,
            "pings": len(times),
            "round_trip_milliseconds": round(statistics.median(times), 3),
            "second_client": refusal,
            "interfaces_while_connected": during,
            "closed_after_seconds": round(closed, 3),
            "interfaces_after_close": after,
        }
        if INTERFACE not in during["client"] or len(during["endpoint"]) != len(before["endpoint"]) + 1:
            raise Failure("the veth pair isn't in both namespaces", measured)
        if during["denied client"] != before["denied client"]:
            raise Failure("the denied client got an interface", measured)
        if after != before:
            raise Failure("something was left behind after close", measured)
        return measured


async def _refused(session: Session, stack: AsyncExitStack, manager: str, enclave: Enclave) -> str:
    client = await stack.enter_async_context(Client("mallory", connect_to=manager, identity=session.mallory.identity))
    try:
        await client.connect(URL, namespace=_descriptor(stack, enclave))
    except errors.Forbidden as error:
        if _REASON not in str(error):
            raise Failure(f"the second client was denied without the rule's reason: {error}") from error
        return f"denied: {_REASON}"
    raise Failure("the second client got the service although a rule denies it")


def _descriptor(stack: AsyncExitStack, enclave: Enclave) -> Descriptor:
    return stack.enter_context(Descriptor(enclave.open()))


async def _interfaces(near: Enclave, far: Enclave, other: Enclave) -> dict[str, list[str]]:
    return {
        "client": await near.interfaces(),
        "endpoint": await far.interfaces(),
        "denied client": await other.interfaces(),
    }
