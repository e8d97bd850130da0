"""Metrics of every hop of the network service API; the README of nsm-registry has them as a table."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter("meshwright_nsm_calls", "Requests and Closes that this hop answered.", ["operation", "code"])
SECONDS = Histogram(
    "meshwright_nsm_call_seconds",
    "Time that a Request or Close took at this hop, with all hops after it.",
    ["operation"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
CONNECTIONS = Gauge("meshwright_nsm_connections", "Connections that this hop holds.")
EXPIRED = Counter("meshwright_nsm_connections_expired", "Connections closed because nobody refreshed them.")
UNDONE = Counter("meshwright_nsm_connections_undone", "First requests that failed and were closed again.")
REGISTERED = Gauge("meshwright_nsm_registered", "Network services or endpoints registered here.", ["kind"])
REGISTRATIONS = Counter("meshwright_nsm_registrations", "Registers and Unregisters answered.", ["operation", "code"])
WATCHERS = Gauge("meshwright_nsm_watchers", "Find streams that watch.", ["kind"])
