"""Adapter `opentelemetry`: log entries, metrics and spans to an OTLP collector, over mutual TLS.

Metrics are sent as deltas of one batch, so nothing is kept between batches and a batch is either exported or comes
again. What may have been exported before carries `meshwright.redelivered=true`.
"""

from meshwright.mixer.adapters.opentelemetry.adapter import ADAPTER

__all__ = ["ADAPTER"]
