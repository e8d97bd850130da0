"""Calls the next hop: the candidates in order until one takes the connection, and later the one that took it.

A call that ended without an answer may still have built something behind it. So the connection counts as the next hop's
from the moment it is sent, and undo closes it there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from meshwright.core import errors
from meshwright.nsm import mechanism
from meshwright.nsm.chain import Exchange, NextHop, Proceed
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.errors import InvalidMechanism, NoForwarder
from meshwright.nsm.wire import Connection, Mechanism, NetworkServiceRequest

Resolve = Callable[[str, float], Awaitable[NextHop]]
"""Returns the hop of a name, waiting for it to come (back) for some seconds; raises Unavailable."""

_RESERVE = 0.9  # of the time left goes to the next hop, the rest is for the answer or another candidate
_UNANSWERED = (errors.Unavailable, errors.DeadlineExceeded)


class Forward:
    """`resolve` finds a hop by the name that a connection remembers."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Ask or close at the next hop, and go on with its answer."""
        if exchange.closing:
            await self._close(exchange)
            return await proceed(request, exchange)
        answer = await self._ask(request, exchange)
        onward = NetworkServiceRequest(connection=answer, mechanism_preferences=request.mechanism_preferences)
        return await proceed(onward, exchange)

    async def _ask(self, request: NetworkServiceRequest, exchange: Exchange) -> Connection:
        state = exchange.state
        failures: list[errors.MeshwrightError] = []
        for position, hop in enumerate(exchange.next_hops):
            left = exchange.remaining() * _RESERVE
            share = left / (len(exchange.next_hops) - position)
            try:
                return await self._ask_one(hop, request, exchange, share)
            except _UNANSWERED as failure:
                failures.append(failure)
                if state.accepted is not None:
                    break  # a refresh doesn't move by itself
                await self._close(exchange)
        if len(failures) == 1:
            raise failures[0]
        reasons = "; ".join(map(str, failures)) or "there is none"
        raise NoForwarder(f"no next hop took the connection: {reasons}")

    async def _ask_one(
        self, hop: NextHop, request: NetworkServiceRequest, exchange: Exchange, timeout: float
    ) -> Connection:
        state = exchange.state
        before = (state.downstream, state.next_hop)
        sent = Connection()
        sent.CopyFrom(request.connection)
        state.downstream, state.next_hop = sent, hop.name
        try:
            answer, descriptor = await hop.request(request, timeout=timeout, descriptors=_named(request, exchange))
        except _UNANSWERED:
            if before[0] is not None:
                state.downstream, state.next_hop = before
            raise
        except errors.MeshwrightError:  # it answered no: there is nothing behind it
            state.downstream, state.next_hop = before
            raise
        state.downstream = answer
        _pass_back(request, answer, descriptor, exchange)
        return answer

    async def _close(self, exchange: Exchange) -> None:
        state = exchange.state
        if state.downstream is None:
            return
        hop = await self._resolve(state.next_hop, exchange.remaining())
        descriptors = [held for held in state.held if held.inode == mechanism.inode(state.downstream.mechanism)]
        await hop.close(state.downstream, timeout=exchange.remaining(), descriptors=descriptors)
        state.downstream, state.next_hop = None, ""


def _pass_back(
    request: NetworkServiceRequest, answer: Connection, descriptor: Descriptor | None, exchange: Exchange
) -> None:
    """Keep the descriptor that the answer's mechanism names, and let it go on to the caller unless that one sent it."""
    held = exchange.state.held
    if descriptor is not None:
        descriptor = held.keep(descriptor)
    inode = mechanism.inode(answer.mechanism)
    if inode is None or inode in {mechanism.inode(wish) for wish in _wishes(request)}:
        return
    descriptor = held.get(inode)
    if descriptor is None:
        raise InvalidMechanism(
            f"{exchange.state.next_hop} named {inode.url} without passing its descriptor", field="mechanism"
        )
    exchange.answer.append(descriptor)


def _wishes(request: NetworkServiceRequest) -> tuple[Mechanism, ...]:
    return (request.connection.mechanism, *request.mechanism_preferences)


def _named(request: NetworkServiceRequest, exchange: Exchange) -> list[Descriptor]:
    inodes = {mechanism.inode(wish) for wish in _wishes(request)}
    return [held for held in exchange.state.held if held.inode in inodes]
