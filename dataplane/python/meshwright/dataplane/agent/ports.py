"""What every connecting element needs: who is on the other side of a mechanism, and steps of the Rust forwarder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar, TypeVarTuple

from meshwright.core import errors
from meshwright.dataplane.forwarder import ForwarderError
from meshwright.nsm import mechanism
from meshwright.nsm.chain import Exchange
from meshwright.nsm.descriptors import Descriptor, Inode
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Mechanism, Route

Answer = TypeVar("Answer")
Arguments = TypeVarTuple("Arguments")


class CrossConnectFailed(errors.Unavailable):
    """The kernel refused a step; the message names it and the remedy."""


async def run(function: Callable[[*Arguments], Answer], *arguments: *Arguments) -> Answer:
    """Run a step on a thread: the kernel takes some milliseconds."""
    try:
        return await asyncio.to_thread(function, *arguments)
    except KeyError as error:
        raise errors.NotFound(f"no cross-connect {error}") from error
    except ValueError as error:
        raise InvalidMechanism(str(error), field="mechanism") from error
    except ForwarderError as error:
        raise CrossConnectFailed(str(error)) from error


def inode_of(wish: Mechanism, whose: str) -> Inode:
    """Return the network namespace that `whose` mechanism names."""
    inode = mechanism.inode(wish)
    if inode is None:
        raise InvalidMechanism(
            f"{whose} named no network namespace",
            field="mechanism.parameters[inodeURL]",
            remedy="pass the namespace's descriptor beside the message",
        )
    return inode


def descriptor_of(of: Mechanism, exchange: Exchange, whose: str) -> Descriptor:
    """Return the descriptor of that namespace, which came beside a message."""
    inode = inode_of(of, whose)
    held = exchange.state.held.get(inode)
    if held is None:
        raise InvalidMechanism(f"no descriptor of {inode.url} was passed", field="mechanism.parameters[inodeURL]")
    return held


def routes(of: Iterable[Route]) -> list[tuple[str, str | None]]:
    """Return routes as a port has them."""
    return [(route.prefix, route.nextHop or None) for route in of]
