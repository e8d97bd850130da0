"""The bus on NATS, with mutual TLS by files.

One decision to know: the client reconnects for ever, and while it is away calls fail at once with Unavailable instead
of being buffered: whoever has something that must not be lost keeps it and tries again, so memory is bounded where it
is.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api as jetstream

from meshwright.core import errors
from meshwright.core.bus import api
from meshwright.core.bus.headers import outgoing
from meshwright.core.bus.server_config import inbox_prefix
from meshwright.core.health import Health
from meshwright.core.renewal import Backoff

_log = structlog.get_logger(__name__)

_FETCH = 128  # messages of one request to the stream
_FETCH_SECONDS = 5.0
_STREAM_FULL = 10077  # JetStream's error code for "maximum bytes exceeded"


class NatsBus:
    """`async with NatsBus("host:port", folder with cert.pem, key.pem, ca.pem):`; `name` shows in the server's lists."""

    def __init__(self, server: str, tls: Path | None, *, name: str, health: Health | None = None) -> None:
        self._server, self._tls, self._name, self._health = server, tls, name, health
        self._client = Client()
        self._streams: dict[str, jetstream.StreamConfig] = {}  # made again when a server lost its store
        self._connecting: asyncio.Task[None] | None = None
        self._last_error = "not connected yet"

    async def __aenter__(self) -> Self:
        """Begin to connect; wait a moment for it, but not for a server that is away."""
        self._connecting = asyncio.create_task(self._connect(), name=f"connect to NATS at {self._server}")
        await asyncio.wait([self._connecting], timeout=api.DEADLINE_SECONDS)
        if self._connecting.done():
            self._connecting.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        if self._connecting and not self._connecting.done():
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._client.close()

    @property
    def is_connected(self) -> bool:
        """Whether the server answers at the moment."""
        return self._client.is_connected

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Tell whoever listens now."""
        self._require_connection()
        with _translated(f"publish on {subject}"):
            await self._client.publish(subject, data, headers=outgoing(headers))

    async def subscribe(self, subject: str, queue: str | None = None) -> AsyncIterator[api.Message]:
        """Listen; the subscription outlives outages of the server."""
        await self._connected()
        with _translated(f"subscribe to {subject}"):
            subscription = await self._client.subscribe(subject, queue or "", pending_msgs_limit=api.PENDING_MESSAGES)
        try:
            async for message in subscription.messages:
                yield api.Message(message.subject, message.data, dict(message.headers or {}))
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def ensure_stream(self, name: str, subjects: Sequence[str], *, max_bytes: int) -> None:
        """Create the stream or bring it to these limits."""
        self._require_connection()
        wanted = jetstream.StreamConfig(
            name=name,
            subjects=list(subjects),
            retention=jetstream.RetentionPolicy.WORK_QUEUE,
            discard=jetstream.DiscardPolicy.NEW,
            storage=jetstream.StorageType.FILE,
            max_bytes=max_bytes,
            duplicate_window=api.DUPLICATE_SECONDS,
        )
        with _translated(f"stream {name}"):
            await self._make(wanted)
        self._streams[name] = wanted

    async def publish_durable(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = api.DEADLINE_SECONDS,
    ) -> None:
        """Return when the stream has stored it."""
        self._require_connection()
        sent = {**outgoing(headers), "Nats-Msg-Id": msg_id}
        with _translated(f"store on {subject}"):
            context = self._client.jetstream(timeout=timeout)
            try:
                await context.publish(subject, data, headers=sent)
            except nats.js.errors.NoStreamResponseError:
                if not self._streams:
                    raise
                for wanted in self._streams.values():
                    await self._make(wanted)
                await context.publish(subject, data, headers=sent)

    async def consume(
        self,
        stream: str,
        durable: str,
        subject: str,
        *,
        ack_seconds: float = 30.0,
        max_unacknowledged: int = 4096,
    ) -> AsyncIterator[api.Delivery]:
        """Take messages; outages of the server are waited out."""
        wanted = jetstream.ConsumerConfig(
            durable_name=durable,
            filter_subject=subject,
            ack_policy=jetstream.AckPolicy.EXPLICIT,
            ack_wait=ack_seconds,
            max_ack_pending=max_unacknowledged,
        )
        backoff = Backoff(0.1, 2.0)
        subscription: Any = None
        while True:
            await self._connected()
            try:
                if subscription is None:
                    subscription = await self._pull(stream, durable, subject, wanted)
                batch = await subscription.fetch(_FETCH, timeout=_FETCH_SECONDS)
            except (nats.errors.TimeoutError, TimeoutError):
                continue  # nothing to do at the moment
            except (nats.errors.Error, OSError) as error:
                _log.warning("stream away", stream=stream, reason=str(error))
                subscription = None
                await asyncio.sleep(backoff.delay())
                continue
            backoff.reset()
            for message in batch:
                yield _NatsDelivery(message)

    async def _pull(self, stream: str, durable: str, subject: str, wanted: jetstream.ConsumerConfig) -> Any:
        context = self._client.jetstream(timeout=api.DEADLINE_SECONDS)
        # Creating it again with the same settings is fine, so replicas needn't agree on who does.
        try:
            await context.add_consumer(stream, wanted)
        except nats.js.errors.NotFoundError:
            if stream not in self._streams:
                raise
            await self._make(self._streams[stream])
            await context.add_consumer(stream, wanted)
        return await context.pull_subscribe(subject, durable, stream=stream)

    async def _make(self, wanted: jetstream.StreamConfig) -> None:
        context = self._client.jetstream(timeout=api.DEADLINE_SECONDS)
        try:
            await context.update_stream(wanted)
        except nats.js.errors.NotFoundError:
            await context.add_stream(wanted)

    async def _connect(self) -> None:
        context = _client_context(self._tls) if self._tls else None
        host, _, _ = self._server.rpartition(":")
        await self._client.connect(
            servers=[f"{'tls' if context else 'nats'}://{self._server}"],
            name=f"meshwright-{self._name}",
            tls=context,
            tls_hostname=host if context else None,
            tls_handshake_first=context is not None,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            inbox_prefix=inbox_prefix(self._name),
            connect_timeout=2,
            ping_interval=10,
            max_outstanding_pings=2,
            pending_size=4 * api.MAX_MESSAGE,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        _log.info("bus connected", server=self._server)
        self._tell("")

    async def _connected(self) -> None:
        """Return when there is a connection."""
        if self._connecting:
            await asyncio.shield(self._connecting)
        while not self._client.is_connected:
            if self._client.is_closed:
                raise errors.Unavailable(f"NATS at {self._server}: the bus is closed")
            await asyncio.sleep(0.1)

    def _require_connection(self) -> None:
        if not self._client.is_connected:
            raise errors.Unavailable(f"NATS at {self._server} is away: {self._last_error}")

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._last_error:  # an outage repeats the same one every half second
            _log.warning("bus error", server=self._server, reason=text)
        self._last_error = text
        if not self._client.is_connected:
            self._tell(text)

    async def _on_disconnected(self) -> None:
        _log.warning("bus away", server=self._server)
        self._tell("the connection was lost")

    async def _on_reconnected(self) -> None:
        self._last_error = ""
        _log.info("bus back", server=self._server)
        self._tell("")

    def _tell(self, fault: str) -> None:
        if self._health is None:
            return
        if fault:
            self._health.outage("bus", f"NATS at {self._server}: {fault}")
        else:
            self._health.set("bus", True)


class _NatsDelivery:
    def __init__(self, message: Msg) -> None:
        self._message = message
        self.data, self.headers = message.data, dict(message.headers or {})
        self.count = message.metadata.num_delivered

    async def ack(self) -> None:
        with _translated("acknowledge a message"):
            await self._message.ack()

    async def nak(self, delay: float = 0.0) -> None:
        with _translated("give a message back"):
            await self._message.nak(delay or None)


@contextlib.contextmanager
def _translated(what: str) -> Any:
    """Raise our errors for those of the library."""
    try:
        yield
    except nats.js.errors.NoStreamResponseError as error:
        raise errors.NotFound(f"{what}: no stream takes it") from error
    except nats.js.errors.APIError as error:
        if error.err_code == _STREAM_FULL:
            raise errors.Exhausted(f"{what}: the stream is full") from error
        raise errors.Unavailable(f"{what}: {error.description}") from error
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise errors.DeadlineExceeded(f"{what}: no answer in time") from error
    except nats.errors.MaxPayloadError as error:
        raise errors.ConfigError(str(error), field="data", remedy="a message has 1 MiB at most") from error
    except (nats.errors.Error, OSError) as error:
        raise errors.Unavailable(f"{what}: {error}") from error


def _client_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
