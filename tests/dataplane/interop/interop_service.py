"""grpc's test service in ordinary async handlers, added to servers as generated code adds one, and its stub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from interop_messages import (
    FILE,
    PACKAGE,
    Empty,
    Payload,
    SimpleResponse,
    StreamingInputCallResponse,
    StreamingOutputCallResponse,
    message,
)

INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


class TestServicer:
    """What the cases' description asks of a server. `UnimplementedCall` is left out, as it asks."""

    __test__ = False  # pytest: not a class of tests

    async def EmptyCall(self, request: Any, context: Any) -> Any:
        return Empty()

    async def UnaryCall(self, request: Any, context: Any) -> Any:
        await echo_metadata(context)
        await refuse_if_told(request, context)
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        answer = SimpleResponse(payload=zeros(request.response_size))
        if request.fill_server_id:
            answer.server_id = "meshwright"
        return answer

    async def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if any(asked.compressed.value for asked in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        async for response in answers(request, context):
            yield response

    async def StreamingInputCall(self, requests: AsyncIterator[Any], context: Any) -> Any:
        size = 0
        async for request in requests:
            size += len(request.payload.body)
        return StreamingInputCallResponse(aggregated_payload_size=size)

    async def FullDuplexCall(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await echo_metadata(context)
        async for request in requests:
            await refuse_if_told(request, context)
            async for response in answers(request, context):
                yield response

    async def HalfDuplexCall(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        for request in [request async for request in requests]:
            async for response in answers(request, context):
                yield response


async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
    """Make the responses that one request asks for."""
    for asked in request.response_parameters:
        if asked.interval_us:
            await asyncio.sleep(asked.interval_us / 1e6)
        if asked.HasField("compressed") and not asked.compressed.value:
            context.disable_next_message_compression()
        yield StreamingOutputCallResponse(payload=zeros(asked.size))


def zeros(size: int) -> Any:
    """Return a payload of that many zero bytes."""
    return Payload(body=bytes(size))


async def echo_metadata(context: Any) -> None:
    """Send the two entries back, each where the description says."""
    sent = dict(context.invocation_metadata())
    if INITIAL in sent:
        await context.send_initial_metadata([(INITIAL, sent[INITIAL])])
    if TRAILING in sent:
        context.set_trailing_metadata([(TRAILING, sent[TRAILING])])


async def refuse_if_told(request: Any, context: Any) -> None:
    """End the call with the status that the request names."""
    asked = request.response_status
    if asked.code:
        code = next(code for code in grpc.StatusCode if code.value[0] == asked.code)
        await context.abort(code, asked.message)


def add_to_server(servicer: Any, server: Any) -> None:
    """Do what generated code does."""
    handlers = {}
    for method in FILE.service[0].method:
        if (behaviour := getattr(servicer, method.name, None)) is None:
            continue
        make = getattr(grpc, f"{_kind(method)}_rpc_method_handler")
        handlers[method.name] = make(
            behaviour,
            request_deserializer=_class(method.input_type).FromString,
            response_serializer=_class(method.output_type).SerializeToString,
        )
    name = f"{PACKAGE}.TestService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    server.add_registered_method_handlers(name, handlers)


class Stub:
    """What generated code gives a client: a callable for each method of a service."""

    def __init__(self, channel: Any, service: str = "TestService") -> None:
        for described in FILE.service:
            if described.name == service:
                for method in described.method:
                    callable_of = getattr(channel, _kind(method))(
                        f"/{PACKAGE}.{service}/{method.name}",
                        request_serializer=_class(method.input_type).SerializeToString,
                        response_deserializer=_class(method.output_type).FromString,
                        _registered_method=True,
                    )
                    setattr(self, method.name, callable_of)

    def __getattr__(self, name: str) -> Any:  # for mypy: methods are set by name
        raise AttributeError(name)


def _kind(method: Any) -> str:
    words = ("unary", "stream")
    return f"{words[method.client_streaming]}_{words[method.server_streaming]}"


def _class(type_name: str) -> Any:
    return message(type_name.rpartition(".")[2])
