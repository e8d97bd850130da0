"""Metrics of the packets that the forwarder's own threads carry, read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from meshwright.dataplane.forwarder import Forwarder

_WHERE = ("connection", "side", "direction")


class Packets(Collector):
    """`direction` is seen from the forwarder: received from that side's peer, or sent to it."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        packets = CounterMetricFamily("meshwright_forwarder_packets", "Packets carried in user space.", labels=_WHERE)
        octets = CounterMetricFamily("meshwright_forwarder_bytes", "Bytes carried in user space.", labels=_WHERE)
        drops = CounterMetricFamily(
            "meshwright_forwarder_dropped_packets", "Packets not carried, and why.", labels=(*_WHERE, "reason")
        )
        links = CounterMetricFamily(
            "meshwright_forwarder_memif_links", "Times that a memif was connected.", labels=_WHERE[:2]
        )
        up = GaugeMetricFamily("meshwright_forwarder_memif_up", "Whether a memif is connected.", labels=_WHERE[:2])
        for identifier, sides in self._forwarder.flows().items():
            for side, flows in zip(("client", "endpoint"), sides, strict=True):
                for direction, flow in (("received", flows.received), ("sent", flows.sent)):
                    packets.add_metric((identifier, side, direction), flow.packets)
                    octets.add_metric((identifier, side, direction), flow.bytes)
                    for reason, count in flow.drops.items():
                        if count:
                            drops.add_metric((identifier, side, direction, reason), count)
                if flows.memif is not None:
                    links.add_metric((identifier, side), flows.memif.links)
                    up.add_metric((identifier, side), flows.memif.up)
        return [packets, octets, drops, links, up]
