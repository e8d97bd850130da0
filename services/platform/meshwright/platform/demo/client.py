"""An HTTP/1.1 client that judges the server by its SPIFFE ID before it sends anything; and one for Unix sockets.

One decision to know: it is written on h11 and the loop's own TLS, because the checks need what HTTP libraries hide: the
peer's certificate of each connection, and whether a failure came before or after the request was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h11
from cryptography import x509

from meshwright.core import errors, identity
from meshwright.core.identity import IdentitySource, X509Identity

REQUEST_SECONDS = 10.0
_BODY_LIMIT = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a handshake proved the server to be."""

    spiffe_id: str
    serial: int


def context(svid: X509Identity) -> ssl.SSLContext:
    """Return a client context with this identity that trusts its bundle only; names are judged by `connect`."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False  # SPIFFE certificates have no host names; `connect` checks the URI name instead
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cadata=svid.bundle_pem.decode("ascii"))
    with tempfile.NamedTemporaryFile(mode="wb") as file:  # Python reads keys from files only; this one is 0600
        file.write(svid.key_pem + b"\n" + svid.cert_chain_pem)
        file.flush()
        tls.load_cert_chain(file.name)
    return tls


class Connection:
    """One connection, kept open between requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer | None) -> None:
        self._reader, self._writer, self.peer = reader, writer, peer
        self._state = h11.Connection(h11.CLIENT)

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self._state.our_state is h11.IDLE and not self._reader.at_eof()

    async def request(self, method: str, host: str, path: str, headers: Mapping[str, str]) -> Answer:
        """Make one request and read its whole answer."""
        fields = [("host", host), *headers.items()]
        self._send(h11.Request(method=method, target=path, headers=fields))
        self._send(h11.EndOfMessage())
        status, answered, body = 0, {}, b""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                status = event.status_code
                answered = {name.decode(): value.decode(errors="replace") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _BODY_LIMIT:
                    raise errors.Exhausted(f"{host}{path}: the answer is larger than {_BODY_LIMIT} bytes")
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise errors.Unavailable(f"{host}{path}: the connection was closed before an answer")
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        return Answer(status, body, answered)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def _send(self, event: h11.Request | h11.EndOfMessage) -> None:
        if data := self._state.send(event):
            self._writer.write(data)

    async def _next(self) -> object:
        while (event := self._state.next_event()) is h11.NEED_DATA:
            self._state.receive_data(await self._reader.read(1 << 16))
        return event


async def connect(host: str, port: int, svid: X509Identity, expected: str) -> Connection:
    """Connect and check that the server is `expected` (a SPIFFE ID); raise Unauthorized before anything is sent."""
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context(svid))
    except (OSError, ssl.SSLError) as error:
        raise errors.Unavailable(f"{host}:{port}: {error}") from error
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    certificate = x509.load_der_x509_certificate(der)
    found = identity.spiffe_id(certificate)
    if found != expected:
        writer.close()
        raise errors.Unauthorized(f"{host}:{port} is {found}, expected {expected}")
    return Connection(reader, writer, Peer(found, certificate.serial_number))


class Pool:
    """Requests to one server over connections that are kept; `connect` opens a further one."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._idle: list[Connection] = []
        self._generation = 0
        self.connections = 0

    async def get(self, host: str, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET `path` with Host `host`. No retries: a failure is for the caller to count."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                generation = self._generation
                connection = await self._take()
                try:
                    answer = await connection.request("GET", host, path, headers or {})
                except BaseException:
                    connection.close()
                    raise
        except TimeoutError:
            raise errors.DeadlineExceeded(f"{host}{path}: no answer in {REQUEST_SECONDS:.0f} s") from None
        except (OSError, h11.RemoteProtocolError) as error:
            raise errors.Unavailable(f"{host}{path}: {error!r}") from error
        if connection.reusable and generation == self._generation:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def forget(self) -> None:
        """Close idle connections, and busy ones after their request: the next requests begin with a handshake."""
        self._generation += 1
        while self._idle:
            self._idle.pop().close()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.close()
        self.connections += 1
        return await self._connect()


class Client(Pool):
    """Requests to one server as one workload; a rotation of the identity begins with new connections."""

    def __init__(self, host: str, port: int, source: IdentitySource, expected: str) -> None:
        super().__init__(lambda: connect(host, port, source.current(), expected))
        self._unsubscribe = source.subscribe(lambda _: self.forget())

    def close(self) -> None:
        """End: no further requests."""
        self._unsubscribe()
        self.forget()


def over_socket(path: Path) -> Pool:
    """Return a pool of plain connections to a Unix socket."""

    async def open_connection() -> Connection:
        reader, writer = await asyncio.open_unix_connection(str(path))
        return Connection(reader, writer, None)

    return Pool(open_connection)


def over_tcp(host: str, port: int) -> Pool:
    """Return a pool of plain connections to an address; what they become is the sidecar's to say."""

    async def open_connection() -> Connection:
        reader, writer = await asyncio.open_connection(host, port)
        return Connection(reader, writer, None)

    return Pool(open_connection)


async def peer(host: str, port: int, svid: X509Identity, expected: str) -> Peer:
    """Make a handshake only, and return whom it proved the server to be."""
    async with asyncio.timeout(REQUEST_SECONDS):
        connection = await connect(host, port, svid, expected)
    with contextlib.suppress(OSError):
        connection.close()
    assert connection.peer is not None
    return connection.peer
