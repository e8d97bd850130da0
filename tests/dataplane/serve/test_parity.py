"""The same handlers on grpc.aio's server and on ours, called by grpcio: caller and handler see the same.

Out of scope are texts that each server has of its own, and where ours differs on purpose: a request that can't be read
is INTERNAL as gRPC's documents have it, where grpc.aio says UNKNOWN.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from serve_rig import grpcio_credentials

from meshwright.dataplane.grpc import NativeServer

Notes = list[Any]
SCENARIOS: dict[str, tuple[str, Callable[..., Any]]] = {}
FAILED, GONE = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND


def scenario(kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a handler of (request or requests, context, notes)."""

    def add(handler: Callable[..., Any]) -> Callable[..., Any]:
        SCENARIOS[handler.__name__] = (kind, handler)
        return handler

    return add


def noted(notes: Notes, function: Callable[[], Any]) -> None:
    """Note what a call returns or raises."""
    try:
        notes.append(function())
    except Exception as error:
        notes.append(_kind(error))


async def noted_async(notes: Notes, awaitable: Any) -> None:
    """The same for what is awaited."""
    try:
        notes.append(await awaitable)
    except Exception as error:
        notes.append(_kind(error))


def _kind(error: Exception) -> str:
    """Name an error by grpcio's public class for it."""
    kinds = (grpc.aio.AbortError, grpc.aio.UsageError, RuntimeError, TypeError, ValueError)
    return next((kind.__name__ for kind in kinds if isinstance(error, kind)), type(error).__name__)


