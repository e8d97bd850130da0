"""The query API: what is kept, for the admin identity."""

from __future__ import annotations

import itertools
import re
from typing import Any

import grpc

from meshwright.api.collector.v1 import collector_pb2 as pb
from meshwright.api.collector.v1 import collector_pb2_grpc as rpc
from meshwright.platform.collector import logs
from meshwright.platform.collector.forward import Forwarder
from meshwright.platform.collector.logs import LogStore
from meshwright.platform.collector.metrics import MetricStore
from meshwright.platform.collector.traces import TraceStore

_TRACE_ID = re.compile(r"[0-9a-fA-F]{32}")


class Query(rpc.CollectorQueryServicer):
    """Answers from the three stores."""

    def __init__(
        self, traces: TraceStore, logs: LogStore, metrics: MetricStore, forwarder: Forwarder | None = None
    ) -> None:
        self._traces, self._logs, self._metrics, self._forwarder = traces, logs, metrics, forwarder

    async def FindTraces(self, request: pb.FindTracesRequest, context: Any) -> pb.FindTracesResponse:
        """Return the newest traces that match."""
        await _check_trace_id(request.trace_id, context)
        found = self._traces.find(
            trace_id=request.trace_id, attributes=dict(request.attributes), span_name=request.span_name
        )
        return pb.FindTracesResponse(traces=itertools.islice(found, min(request.limit or 20, 1000)))

    async def FindLogs(self, request: pb.FindLogsRequest, context: Any) -> pb.FindLogsResponse:
        """Return the newest records that match, oldest first, and count all that match."""
        await _check_trace_id(request.trace_id, context)
        limit, matched = min(request.limit or 100, 50_000), 0
        newest: list[pb.LogRecord] = []
        for resource, record in self._logs.find(
            attributes=dict(request.attributes), body=request.body, trace_id=request.trace_id
        ):
            matched += 1
            if len(newest) < limit:
                newest.append(logs.answer(resource, record))
        return pb.FindLogsResponse(records=reversed(newest), matched=matched)

    async def FindMetrics(self, request: pb.FindMetricsRequest, context: Any) -> pb.FindMetricsResponse:
        """Return the latest points that match."""
        return pb.FindMetricsResponse(points=self._metrics.find(name=request.name, attributes=dict(request.attributes)))

    async def Statistics(self, request: pb.StatisticsRequest, context: Any) -> pb.StatisticsResponse:
        """Return the stores' counters."""
        return pb.StatisticsResponse(
            traces=len(self._traces),
            spans_received=self._traces.received,
            traces_evicted=self._traces.evicted,
            logs=len(self._logs),
            logs_received=self._logs.received,
            logs_evicted=self._logs.evicted,
            points=len(self._metrics),
            forwarded=self._forwarder.sent if self._forwarder else 0,
            forward_dropped=self._forwarder.dropped if self._forwarder else 0,
        )


async def _check_trace_id(text: str, context: Any) -> None:
    if text and not _TRACE_ID.fullmatch(text):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"trace_id: {text[:40]!r} isn't 32 hexadecimal digits")
