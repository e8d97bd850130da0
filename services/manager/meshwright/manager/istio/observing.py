"""Telemetry objects as what proxies tell of requests, in the inner model's words."""

from __future__ import annotations

from collections.abc import Iterator

from meshwright.core.config import Key
from meshwright.manager.istio.telemetry import TelemetrySpec, Tracing
from meshwright.manager.istio.unknown import unsupported
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.observing import Observing


def observing(key: Key, spec: TelemetrySpec) -> Observing:
    """Return the shares of requests that are traced."""
    return Observing(key, spec.labels, _share(spec, "SERVER"), _share(spec, "CLIENT"))


def _share(spec: TelemetrySpec, direction: str) -> float | None:
    """Return the share of one direction; an entry for it alone comes before one for both."""
    found = [entry for entry in spec.tracing if _mode(entry) in (direction, "CLIENT_AND_SERVER")]
    for entry in sorted(found, key=lambda each: _mode(each) != direction):
        if entry.disable_span_reporting:
            return 0.0
        if entry.random_sampling_percentage is not None:
            return entry.random_sampling_percentage
    return None


def _mode(entry: Tracing) -> str:
    return entry.match.mode if entry.match else "CLIENT_AND_SERVER"


def notices(key: Key, spec: TelemetrySpec) -> Iterator[Notice]:
    """Tell what of it proxies don't do."""
    for number, entry in enumerate(spec.tracing):
        where = f"spec.tracing[{number}]"
        yield from unsupported(
            key,
            [
                (f"{where}.providers", entry.providers, "spans go to the mesh's collector"),
                (f"{where}.customTags", entry.custom_tags, "spans have the tags that all of the mesh's have"),
                (
                    f"{where}.useRequestIdForTraceSampling",
                    entry.use_request_id_for_trace_sampling is not None,
                    "a trace is sampled where it begins",
                ),
                (f"{where}.enableIstioTags", entry.enable_istio_tags is not None, "spans have the mesh's own tags"),
                (f"{where}.disableContextPropagation", entry.disable_context_propagation, "traces go on as they came"),
            ],
        )
    text = "mixer makes {} of every request's report: write a rule of mixer's"
    for field, entries, what in (
        ("metrics", spec.metrics, "metrics"),
        ("accessLogging", spec.access_logging, "access logs"),
    ):
        yield from unsupported(key, [(f"spec.{field}", entries, text.format(what))])