def own(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [(key, value) for key, value in metadata or () if key.startswith("x-")]


# ---------------------------------------------------------------- one request, one response


@scenario("unary_unary")
async def answers(request: str, context: Any, notes: Notes) -> str:
    notes += [context.code(), context.details(), list(context.trailing_metadata()), context.done(), context.cancelled()]
    return request


@scenario("unary_unary")
async def names_the_peer(request: str, context: Any, notes: Notes) -> str:
    notes += [context.peer().rpartition(":")[0], context.peer_identities(), context.peer_identity_key()]
    notes.append(0 < context.time_remaining() <= 11)
    return request


@scenario("unary_unary")
async def reads_metadata(request: str, context: Any, notes: Notes) -> str:
    sent = [entry for entry in context.invocation_metadata() if entry[0].startswith("x-")]
    notes += [[(entry.key, entry.value) for entry in sent], type(context.invocation_metadata()).__name__]
    notes.append("user-agent" in dict(context.invocation_metadata()))
    return request


@scenario("unary_unary")
async def sends_metadata(request: str, context: Any, notes: Notes) -> str:
    await context.send_initial_metadata((("x-first", "1"), ("x-raw-bin", b"\x00\xff"), ("x-first", "2")))
    await noted_async(notes, context.send_initial_metadata((("x-second", "1"),)))
    context.set_trailing_metadata((("x-last", "lost"),))
    context.set_trailing_metadata((("x-last", "1"), ("x-last-bin", b"\xff")))
    notes.append(list(context.trailing_metadata()))
    return request


@scenario("unary_unary")
async def refuses_bad_trailing_metadata(request: str, context: Any, notes: Notes) -> str:
    for bad in ({"a": "b"}, 7, [("a", "b", "c")], ["ab"]):
        noted(notes, lambda bad=bad: context.set_trailing_metadata(bad))  # type: ignore[misc]
    return request


@scenario("unary_unary")
async def sets_a_code(request: str, context: Any, notes: Notes) -> str:
    context.set_code(GONE)
    context.set_details("nothing «here»")
    context.set_trailing_metadata((("x-why", "gone"),))
    notes += [context.code(), context.details()]
    return request


@scenario("unary_unary")
async def sets_a_code_by_number(request: str, context: Any, notes: Notes) -> str:
    context.set_code(9)
    notes.append(context.code())
    return request


@scenario("unary_unary")
async def sets_an_unknown_code(request: str, context: Any, notes: Notes) -> str:
    context.set_code(99)
    return request


@scenario("unary_unary")
async def sets_ok_and_details(request: str, context: Any, notes: Notes) -> str:
    context.set_code(grpc.StatusCode.OK)
    context.set_details("all is well")
    return request


@scenario("unary_unary")
async def sets_cancelled(request: str, context: Any, notes: Notes) -> str:
    context.set_code(grpc.StatusCode.CANCELLED)
    notes.append(context.cancelled())
    return request


@scenario("unary_unary")
async def sets_details_that_are_none(request: str, context: Any, notes: Notes) -> str:
    noted(notes, lambda: context.set_details(b"bytes"))
    return request


@scenario("unary_unary")
async def aborts(request: str, context: Any, notes: Notes) -> str:
    context.set_trailing_metadata((("x-set", "before"),))
    await context.abort(FAILED, "not now: 100 %, «so»")
    return request


@scenario("unary_unary")
async def aborts_with_metadata(request: str, context: Any, notes: Notes) -> str:
    context.set_trailing_metadata((("x-set", "before"),))
    await context.abort(FAILED, "not now", (("x-abort", "yes"), ("x-abort-bin", b"\x01")))
    return request


@scenario("unary_unary")
async def aborts_with_earlier_details(request: str, context: Any, notes: Notes) -> str:
    context.set_details("said before")
    context.set_code(GONE)
    await context.abort(FAILED)
    return request


@dataclasses.dataclass
class Status(grpc.Status):
    code: grpc.StatusCode
    details: str
    trailing_metadata: Any


@scenario("unary_unary")
async def aborts_with_status(request: str, context: Any, notes: Notes) -> str:
    await context.abort_with_status(Status(GONE, "by status", (("x-detail-bin", b"\x08\x05"),)))
    return request


@scenario("unary_unary")
async def swallows_its_abort(request: str, context: Any, notes: Notes) -> str:
    try:
        await context.abort(FAILED, "not now")
    except BaseException as error:
        notes.append(type(error).__name__)
    notes += [context.done(), context.code(), context.details()]
    await noted_async(notes, context.abort(GONE, "again"))
    await noted_async(notes, context.write(request))
    await noted_async(notes, context.send_initial_metadata(()))
    return request


@scenario("unary_unary")
async def raises(request: str, context: Any, notes: Notes) -> str:
    context.set_trailing_metadata((("x-set", "before"),))
    raise LookupError("boom")


@scenario("unary_unary")
async def raises_with_a_code(request: str, context: Any, notes: Notes) -> str:
    context.set_code(FAILED)
    context.set_details("not used")
    raise LookupError("boom")


@scenario("unary_unary")
async def answers_what_cant_be_serialized(request: str, context: Any, notes: Notes) -> int:
    return 7


@scenario("unary_unary")
async def is_told_of_the_end(request: str, context: Any, notes: Notes) -> str:
    context.add_done_callback(lambda ended: notes.append(("first", ended.done())))
    context.add_done_callback(lambda ended: notes.append("second"))
    return request


@scenario("unary_unary")
async def sets_compression_late(request: str, context: Any, notes: Notes) -> str:
    context.set_compression(grpc.Compression.Gzip)
    await context.send_initial_metadata(())
    noted(notes, lambda: context.set_compression(grpc.Compression.Deflate))
    return request * 1000


# ---------------------------------------------------------------- many responses


@scenario("unary_stream")
async def yields(request: str, context: Any, notes: Notes) -> AsyncIterator[str]:
    for word in (request, "", request * 3):
        yield word
    context.set_trailing_metadata((("x-last", "1"),))


@scenario("unary_stream")
async def yields_nothing(request: str, context: Any, notes: Notes) -> AsyncIterator[str]:
    for word in ():
        yield word


@scenario("unary_stream")
async def yields_then_sets_a_code(request: str, context: Any, notes: Notes) -> AsyncIterator[str]:
    yield request
    context.set_code(GONE)
    context.set_details("no more")


@scenario("unary_stream")
async def yields_then_aborts(request: str, context: Any, notes: Notes) -> AsyncIterator[str]:
    yield request
    yield request
    await context.abort(FAILED, "enough", (("x-abort", "yes"),))


@scenario("unary_stream")
async def yields_then_raises(request: str, context: Any, notes: Notes) -> AsyncIterator[str]:
    yield request
    raise LookupError("boom")


@scenario("unary_stream")
async def yields_and_writes(request: str, context: Any, notes: Notes) -> AsyncIterator[str]:
    await context.send_initial_metadata((("x-first", "1"),))
    await context.write("written")
    yield "yielded"
    await context.write("written again")
    await noted_async(notes, context.send_initial_metadata(()))


@scenario("unary_stream")
async def writes(request: str, context: Any, notes: Notes) -> None:
    for word in (request, "", request * 3):
        await context.write(word)
    await noted_async(notes, context.send_initial_metadata(()))


@scenario("unary_stream")
async def writes_and_aborts(request: str, context: Any, notes: Notes) -> None:
    await context.write(request)
    await context.abort(FAILED, "enough")


@scenario("unary_stream")
async def yields_on_after_an_abort(request: str, context: Any, notes: Notes) -> AsyncIterator[str]:
    try:
        await context.abort(FAILED, "not now")
    except grpc.aio.AbortError:
        notes.append("swallowed")
    yield request


# ---------------------------------------------------------------- many requests


@scenario("stream_unary")
async def iterates(requests: AsyncIterator[str], context: Any, notes: Notes) -> str:
    return "+".join([request async for request in requests])


@scenario("stream_unary")
async def reads(requests: AsyncIterator[str], context: Any, notes: Notes) -> str:
    words = []
    while (request := await context.read()) is not grpc.aio.EOF:
        words.append(request)
    notes.append(await context.read() is grpc.aio.EOF)
    return "+".join(words)


@scenario("stream_unary")
async def reads_and_iterates(requests: AsyncIterator[str], context: Any, notes: Notes) -> str:
    first = await context.read()
    return "+".join([first, *[request async for request in requests]])


@scenario("stream_unary")
async def answers_before_the_end(requests: AsyncIterator[str], context: Any, notes: Notes) -> str:
    return await anext(aiter(requests))


@scenario("stream_stream")
async def converses(requests: AsyncIterator[str], context: Any, notes: Notes) -> AsyncIterator[str]:
    async for request in requests:
        yield request.upper()


@scenario("stream_stream")
async def reads_and_writes(requests: AsyncIterator[str], context: Any, notes: Notes) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(request.upper())


@scenario("stream_stream")
async def aborts_within_the_requests(requests: AsyncIterator[str], context: Any, notes: Notes) -> AsyncIterator[str]:
    async for request in requests:
        yield request
        await context.abort(FAILED, f"enough after {request}")


# ---------------------------------------------------------------- sync handlers


@scenario("unary_unary")
def sync_answers(request: str, context: Any, notes: Notes) -> str:
    sent = [entry for entry in context.invocation_metadata() if entry[0].startswith("x-")]
    notes += [[(entry.key, entry.value) for entry in sent], 0 < context.time_remaining() <= 11]
    context.send_initial_metadata((("x-first", "1"),))
    noted(notes, lambda: context.send_initial_metadata((("x-second", "1"),)))
    context.set_trailing_metadata((("x-last", "1"),))
    return request


@scenario("unary_unary")
def sync_sets_a_code(request: str, context: Any, notes: Notes) -> str:
    context.set_code(GONE)
    context.set_details("nothing here")
    return request


@scenario("unary_unary")
def sync_aborts(request: str, context: Any, notes: Notes) -> str:
    context.set_trailing_metadata((("x-set", "before"),))
    context.abort(FAILED, "not now")
    return request


@scenario("unary_unary")
def sync_aborts_with_metadata(request: str, context: Any, notes: Notes) -> str:
    context.abort(FAILED, "not now", (("x-abort", "yes"),))
    return request


@scenario("unary_unary")
def sync_raises(request: str, context: Any, notes: Notes) -> str:
    raise LookupError("boom")


@scenario("unary_unary")
def sync_is_told_of_the_end(request: str, context: Any, notes: Notes) -> str:
    context.add_callback(lambda: notes.append("ended"))
    return request


@scenario("unary_stream")
def sync_yields(request: str, context: Any, notes: Notes) -> Iterator[str]:
    yield from (request, "", request * 3)
    context.set_trailing_metadata((("x-last", "1"),))


@scenario("unary_stream")
def sync_returns_a_list(request: str, context: Any, notes: Notes) -> Iterator[str]:
    return iter([request, request])


def sync_yields_then_aborts(request: str, context: Any, notes: Notes) -> Iterator[str]:
    yield request
    context.abort(FAILED, "enough")


SCENARIOS["sync_yields_then_aborts"] = ("unary_stream", sync_yields_then_aborts)


@scenario("unary_stream")
def sync_yields_then_raises(request: str, context: Any, notes: Notes) -> Iterator[str]:
    yield request
    raise LookupError("boom")


@scenario("stream_unary")
def sync_iterates(requests: Iterator[str], context: Any, notes: Notes) -> str:
    return "+".join(requests)


@scenario("stream_stream")
def sync_converses(requests: Iterator[str], context: Any, notes: Notes) -> Iterator[str]:
    for request in requests:
        yield request.upper()


# ---------------------------------------------------------------- the two servers


def _text(message: str | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.encode()


def _handler(name: str, notes: Notes) -> Any:
    kind, function = SCENARIOS[name]
    # As it is written, so that both servers see what kind of function it is.
    if asyncio.iscoroutinefunction(function):

        async def run(request: Any, context: Any) -> Any:
            return await function(request, context, notes)

        bound: Any = run
    elif hasattr(function, "__code__") and function.__code__.co_flags & 0x200:  # an async generator

        async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
            async for response in function(request, context, notes):
                yield response

        bound = generate
    else:

        def call(request: Any, context: Any) -> Any:
            return function(request, context, notes)

        bound = call
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(bound, request_deserializer=bytes.decode, response_serializer=_text)


@contextlib.asynccontextmanager
async def grpcio_server(notes: Notes, **options: Any) -> AsyncIterator[str]:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        server = grpc.aio.server(pool, **options)
        _add(server, notes)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield address
        finally:
            await server.stop(0)


@contextlib.asynccontextmanager
async def our_server(notes: Notes, **options: Any) -> AsyncIterator[str]:
    server = NativeServer("127.0.0.1:0", None, **options)
    _add(server, notes)
    address = await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


def _add(server: Any, notes: Notes) -> None:
    handlers = {name: _handler(name, notes) for name in SCENARIOS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("parity.Parity", handlers),))
    server.add_registered_method_handlers("parity.Parity", handlers)


@dataclasses.dataclass
class Seen:
    """What the caller and the handler saw."""

    responses: list[str]
    code: grpc.StatusCode
    details: str | None
    initial: list[tuple[str, str | bytes]]
    trailing: list[tuple[str, str | bytes]]
    notes: Notes


# Their handlers end before the requests: a request sent afterwards makes grpcio's client say INTERNAL, whoever serves.
ENDS_EARLY = {"answers_before_the_end", "aborts_within_the_requests"}
METADATA = (("x-text", "a b"), ("x-many", "1"), ("x-many", "2"), ("x-raw-bin", b"\x00\x01\xff"))


async def _one_and_no_end(over: asyncio.Event) -> AsyncIterator[str]:
    yield "one"
    await over.wait()


async def call(address: str, name: str, notes: Notes) -> Seen:
    kind, _ = SCENARIOS[name]
    async with grpc.aio.insecure_channel(address) as channel:
        make = getattr(channel, kind)
        method = make(f"/parity.Parity/{name}", request_serializer=_text, response_deserializer=bytes.decode)
        over = asyncio.Event()
        request: Any = "one"
        if kind.startswith("stream"):
            request = _one_and_no_end(over) if name in ENDS_EARLY else iter(["one", "two", "three"])
        begun = method(request, timeout=10, metadata=METADATA)
        begun.add_done_callback(lambda _: over.set())
        responses: list[str] = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            if kind.endswith("stream"):
                async for response in begun:
                    responses.append(response)
            else:
                responses.append(await begun)
        initial, trailing = own(await begun.initial_metadata()), own(await begun.trailing_metadata())
        return Seen(responses, await begun.code(), await begun.details(), initial, trailing, notes)


# grpc.aio's server fails over a sync handler's abort, in a stream always and else now and then: the caller waits.
ONLY_OURS = {
    "sync_aborts": Seen([], FAILED, "not now", [], [("x-set", "before")], []),
    "sync_aborts_with_metadata": Seen([], FAILED, "not now", [], [("x-abort", "yes")], []),
    "sync_yields_then_aborts": Seen(["one"], FAILED, "enough", [], [], []),
}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # of grpc.aio's server, after an abort
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - ONLY_OURS))
async def test_both_servers_do_the_same(name: str) -> None:
    """Responses, status, metadata and what the context tells are the same on both servers."""
    seen = []
    for server in (grpcio_server, our_server):
        notes: Notes = []
        async with server(notes) as address:
            outcome = await call(address, name, notes)
        seen.append(outcome)  # with the notes of callbacks, which come after the answer
    theirs, ours = seen
    assert ours == theirs


