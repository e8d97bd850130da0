"""Adapter `zipkin`: spans of requests to a Zipkin collector, by its HTTP API, version 2."""

from meshwright.mixer.adapters.zipkin.adapter import ADAPTER

__all__ = ["ADAPTER"]
