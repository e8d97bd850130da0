"""A hop as it is called over the wire: the channel, the token for it, and the descriptors beside its answers.

One decision to know: a token is signed with the identity that the connection was made with, since the other side
verifies it against that connection's certificate. So a rotation opens a new connection for new calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from types import TracebackType
from typing import Self

import grpc

from meshwright.core import errors
from meshwright.core.clock import Clock
from meshwright.core.identity import IdentitySource, StaticIdentity, X509Identity
from meshwright.nsm import errors as nsm_errors
from meshwright.nsm import mechanism, tokens, transport, wire
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.wire import Connection, NetworkServiceRequest

_CONNECT_SECONDS = 5.0
_DESCRIPTOR_SECONDS = 2.0  # it travels in front of the answer


class Session:
    """One connection to a hop, and whose identity it shows."""

    def __init__(self, target: str, identity: X509Identity | None, expected: str | None) -> None:
        source = StaticIdentity(identity) if identity else None
        self.identity = identity
        self.channel = transport.channel(target, source, expected)
        self.users = 0
        self.stale = False

    def token(self, lifetime: timedelta, clock: Clock) -> tokens.Token | None:
        """Sign a token for the hop at the other end; None in plain text."""
        if self.identity is None:
            return None
        audience = self.channel.peer_id()
        if audience is None:
            raise errors.Unavailable("the other end showed no SPIFFE ID")
        return tokens.issue(self.identity, audience, clock.now() + lifetime)


class Peer:
    """One hop. `expected` is its SPIFFE ID or a pattern of it; `lifetime` bounds the tokens.

    A call waits some seconds for a hop that is just restarting; an `impatient` one fails as soon as nobody is there.
    """

    def __init__(
        self,
        name: str,
        target: str,
        identity: IdentitySource | None,
        *,
        expected: str | None,
        lifetime: timedelta,
        clock: Clock,
        impatient: bool = False,
    ) -> None:
        self._impatient = impatient
        self._name, self._target, self._identity, self._expected = name, target, identity, expected
        self._lifetime, self._clock = lifetime, clock
        self._current: Session | None = None
        self._unsubscribe = identity.subscribe(self._rotated) if identity else None

    @property
    def name(self) -> str:
        """The hop's name."""
        return self._name

    async def request(
        self, request: NetworkServiceRequest, *, timeout: float, descriptors: list[Descriptor]
    ) -> tuple[Connection, Descriptor | None]:
        """Ask for a connection; the second value is the descriptor that came with the answer."""
        async with self.session(timeout) as session:
            for descriptor in descriptors:
                session.channel.send_descriptor(descriptor.fileno())
            stub = wire.NetworkServiceStub(session.channel)
            answer: Connection = await stub.Request(request, timeout=timeout, metadata=self.metadata(session))
            return answer, await self._received(session, request, answer)

    async def close(self, connection: Connection, *, timeout: float, descriptors: list[Descriptor]) -> None:
        """Close a connection."""
        async with self.session(timeout) as session:
            for descriptor in descriptors:
                session.channel.send_descriptor(descriptor.fileno())
            stub = wire.NetworkServiceStub(session.channel)
            await stub.Close(connection, timeout=timeout, metadata=self.metadata(session))

    def metadata(self, session: Session) -> list[tuple[str, str]]:
        """Return the metadata that proves who calls."""
        proof: list[tuple[str, str]] = []
        token = session.token(self._lifetime, self._clock)
        if token is not None:
            expires = token.expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            proof += [(tokens.METADATA, token.text), (tokens.METADATA_EXPIRES, expires)]
        return proof

    @contextlib.asynccontextmanager
    async def session(self, timeout: float = _CONNECT_SECONDS) -> AsyncIterator[Session]:
        """Use a connection with the newest identity; RPC failures inside become this platform's errors."""
        session = self._current
        if session is None or session.stale:
            identity = self._identity.current() if self._identity else None
            session = self._current = Session(self._target, identity, self._expected)
        session.users += 1
        try:
            await self._connect(session, min(timeout, _CONNECT_SECONDS))
            yield session
        except grpc.RpcError as failure:
            raise nsm_errors.remote(self._name, failure) from failure
        except (TimeoutError, OSError) as failure:
            raise errors.Unavailable(f"{self._name} at {self._target} can't be reached: {failure}") from failure
        finally:
            session.users -= 1
            if session.stale and not session.users:
                await session.channel.close()

    async def _connect(self, session: Session, timeout: float) -> None:
        channel = session.channel
        if not self._impatient:
            await channel.ready(timeout=timeout)
            return
        async with asyncio.timeout(timeout):
            while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    raise ConnectionError("nobody answers there at the moment")
                await channel.wait_for_state_change(state)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._unsubscribe:
            self._unsubscribe()
            self._unsubscribe = None
        session, self._current = self._current, None
        if session is not None:
            session.stale = True
            if not session.users:
                await session.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _rotated(self, _identity: X509Identity) -> None:
        if self._current is not None:
            self._current.stale = True

    async def _received(
        self, session: Session, request: NetworkServiceRequest, answer: Connection
    ) -> Descriptor | None:
        inode = mechanism.inode(answer.mechanism)
        sent = {mechanism.inode(wish) for wish in (request.connection.mechanism, *request.mechanism_preferences)}
        if inode is None or inode in sent:
            return None
        with contextlib.suppress(TimeoutError, OSError, grpc.RpcError, errors.MeshwrightError):
            return Descriptor(await session.channel.descriptors.take(inode.device, inode.number, _DESCRIPTOR_SECONDS))
        return None  # whether that is a fault depends on who asked
