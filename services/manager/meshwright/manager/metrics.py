"""The manager's own metrics, all in one place; the README has them as a table."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PROXIES = Gauge("meshwright_manager_proxies", "Proxies connected to this replica.")
REVISION = Gauge("meshwright_manager_revision", "Revision of the configuration that this replica distributes.")
BUILD_SECONDS = Gauge("meshwright_manager_build_seconds", "Time that the last change took to become resources.")
RESPONSES = Counter("meshwright_manager_responses", "Discovery responses sent.")
RESPONSE_BYTES = Counter("meshwright_manager_response_bytes", "Bytes of the discovery responses sent.")
REFUSALS = Counter(
    "meshwright_manager_refusals", "Discovery responses that proxies refused, by resource type.", ["type"]
)
DENIED = Counter("meshwright_manager_denied", "Streams refused because identity and node id don't fit.")
COMMITS = Counter("meshwright_manager_commits", "Revisions committed by this replica.")
REJECTED = Counter("meshwright_manager_rejected", "Requests with at least one fault, of which nothing was applied.")
INJECTIONS = Counter(
    "meshwright_manager_injections", "Pods that the webhook was asked about, by what became of them.", ["outcome"]
)
CONVERSIONS = Counter(
    "meshwright_manager_conversions", "Reviews that asked for objects in another version, by outcome.", ["outcome"]
)
UNTRANSLATED = Counter(
    "meshwright_manager_untranslated",
    "Services whose routes or policies couldn't be translated, so that their callers are refused.",
)
KUBERNETES_OBJECTS = Gauge(
    "meshwright_manager_kubernetes_objects", "Objects of the cluster that this manager knows, by kind.", ["kind"]
)
KUBERNETES_RESTARTS = Counter(
    "meshwright_manager_kubernetes_restarts",
    "Lists and watches of the cluster that failed and were begun anew.",
    ["kind"],
)
KUBERNETES_REJECTED = Gauge(
    "meshwright_manager_kubernetes_rejected",
    "Custom resources that aren't in force, as the elected replica counts them.",
)
KUBERNETES_STATUSES = Counter("meshwright_manager_kubernetes_statuses", "Statuses of custom resources written.")
ELECTED = Gauge("meshwright_manager_elected", "1 while this replica writes for all: store and statuses.")
ACKNOWLEDGED_SECONDS = Histogram(
    "meshwright_manager_acknowledged_seconds",
    "Time from an accepted change until 90 % of the proxies had acknowledged it, by resource type.",
    ["type"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
