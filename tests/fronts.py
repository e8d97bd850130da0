"""Which front the services of a test stand on: what the fixture `grpc_front` chose, else the default."""

from __future__ import annotations

from meshwright.core.grpc import Front

CURRENT: Front = "native"
