"""Runs in the administrator's pod: prints the spans of a trace that the collector has, as JSON.

python - TRACE_ID COLLECTOR and the arguments by which the pod gets its identity.
"""

import asyncio
import json
import sys

from meshwright.api.collector.v1 import collector_pb2, collector_pb2_grpc
from meshwright.core import citadel_identity, settings
from meshwright.core.grpc import Channel
from meshwright.core.identity import part_id


class Administrator(settings.ServiceSettings):
    """Who asks."""

    part = "admin"


async def main(trace_id, collector, *arguments):
    """Ask once."""
    own = settings.load(Administrator, arguments)
    async with citadel_identity.source(own) as identity:
        peer = part_id(own.trust_domain, "collector")
        async with Channel(collector, identity, peer=peer) as channel:
            query = collector_pb2_grpc.CollectorQueryStub(channel)
            found = await query.FindTraces(collector_pb2.FindTracesRequest(trace_id=trace_id), timeout=10)
    fields = ("service", "name", "span_id", "parent_span_id")
    spans = [{field: getattr(span, field) for field in fields} for trace in found.traces for span in trace.spans]
    print(json.dumps(spans))


asyncio.run(main(*sys.argv[1:]))
