"""Takes the descriptors that a request names in its mechanisms and keeps them with the connection."""

from __future__ import annotations

import contextlib

from meshwright.core import errors
from meshwright.nsm import descriptors, mechanism
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.wire import Connection, NetworkServiceRequest

_WAIT_SECONDS = 5.0  # a descriptor travels in front of the message: it is here, or it wasn't sent


async def take_descriptors(request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
    """Take, check, go on, and drop what the connection no longer names."""
    held = exchange.state.held
    asked = set()
    for wish in (request.connection.mechanism, *request.mechanism_preferences):
        inode = mechanism.inode(wish)
        if inode is None or inode in asked:
            continue
        asked.add(inode)
        if exchange.caller is None:
            continue
        if held.get(inode) is not None or exchange.closing:
            # It may have come again, or not: a refresh need not, and a Close may find the namespace gone.
            with contextlib.suppress(errors.MeshwrightError):
                held.keep(await exchange.receive(inode, 0.0))
        else:
            held.keep(await exchange.receive(inode, min(_WAIT_SECONDS, exchange.remaining())))
        descriptor = held.get(inode)
        if wish.type == mechanism.KERNEL and descriptor is not None:
            descriptors.check_network_namespace(descriptor)
    answer = await proceed(request, exchange)
    if not exchange.closing:
        answered = mechanism.inode(answer.mechanism)
        held.only(asked | ({answered} if answered else set()) | _downstream(exchange))
    return answer


def _downstream(exchange: Exchange) -> set[descriptors.Inode]:
    downstream = exchange.state.downstream
    inode = mechanism.inode(downstream.mechanism) if downstream is not None else None
    return {inode} if inode else set()
