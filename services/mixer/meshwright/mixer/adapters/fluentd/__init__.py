"""Adapter `fluentd`: log entries by Fluentd's forward protocol, acknowledged chunk by chunk."""

from meshwright.mixer.adapters.fluentd.adapter import ADAPTER

__all__ = ["ADAPTER"]
