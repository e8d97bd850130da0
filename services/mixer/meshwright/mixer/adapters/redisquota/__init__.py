"""Adapter `redisquota`: quotas in a Redis server, shared by whoever uses that server."""

from meshwright.mixer.adapters.redisquota.adapter import ADAPTER

__all__ = ["ADAPTER"]
