"""Adapter `webhook`: asks an HTTP service for decisions, and posts reports to it, as JSON."""

from meshwright.mixer.adapters.webhook.adapter import ADAPTER

__all__ = ["ADAPTER"]
