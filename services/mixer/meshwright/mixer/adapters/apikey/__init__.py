"""Adapter `apikey`: passes requests whose key is known and good for what they call."""

from meshwright.mixer.adapters.apikey.adapter import ADAPTER

__all__ = ["ADAPTER"]
