"""Adapters in a mixer of the test's own: real documents through the compiler, the engine and the host of adapters.

One decision to know: only the network and the work queue are left out. Checks go over a Unix socket to the engine's own
gRPC service; reports come from there and go straight to the adapter, which must take them before `report` returns.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import prometheus_client
import yaml

from meshwright.api.istio.mixer.v1 import mixer_pb2, mixer_pb2_grpc
from meshwright.api.mixer.v1 import record_pb2
from meshwright.core.config import objects
from meshwright.core.grpc import Channel
from meshwright.core.health import Health
from meshwright.dataplane.grpc import NativeServer
from meshwright.dataplane.policy import Engine, Questions
from meshwright.mixer import adapters, check
from meshwright.mixer.adapter.v1 import Adapter, Code
from meshwright.mixer.asking.adapter_metrics import AdapterMetrics
from meshwright.mixer.asking.host import AdapterHost
from meshwright.mixer.config.compiler import compile_policy
from meshwright.mixer.config.violation import PolicyError
from meshwright.mixer.host import MixerHost
from meshwright.mixer.pipeline.dispatch import Arrival, Dispatcher

CALL_SECONDS = 10.0
TAKE_SECONDS = 0.02

Documents = str | Iterable[Mapping[str, Any]]
"""YAML, or documents as YAML reads them."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a caller is told. `granted` has what each quota that was asked for granted."""

    code: Code
    message: str
    valid_duration: timedelta
    valid_use_count: int
    granted: Mapping[str, int]
    request_headers: Mapping[str, str]
    response_headers: Mapping[str, str]
    direct_response_code: int = 0
    direct_response_body: str = ""
    raw: mixer_pb2.CheckResponse = field(repr=False, default_factory=mixer_pb2.CheckResponse)


class Served:
    """A mixer that serves one test."""

    def __init__(
        self, engine: Engine, questions: Questions, dispatcher: Dispatcher, channel: Any, health: Health
    ) -> None:
        self._engine, self._questions, self._dispatcher = engine, questions, dispatcher
        self._stub = mixer_pb2_grpc.MixerStub(channel)
        self.health = health

    async def check(
        self,
        attributes: Mapping[str, Any],
        quotas: Mapping[str, int] | None = None,
        *,
        best_effort: bool = False,
        deduplication_id: str | None = None,
    ) -> Decision:
        """Ask as a sidecar does; addresses as bytes."""
        return await self.ask(
            check.request(attributes, quotas, best_effort=best_effort, deduplication_id=deduplication_id)
        )

    async def ask(self, request: mixer_pb2.CheckRequest) -> Decision:
        """Send a request as it is."""
        response: mixer_pb2.CheckResponse = await self._stub.Check(request, timeout=CALL_SECONDS)
        said, directive = response.precondition, response.precondition.route_directive
        return Decision(
            code=Code(said.status.code),
            message=said.status.message,
            valid_duration=said.valid_duration.ToTimedelta(),
            valid_use_count=said.valid_use_count,
            granted={name: each.granted_amount for name, each in response.quotas.items()},
            request_headers={each.name: each.value for each in directive.request_header_operations},
            response_headers={each.name: each.value for each in directive.response_header_operations},
            direct_response_code=directive.direct_response_code,
            direct_response_body=directive.direct_response_body,
            raw=response,
        )

    def questions(self) -> Mapping[str, Any]:
        """What became of questions, by handler: asked, failures, durations, in_flight and breaker."""
        return self._questions.statistics()

    def batches(self) -> tuple[int, int]:
        """How often questions entered Python, and how many in all."""
        return self._questions.batches()

    async def report(self, *records: Mapping[str, Any]) -> bool:
        """Report requests, and return whether every handler that they are for took them."""
        request = mixer_pb2.ReportRequest(
            repeated_attributes_semantics=mixer_pb2.ReportRequest.INDEPENDENT_ENCODING,
            attributes=[check.request(each).attributes for each in records],
        )
        await self._stub.Report(request, timeout=CALL_SECONDS)
        is_taken = True
        while True:
            batch = await asyncio.to_thread(self._engine.take_records, TAKE_SECONDS)
            if batch is not None:
                arrivals = [Arrival(record_pb2.Record.FromString(data), marked) for data, marked in batch.records]
                is_taken &= not await self._dispatcher.deliver(arrivals)
                batch.settle([])  # what was refused doesn't come again: the test says what comes next
            elif await asyncio.to_thread(self._engine.finish_records, 0.0):
                return is_taken


@asynccontextmanager
async def serving(
    adapter: Adapter | Sequence[Adapter], documents: Documents, *, otlp: str | None = None
) -> AsyncIterator[Served]:
    """A mixer with these documents, and `adapter` beside the built-in ones.

    ConfigError when a document is wrong; a handler that can't be opened shows in `health`, as in mixer.
    """
    given = [adapter] if not isinstance(adapter, Sequence) else adapter
    installed = {each.name: each for each in (*adapters.BUILT_IN, *given)}
    compiled = compile_policy(_objects(documents), installed)
    if compiled.dropped:
        raise PolicyError(compiled.dropped)
    health = Health()
    async with AsyncExitStack() as stack:
        engine = Engine()
        stack.callback(engine.close)
        questions = Questions()
        stack.callback(questions.close)
        engine.ask_python(questions)
        lent = MixerHost(otlp, "test", None, "mesh.local")
        metrics = AdapterMetrics(prometheus_client.CollectorRegistry())
        host = await stack.enter_async_context(
            AdapterHost(installed, lent, health, questions, engine.outdated, metrics=metrics)
        )
        await host.prepare(compiled.sinks)
        await asyncio.to_thread(engine.load, compiled.policy)
        host.commit(compiled.sinks)
        dispatcher = Dispatcher(host.report, health)
        dispatcher.configure(compiled.sinks)
        engine.carry_records(None, batch_seconds=0.001)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = NativeServer(f"unix:{folder}/mixer", None, native=[engine.services])
        address = await server.start()
        stack.push_async_callback(server.stop, 1.0)
        channel = await stack.enter_async_context(Channel(address, None))
        yield Served(engine, questions, dispatcher, channel, health)


def _objects(documents: Documents) -> list[objects.Object]:
    read = yaml.safe_load_all(documents) if isinstance(documents, str) else documents
    return [objects.from_document(each, "test", line=0) for each in read if each is not None]
