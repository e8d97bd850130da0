"""The domain under which clusters name their services."""

from __future__ import annotations

DOMAIN = "svc.cluster.local"
