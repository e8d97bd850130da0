"""Registrations: which processes of which node are which workload."""
