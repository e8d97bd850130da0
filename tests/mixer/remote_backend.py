"""In an adapter's place: a real gRPC server that answers as a test says, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import descriptor_sets
import grpc
import grpc.aio
from google.protobuf import message_factory

from meshwright.api.istio.mixer.adapter.model.v1beta1 import (
    check_pb2,
    infrastructure_backend_pb2,
    quota_pb2,
    report_pb2,
)
from meshwright.mixer.remote.handlers import read_template
from meshwright.mixer.remote.templates import RemoteTemplate, shipped

Answer = Callable[[Any, Any], Awaitable[Any]]
SESSION = "google.protobuf.Any.type_url"
BACKEND = "istio.mixer.adapter.model.v1beta1.InfrastructureBackend"


def known(name: str) -> RemoteTemplate:
    found = shipped(name)
    assert found is not None
    return found


KEYVAL = read_template(descriptor_sets.template_text())
TEMPLATES = [*map(known, ("listentry", "quota", "metric", "kubernetes", "checknothing")), KEYVAL]


def classes(template: RemoteTemplate) -> tuple[Any, Any]:
    """Request and answer of its method."""
    _, service, method = template.method.split("/")
    found = template.instance.file.pool.FindServiceByName(service).FindMethodByName(method)
    return message_factory.GetMessageClass(found.input_type), message_factory.GetMessageClass(found.output_type)


class Backend:
    """`answers` by template name; what isn't there is answered with an empty message."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.credentials = credentials
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, Any, dict[str, str]]] = []
        self.validated: list[Any] = []
        self.sessions: dict[str, Any] = {}
        self.closed: list[str] = []
        self.refusal = ""
        self.details: Any = None  # a message, of the refusal
        self.address = "localhost:0"
        self._changed = asyncio.Event()
        self._server: Any = None

    async def start(self) -> None:
        """Serve, at the same address as before."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for template in TEMPLATES:
            _, service, method = template.method.split("/")
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {method: self._method(template)}),)
            )
        pb = infrastructure_backend_pb2
        handlers = {
            "Validate": (self._validate, pb.ValidateRequest),
            "CreateSession": (self._create, pb.CreateSessionRequest),
            "CloseSession": (self._close, pb.CloseSessionRequest),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                method, kind.FromString, lambda answer: answer.SerializeToString()
            )
            for name, (method, kind) in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(BACKEND, methods),))
        if self.credentials is None:
            port = self._server.add_insecure_port(self.address)
        else:
            port = self._server.add_secure_port(self.address, self.credentials)
        self.address = f"localhost:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """As if the process were killed: connections break at once."""
        await self._server.stop(None)

    async def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until what came fulfils the condition."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def requests(self, template: str) -> list[Any]:
        """What a template's method was asked."""
        return [request for name, request, _ in self.asked if name == template]

    def _method(self, template: RemoteTemplate) -> Any:
        request_class, answer_class = classes(template)

        async def handle(request: Any, context: Any) -> Any:
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            self.asked.append((template.name, request, metadata))
            self._changed.set()
            answer = self.answers.get(template.name)
            return answer_class() if answer is None else await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(handle, request_class.FromString, _encode)

    async def _validate(self, request: Any, context: Any) -> Any:
        self.validated.append(request)
        if "Validate" in self.answers:
            return await self.answers["Validate"](request, context)
        answer = infrastructure_backend_pb2.ValidateResponse()
        if self.refusal:
            answer.status.code, answer.status.message = 3, self.refusal
        if self.details is not None:
            answer.status.details.add().Pack(self.details)
        self._changed.set()
        return answer

    async def _create(self, request: Any, context: Any) -> Any:
        name = f"session-{len(self.sessions)}"
        self.sessions[name] = request
        self._changed.set()
        return infrastructure_backend_pb2.CreateSessionResponse(session_id=name)

    async def _close(self, request: Any, context: Any) -> Any:
        self.closed.append(request.session_id)
        self._changed.set()
        return infrastructure_backend_pb2.CloseSessionResponse()


def _encode(answer: Any) -> bytes:
    encoded: bytes = answer if isinstance(answer, bytes) else answer.SerializeToString()
    return encoded


def check(code: int = 0, message: str = "", uses: int = 0) -> Answer:
    async def answer(request: Any, context: Any) -> Any:
        result = check_pb2.CheckResult(valid_use_count=uses)
        result.status.code, result.status.message = code, message
        result.valid_duration.FromMilliseconds(500)
        return result

    return answer


def grant(amount: int) -> Answer:
    async def answer(request: Any, context: Any) -> Any:
        result = quota_pb2.QuotaResult()
        for name, asked in request.quota_request.quotas.items():
            result.quotas[name].granted_amount = min(amount, asked.amount)
            result.quotas[name].valid_duration.FromSeconds(3)
        return result

    return answer


async def taken(request: Any, context: Any) -> Any:
    return report_pb2.ReportResult()


async def hang(request: Any, context: Any) -> Any:
    await asyncio.get_running_loop().create_future()


async def garbage(request: Any, context: Any) -> bytes:
    return b"\xff\xff\xff"
