"""Keeps what remote handlers need beside their policy: a valid token, and for those that want one a session.

One decision to know: a new policy's handlers are prepared before the engine loads it, for a short while, so that a
change of parameters doesn't leave requests without a session; an adapter that is away doesn't hold the policy up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import grpc
import structlog

from meshwright.core import clock as clocks
from meshwright.core.health import Health
from meshwright.core.identity import IdentitySource
from meshwright.core.renewal import Backoff
from meshwright.dataplane.grpc import NativeChannel
from meshwright.mixer.remote import tokens
from meshwright.mixer.remote.backend import Backend, BackendError, Metadata, RefusedError
from meshwright.mixer.remote.channels import NoIdentityError, open_channel
from meshwright.mixer.remote.handlers import RemoteHandler

PREPARE_SECONDS = 2.0
TOKEN_SECONDS = 30.0

_log = structlog.get_logger(__name__)

Push = Callable[[str, str | None], None]
"""Gives the engine a handler's value, or tells it that there is none."""


def _lenient(push: Push) -> Push:
    """Between the engine's change of policy and ours a handler may be unknown to it."""

    def pushed(handler: str, value: str | None) -> None:
        with contextlib.suppress(ValueError):
            push(handler, value)

    return pushed


class Keep:
    """One handler's connection, token and session, from `start` to `close`; pushed only once it is the one in force."""

    def __init__(
        self,
        handler: RemoteHandler,
        identity: IdentitySource | None,
        health: Health,
        clock: clocks.Clock,
        push_authorization: Push,
        push_session: Push,
    ) -> None:
        self.handler = handler
        self._identity, self._health, self._clock = identity, health, clock
        self._push_authorization, self._push_session = push_authorization, push_session
        self._in_force = False
        self._channel: NativeChannel | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._troubles: dict[str, str] = {}
        self._has_token = asyncio.Event()
        self.ready = asyncio.Event()
        self.authorization: str | None = None
        self.session: str | None = None

    @property
    def metadata(self) -> Metadata:
        """What calls of Python's carry."""
        return () if self.authorization is None else ((self.handler.remote.authorization.header, self.authorization),)

    @property
    def channel(self) -> NativeChannel:
        """The channel, made on demand; NoIdentityError."""
        if self._channel is None:
            self._channel = open_channel(self.handler.remote, self._identity)
        return self._channel

    def start(self) -> None:
        """Begin to get the token and the session."""
        if self.handler.token is None:
            self._has_token.set()
        else:
            keeper = tokens.Keeper(self.handler.name, self.handler.token, self._token, self._token_failed, self._clock)
            self._tasks.append(asyncio.create_task(keeper.run(), name=f"token of {self.handler.name}"))
        self._tasks.append(asyncio.create_task(self._greet(), name=f"session of {self.handler.name}"))

    def enforce(self) -> None:
        """The engine has the policy: from now on it gets what there is."""
        self._in_force = True
        self._tell()
        if self.handler.token is not None:
            self._push_authorization(self.handler.name, self.authorization)
        if self.handler.remote.session_based:
            self._push_session(self.handler.name, self.session)

    async def close(self) -> None:
        """End the session and the connection."""
        self._in_force = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._channel is None:
            return
        if self.session is not None:
            try:
                await Backend(self._channel).close(self.session, self.metadata)
            except BackendError as error:
                _log.warning("session_not_closed", handler=self.handler.name, reason=str(error))
        await self._channel.close()

    def _token(self, value: str | None) -> None:
        self.authorization = value
        if value is not None:
            self._has_token.set()
        if self._in_force:
            self._push_authorization(self.handler.name, value)

    def _token_failed(self, reason: str | None) -> None:
        self._trouble("token", reason)

    async def _greet(self) -> None:
        """Validate, and for adapters with sessions begin one, again whenever the connection was lost."""
        remote, backoff = self.handler.remote, Backoff(0.5, 15.0)
        while True:
            try:
                async with asyncio.timeout(TOKEN_SECONDS):
                    await self._has_token.wait()
                backend = Backend(self.channel)
                await backend.validate(remote.adapter_config, self.handler.types, self.metadata)
                if remote.session_based:
                    self.session = await backend.create(remote.adapter_config, self.handler.types, self.metadata)
            except (BackendError, NoIdentityError, TimeoutError) as error:
                self._trouble("backend", str(error) or "there is no token yet")
                if isinstance(error, RefusedError):
                    self.ready.set()  # waiting longer wouldn't help
                await self._clock.sleep(backoff.delay())
                continue
            backoff.reset()
            self._trouble("backend", None)
            self.ready.set()
            if not remote.session_based:
                return
            if self._in_force:
                self._push_session(self.handler.name, self.session)
            await self._lost()
            self.session = None
            if self._in_force:
                self._push_session(self.handler.name, None)

    async def _lost(self) -> None:
        """Return when the connection that the session was begun on is gone: the adapter may have forgotten it."""
        channel = self.channel
        while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)

    def _trouble(self, part: str, reason: str | None) -> None:
        if reason is None:
            self._troubles.pop(part, None)
        else:
            self._troubles[part] = reason
        if self._in_force:
            self._tell()

    def _tell(self) -> None:
        name = f"remote adapter {self.handler.name}"
        if self._troubles:
            self._health.degrade(name, "; ".join(self._troubles.values())[:300])
        else:
            self._health.set(name, True)


class RemoteKeeper:
    """`prepare` a policy's remote handlers before it is loaded, `commit` when it was, `close` at the end."""

    def __init__(
        self,
        identity: IdentitySource | None,
        health: Health,
        push_authorization: Push,
        push_session: Push,
        clock: clocks.Clock | None = None,
    ) -> None:
        self._identity, self._health, self._clock = identity, health, clock or clocks.SystemClock()
        self._push_authorization, self._push_session = _lenient(push_authorization), _lenient(push_session)
        self._current: dict[str, Keep] = {}
        self._next: dict[str, Keep] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> Keep | None:
        """The handler of that name, the policy's in force."""
        return self._current.get(name)

    def handler(self, name: str) -> RemoteHandler | None:
        """What is in force under that name."""
        keep = self._current.get(name)
        return None if keep is None else keep.handler

    async def prepare(self, handlers: Mapping[str, RemoteHandler]) -> None:
        """Begin with what is new; wait a short while for it."""
        await self._drop()
        for name, handler in handlers.items():
            known = self._current.get(name)
            if known is not None and known.handler == handler:
                self._next[name] = known
                continue
            self._next[name] = Keep(
                handler, self._identity, self._health, self._clock, self._push_authorization, self._push_session
            )
            self._next[name].start()
        waiting = [asyncio.create_task(keep.ready.wait()) for keep in self._next.values()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=PREPARE_SECONDS)
            for task in late:
                task.cancel()

    def commit(self) -> None:
        """The prepared ones are in force; the others end beside."""
        before, self._current, self._next = self._current, self._next, {}
        for name, keep in self._current.items():
            if before.get(name) is not keep:
                keep.enforce()
        for name in before.keys() - self._current.keys():
            self._health.forget(f"remote adapter {name}")
        for name, keep in before.items():
            if self._current.get(name) is not keep:
                task = asyncio.create_task(keep.close(), name=f"close remote handler {name}")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End all."""
        await self._drop()
        current, self._current = self._current, {}
        await asyncio.gather(*(keep.close() for keep in current.values()), *self._closing)

    async def _drop(self) -> None:
        """End what was prepared for a policy that then wasn't loaded."""
        prepared, self._next = self._next, {}
        await asyncio.gather(*(keep.close() for name, keep in prepared.items() if self._current.get(name) is not keep))
