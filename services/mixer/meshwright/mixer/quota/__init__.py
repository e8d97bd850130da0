"""Quotas that a store holds across replicas."""
