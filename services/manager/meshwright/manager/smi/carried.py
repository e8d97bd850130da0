"""Annotations that carry what a version of an SMI kind has no field for, so that conversion loses nothing."""

from __future__ import annotations

PREFIX = "smi.meshwright.io/"

DESTINATION_PORT = f"{PREFIX}destination-port"  # TrafficTarget: in force, it narrows what the rules allow
SOURCE_PORTS = f"{PREFIX}source-ports"
ABSENT = f"{PREFIX}absent"
UDP_RULES = f"{PREFIX}udp-rules"
MATCHES = f"{PREFIX}matches"
WEIGHTS = f"{PREFIX}weights"
SPEC = f"{PREFIX}spec"
