"""Adapter `kubernetesenv`: from the addresses and uids of a connection's ends to what the cluster knows of them."""

from meshwright.mixer.adapters.kubernetesenv.adapter import ADAPTER

__all__ = ["ADAPTER"]
