"""Takes records as a handler in Python would."""

from __future__ import annotations

import asyncio

from meshwright.api.mixer.v1 import record_pb2
from meshwright.dataplane.policy import Engine


async def drained(engine: Engine, count: int) -> list[record_pb2.Record]:
    """Take as many records as a handler in Python would, and settle them."""
    records: list[record_pb2.Record] = []
    async with asyncio.timeout(10):
        while len(records) < count:
            batch = await asyncio.to_thread(engine.take_records, 0.2)
            if batch is not None:
                records += [record_pb2.Record.FromString(data) for data, _ in batch.records]
                batch.settle([])
    return records
