"""Instances that register themselves for as long as they live: held by leases in the store, followed by every manager.

One decision to know: a registration is a lease of the replica that took it, kept for as long as its owner renews. When
the owner falls silent, or the replica dies, etcd itself removes the entry; the owner then registers anew, anywhere.
"""