@pytest.mark.parametrize("name", sorted(ONLY_OURS))
async def test_aborts_of_sync_handlers(name: str) -> None:
    """What came before the abort arrives, and then its status."""
    async with our_server([]) as address:
        assert await call(address, name, []) == ONLY_OURS[name]


def _names(context: type) -> set[str]:
    return {name for name in dir(context) if not name.startswith("_")}


def test_contexts_have_every_method() -> None:
    """What grpcio's contexts offer, ours do, by methods of their own."""
    from meshwright.dataplane.grpc import Context, SyncContext

    for ours, theirs in ((Context, grpc.aio.ServicerContext), (SyncContext, grpc.ServicerContext)):
        for name in _names(theirs):
            assert getattr(ours, name) is not getattr(theirs, name), f"{ours.__name__}.{name}"


async def test_the_callers_certificate(server_identity: Any, client_identity: Any) -> None:
    """With mutual TLS auth_context has grpcio's keys, and for those that both have the same values."""
    seen: list[dict[str, Any]] = []

    async def note(request: bytes, context: Any) -> bytes:
        seen.append(dict(context.auth_context()))
        return b""

    handlers = {"Note": grpc.unary_unary_rpc_method_handler(note)}
    identity = server_identity.current()
    for make in ("grpcio", "ours"):
        server: Any
        if make == "grpcio":
            server = grpc.aio.server()
            pairs = [(identity.key_pem, identity.cert_chain_pem)]
            credentials = grpc.ssl_server_credentials(pairs, identity.bundle_pem, require_client_auth=True)
            address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
        else:
            server = NativeServer("127.0.0.1:0", server_identity)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("parity.Parity", handlers),))
        address = await server.start() or address
        options = [("grpc.ssl_target_name_override", "server.test.svc")]
        async with grpc.aio.secure_channel(address, grpcio_credentials(client_identity), options) as channel:
            await channel.unary_unary("/parity.Parity/Note")(b"", timeout=10)
        await server.stop(0)
    theirs, ours = ({key: list(values) for key, values in context.items()} for context in seen)
    assert set(ours) - {"peer_dns"} <= set(theirs)
    for key in ("transport_security_type", "x509_subject_alternative_name", "peer_spiffe_id", "x509_pem_cert"):
        assert ours[key] == theirs[key], key
