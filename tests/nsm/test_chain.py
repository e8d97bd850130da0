"""Chains of hops in one process: identity along the path, one call at a time, undo, takeover and expiry.

The hops here are the real elements with real tokens; only the wire between them is a function call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from meshwright.core import errors
from meshwright.core.clock import ManualClock
from meshwright.core.identity import StaticIdentity, X509Identity
from meshwright.nsm import descriptors, mechanism, path, tokens, wire
from meshwright.nsm.chain import Caller, Chain, Element, Exchange, Operation, Proceed
from meshwright.nsm.connections import Connections
from meshwright.nsm.descriptors import Descriptor, Inode
from meshwright.nsm.elements.begin import Begin
from meshwright.nsm.elements.forward import Forward
from meshwright.nsm.elements.paths import UpdatePath
from meshwright.nsm.elements.serve import Serve
from meshwright.nsm.elements.take import take_descriptors
from meshwright.nsm.elements.token import Tokens
from meshwright.nsm.errors import PolicyDenied
from meshwright.nsm.expiry import Expiry
from meshwright.nsm.ipam import PointToPoint
from meshwright.nsm.monitor import Monitor
from meshwright.nsm.offers import KernelOffer
from meshwright.nsm.wire import Connection, NetworkServiceRequest
from pki import Pki

LIFETIME = timedelta(minutes=10)


class Hop:
    """A chain with its identity, callable by another one as a next hop."""

    def __init__(self, name: str, svid: X509Identity, clock: ManualClock, *elements: Element) -> None:
        self.name, self.svid, self.clock = name, svid, clock
        self.connections = Connections(limit=3)
        self.monitor = Monitor()
        self.chain = Chain(
            UpdatePath(name, self.connections),
            Tokens(StaticIdentity(svid), lifetime=LIFETIME),
            Begin(self.connections),
            self.monitor,
            take_descriptors,
            *elements,
        )
        self.calls: list[Operation] = []

    def called_by(self, caller: X509Identity, operation: Operation, sent: list[Descriptor]) -> Exchange:
        """An exchange as the server would make it for a call by `caller`."""
        self.calls.append(operation)

        async def receive(inode: Inode, timeout: float) -> Descriptor:
            for descriptor in sent:
                if descriptor.inode == inode:
                    return descriptor.duplicate()
            raise errors.ConfigError("not sent")

        return Exchange(
            operation,
            self.clock,
            deadline=self.clock.monotonic() + 10,
            caller=Caller(caller.spiffe_id, tokens.public_key(caller.cert_chain_pem)),
            token=tokens.issue(caller, self.svid.spiffe_id, self.clock.now() + LIFETIME).text,
            receive=receive,
        )

    def as_next_hop_of(self, caller: X509Identity) -> NextHop:
        return NextHop(self, caller)


class NextHop:
    """How one hop sees another."""

    def __init__(self, hop: Hop, caller: X509Identity) -> None:
        self._hop, self._caller, self.name = hop, caller, hop.name

    async def request(
        self, request: NetworkServiceRequest, *, timeout: float, descriptors: list[Descriptor]
    ) -> tuple[Connection, Descriptor | None]:
        exchange = self._hop.called_by(self._caller, Operation.REQUEST, descriptors)
        sent = NetworkServiceRequest()
        sent.CopyFrom(request)
        answer = await self._hop.chain(sent, exchange)
        return answer, (exchange.answer[0].duplicate() if exchange.answer else None)

    async def close(self, connection: Connection, *, timeout: float, descriptors: list[Descriptor]) -> None:
        exchange = self._hop.called_by(self._caller, Operation.CLOSE, descriptors)
        sent = Connection()
        sent.CopyFrom(connection)
        await self._hop.chain(NetworkServiceRequest(connection=sent), exchange)


class Mesh:
    """client → manager → endpoint."""

    def __init__(self, pki: Pki, *between: Element) -> None:
        self.clock = ManualClock(pki.certificate.not_valid_before_utc + timedelta(minutes=1))
        self.client = pki.workload("client")
        self.addresses = PointToPoint("172.16.0.0/30")
        self.namespace = descriptors.own_network_namespace()
        self.endpoint = Hop(
            "endpoint",
            pki.workload("endpoint"),
            self.clock,
            Serve("endpoint", self.addresses, KernelOffer(self.namespace)),
        )
        manager = pki.part("nsmgr")
        self.next = self.endpoint.as_next_hop_of(manager)

        async def resolve(name: str, timeout: float) -> NextHop:
            return self.next

        async def choose(request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
            exchange.next_hops = [self.next]
            return await proceed(request, exchange)

        self.manager = Hop("nsmgr", manager, self.clock, *between, choose, Forward(resolve))

    async def request(self, connection: Connection | None = None, caller: X509Identity | None = None) -> Connection:
        connection = connection or new_connection()
        hop = self.manager.as_next_hop_of(caller or self.client)
        with descriptors.own_network_namespace() as own:
            request = NetworkServiceRequest(
                connection=connection, mechanism_preferences=[mechanism.kernel(interface="nsm-1")]
            )
            answer, descriptor = await hop.request(request, timeout=5, descriptors=[own])
        if descriptor:
            descriptor.close()
        return answer

    async def close(self, connection: Connection, caller: X509Identity | None = None) -> None:
        await self.manager.as_next_hop_of(caller or self.client).close(connection, timeout=5, descriptors=[])

    def nothing_is_left(self) -> bool:
        return not len(self.manager.connections) and not len(self.endpoint.connections) and not self.addresses._used


def new_connection(identifier: str = "client-0") -> Connection:
    connection = Connection(network_service="vpn")
    path.start(connection, "client", identifier)
    return connection


async def test_a_connection_is_built_refreshed_and_closed(pki: Pki) -> None:
    """Every hop is in the path with its own token; a refresh keeps ids and addresses; after Close nothing is left."""
    mesh = Mesh(pki)
    first = await mesh.request()
    names = [segment.name for segment in first.path.path_segments]
    assert names == ["client", "nsmgr", "endpoint"]
    assert all(segment.HasField("expires") for segment in first.path.path_segments)
    assert (first.path.index, first.id) == (0, "client-0")
    assert [tokens.parse(segment.token).subject for segment in first.path.path_segments] == [
        mesh.client.spiffe_id, mesh.manager.svid.spiffe_id, mesh.endpoint.svid.spiffe_id,
    ]  # fmt: skip
    again = await mesh.request(first)
    assert [segment.id for segment in again.path.path_segments] == [segment.id for segment in first.path.path_segments]
    assert again.context == first.context
    await mesh.close(again)
    assert mesh.nothing_is_left()


async def test_a_client_that_lost_its_path_takes_up_its_connection(pki: Pki) -> None:
    """The original makes a second connection, and such a Close does nothing silently."""
    mesh = Mesh(pki)
    first = await mesh.request()
    again = await mesh.request(new_connection())
    assert again.path.path_segments[1].id == first.path.path_segments[1].id
    assert again.context == first.context
    await mesh.close(new_connection())
    assert mesh.nothing_is_left()


async def test_nobody_else_refreshes_or_closes_it(pki: Pki) -> None:
    """The original lets any member close or take over any connection."""
    mesh = Mesh(pki)
    connection = await mesh.request()
    other = pki.workload("other")
    for attempt in (mesh.request, mesh.close):
        with pytest.raises(errors.Forbidden, match="belongs to .*/sa/client, not to .*/sa/other"):
            await attempt(connection, other)
    assert len(mesh.endpoint.connections) == 1
    await mesh.close(connection)
    assert mesh.nothing_is_left()


async def test_close_of_what_is_not_known_succeeds(pki: Pki) -> None:
    await Mesh(pki).close(new_connection())


async def test_a_failure_on_the_way_out_is_undone_everywhere(pki: Pki) -> None:
    """What the next hop had built already is closed, and the caller gets the first reason."""

    async def fails_after(request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        answer = await proceed(request, exchange)
        if not exchange.closing:
            raise errors.Unavailable("the cross-connect failed")
        return answer

    mesh = Mesh(pki, fails_after)
    with pytest.raises(errors.Unavailable, match="cross-connect"):
        await mesh.request()
    assert mesh.endpoint.calls == [Operation.REQUEST, Operation.CLOSE]
    assert mesh.nothing_is_left()


async def test_an_answer_that_never_came_is_undone(pki: Pki) -> None:
    """The next hop built it, but the answer was lost: the connection is closed there by what was sent."""
    mesh = Mesh(pki)
    reached = mesh.next.request

    async def loses_the_answer(*args, **named):
        await reached(*args, **named)
        raise errors.DeadlineExceeded("no answer")

    mesh.next.request = loses_the_answer
    with pytest.raises(errors.DeadlineExceeded):
        await mesh.request()
    assert mesh.nothing_is_left()


async def test_a_caller_that_hangs_up_leaves_nothing(pki: Pki) -> None:
    mesh = Mesh(pki)
    reached, arrived = mesh.next.request, asyncio.Event()

    async def hangs(*args, **named):
        await reached(*args, **named)
        arrived.set()
        await asyncio.Event().wait()

    mesh.next.request = hangs
    call = asyncio.create_task(mesh.request())
    await arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert mesh.nothing_is_left()


async def test_a_refresh_that_fails_leaves_the_connection(pki: Pki) -> None:
    """Only policy ends it."""
    failure: list[BaseException] = []

    async def may_fail(request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        if failure and not exchange.closing:
            raise failure[0]
        return await proceed(request, exchange)

    mesh = Mesh(pki, may_fail)
    connection = await mesh.request()
    failure.append(errors.Unavailable("mixer is away"))
    with pytest.raises(errors.Unavailable):
        await mesh.request(connection)
    assert len(mesh.endpoint.connections) == 1
    failure[0] = PolicyDenied("not any more")
    with pytest.raises(PolicyDenied):
        await mesh.request(connection)
    assert mesh.nothing_is_left()


async def test_calls_of_one_connection_wait_for_each_other(pki: Pki) -> None:
    """While one refresh is under way another waits; different connections don't."""
    running: list[str] = []
    gate = asyncio.Event()

    async def observe(request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        running.append(exchange.state.id)
        assert len(running) == len(set(running))
        await gate.wait()
        running.remove(exchange.state.id)
        return await proceed(request, exchange)

    mesh = Mesh(pki, observe)
    calls = [asyncio.create_task(mesh.request(new_connection(name))) for name in ("a", "a", "b")]
    while len(running) < 2:
        await asyncio.sleep(0)
    gate.set()
    one, same, other = await asyncio.gather(*calls)
    assert one.path.path_segments[1].id == same.path.path_segments[1].id != other.path.path_segments[1].id


async def test_the_limit_is_said(pki: Pki) -> None:
    mesh = Mesh(pki)
    mesh.addresses = PointToPoint("10.0.0.0/24")
    for number in range(2):
        await mesh.request(new_connection(f"client-{number}"))
    mesh.manager.connections._limit = 2
    with pytest.raises(errors.Exhausted, match="--max-connections"):
        await mesh.request(new_connection("client-9"))


@pytest.mark.parametrize("break_", ["subject", "audience", "expired", "forged earlier hop"])
async def test_a_call_without_a_right_token_is_refused(pki: Pki, break_: str) -> None:
    """Close included: the original closes for anybody without any token."""
    mesh = Mesh(pki)
    connection = await mesh.request()
    for operation in Operation:
        exchange = mesh.manager.called_by(mesh.client, operation, [])
        message = Connection()
        message.CopyFrom(connection)
        later = mesh.clock.now() + LIFETIME
        match break_:
            case "subject":
                exchange.token = tokens.issue(pki.workload("other"), mesh.manager.svid.spiffe_id, later).text
            case "audience":
                exchange.token = tokens.issue(mesh.client, mesh.endpoint.svid.spiffe_id, later).text
            case "expired":
                exchange.token = tokens.issue(mesh.client, mesh.manager.svid.spiffe_id, mesh.clock.now()).text
            case "forged earlier hop":
                if operation is Operation.CLOSE:
                    continue  # the caller's own token is what counts
                message.path.path_segments.insert(
                    0, wire.PathSegment(id="x", name="x", token=connection.path.path_segments[2].token)
                )
                message.path.index = 1
        with pytest.raises(errors.Forbidden):
            await mesh.manager.chain(NetworkServiceRequest(connection=message), exchange)
    assert len(mesh.endpoint.connections) == 1


async def test_what_is_not_refreshed_is_closed_by_the_signed_expiry(pki: Pki) -> None:
    """Expiry counts by the token, not by the deadline of a call; the Close reaches the endpoint."""
    mesh = Mesh(pki)
    await mesh.request()
    expiry = Expiry(mesh.manager.chain, mesh.manager.connections, mesh.clock)
    await mesh.clock.advance(LIFETIME.total_seconds() - 2)
    await expiry.sweep()
    assert len(mesh.endpoint.connections) == 1
    await mesh.clock.advance(3)
    await expiry.sweep()
    assert mesh.nothing_is_left()


async def test_an_expired_connection_is_tried_again_while_the_next_hop_is_away(pki: Pki) -> None:
    mesh = Mesh(pki)
    await mesh.request()
    reachable = mesh.next.close

    async def away(*args, **named):
        raise errors.Unavailable("away")

    mesh.next.close = away
    expiry = Expiry(mesh.manager.chain, mesh.manager.connections, mesh.clock)
    await mesh.clock.advance(LIFETIME.total_seconds() + 1)
    await expiry.sweep()
    assert len(mesh.manager.connections) == 1
    mesh.next.close = reachable
    await expiry.sweep()
    assert mesh.nothing_is_left()


async def test_descriptors_go_down_and_come_back(pki: Pki, open_descriptors: Callable[[], int]) -> None:
    """The client's namespace reaches the manager, the endpoint's comes back; Close leaves none open."""
    mesh = Mesh(pki)
    before = open_descriptors()
    connection = new_connection()
    hop = mesh.manager.as_next_hop_of(mesh.client)
    with descriptors.own_network_namespace() as own:
        wish = mechanism.kernel(own.inode, "nsm-1")
        for _ in range(3):
            request = NetworkServiceRequest(connection=connection)
            request.connection.mechanism.Clear()
            request.mechanism_preferences.append(wish)
            connection, _ = await hop.request(request, timeout=5, descriptors=[own])
    held = next(iter(mesh.manager.connections)).held
    assert own.inode in {descriptor.inode for descriptor in held}
    await mesh.close(connection)
    assert open_descriptors() == before


async def test_a_descriptor_that_was_not_sent_is_missed(pki: Pki) -> None:
    mesh = Mesh(pki)
    request = NetworkServiceRequest(
        connection=new_connection(), mechanism_preferences=[mechanism.kernel(Inode(4, 4), "nsm-1")]
    )
    with pytest.raises(errors.ConfigError, match="not sent"):
        await mesh.manager.as_next_hop_of(mesh.client).request(request, timeout=5, descriptors=[])
    assert mesh.nothing_is_left()


async def test_watchers_see_what_happens_and_only_their_own(pki: Pki) -> None:
    """First the state, then changes; one who is no hop of a connection sees none of it."""
    mesh = Mesh(pki)
    connection = await mesh.request()
    selector = wire.MonitorScopeSelector(path_segments=[wire.PathSegment(name="client")])
    mine = mesh.manager.monitor.watch(selector, mesh.client.spiffe_id)
    strangers = mesh.manager.monitor.watch(wire.MonitorScopeSelector(), pki.workload("other").spiffe_id)
    event = await anext(mine)
    assert event.type == wire.INITIAL_STATE_TRANSFER
    assert list(event.connections) == [connection.path.path_segments[1].id]
    assert not (await anext(strangers)).connections
    await mesh.request(connection)
    assert (await anext(mine)).type == wire.UPDATE
    await mesh.close(connection)
    assert (await anext(mine)).type == wire.DELETE
    await mine.aclose()
    await strangers.aclose()
    assert not mesh.manager.monitor._watchers


async def test_a_slow_watcher_is_ended_and_holds_up_nobody(pki: Pki) -> None:
    monitor = Monitor()
    slow = monitor.watch(wire.MonitorScopeSelector())
    await anext(slow)
    for number in range(300):
        monitor.update(Connection(id=str(number)))
    with pytest.raises(errors.Exhausted, match="watch again"):
        await anext(slow)
    quick = monitor.watch(wire.MonitorScopeSelector())
    assert len((await anext(quick)).connections) == 300
    await quick.aclose()
