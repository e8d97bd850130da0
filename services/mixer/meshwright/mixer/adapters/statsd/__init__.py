"""Adapters `statsd` and `dogstatsd`: measurements as lines in UDP datagrams.

UDP has no acknowledgement: a batch counts as taken when its datagrams have left, and what a server that is away misses
is lost. Where measurements must not be lost, use `prometheus` or `opentelemetry`.
"""

from meshwright.mixer.adapters.statsd.adapter import DOGSTATSD, STATSD

__all__ = ["DOGSTATSD", "STATSD"]
