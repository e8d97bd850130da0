"""A real gRPC server of istio.mixer.v1 in the test's own process, which remembers what it was asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc

from meshwright.api.istio.mixer.v1 import mixer_pb2, mixer_pb2_grpc
from meshwright.core.config import Object
from meshwright.dataplane.policy import Engine
from meshwright.mixer.config.loader import PolicyLoader


def engine_of(documents: Sequence[Object]) -> Engine:
    """An engine with these documents; none is left out."""
    engine = Engine()
    compiled = PolicyLoader({}, engine.load, export=False).load(documents)
    assert not compiled.dropped, compiled.dropped
    return engine


class Server(mixer_pb2_grpc.MixerServicer):
    """Answers from the engine, or fails with what `failures` has left."""

    def __init__(self, documents: Sequence[Object] = ()) -> None:
        self.engine = engine_of(documents)
        self.checks: list[mixer_pb2.CheckRequest] = []
        self.reports: list[mixer_pb2.ReportRequest] = []
        self.failures: list[tuple[grpc.StatusCode, str]] = []

    async def Check(
        self,
        request: mixer_pb2.CheckRequest,
        context: grpc.aio.ServicerContext[mixer_pb2.CheckRequest, mixer_pb2.CheckResponse],
    ) -> mixer_pb2.CheckResponse:
        """Decide."""
        self.checks.append(request)
        if self.failures:
            await context.abort(*self.failures.pop(0))
        return mixer_pb2.CheckResponse.FromString(self.engine.check(request.SerializeToString()))

    async def Report(
        self,
        request: mixer_pb2.ReportRequest,
        context: grpc.aio.ServicerContext[mixer_pb2.ReportRequest, mixer_pb2.ReportResponse],
    ) -> mixer_pb2.ReportResponse:
        """Take."""
        self.reports.append(request)
        if self.failures:
            await context.abort(*self.failures.pop(0))
        return mixer_pb2.ReportResponse()

    @contextlib.asynccontextmanager
    async def served(self, folder: Path) -> AsyncIterator[str]:
        """Serve on a Unix socket; give its target."""
        server = grpc.aio.server()
        mixer_pb2_grpc.add_MixerServicer_to_server(self, server)
        target = f"unix:{folder}/mixer.sock"
        server.add_insecure_port(target)
        await server.start()
        try:
            yield target
        finally:
            await server.stop(None)
