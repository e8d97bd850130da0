"""Adapter `rbac`: decides by the classic kinds ServiceRole, ServiceRoleBinding and RbacConfig."""

from meshwright.mixer.adapters.rbac.adapter import ADAPTER

__all__ = ["ADAPTER"]
