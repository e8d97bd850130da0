"""One form of what the draft writes in several: a bare version, and two kinds that were renamed.

A name at the root is in the metadata already when an object comes here (`meshwright.core.config.objects`).
"""

from __future__ import annotations

from typing import Any

Raw = dict[str, Any]

API_VERSION = "smi.meshwright.io/v1beta1"
BARE = "v1beta1"  # the draft had no group
RENAMED = {"MutualTLS": "TLSConfig", "Monitor": "Sidecar"}


def newest(raw: Raw) -> Raw:
    """Return an object under our group and its kind's last name."""
    kind = str(raw["kind"])
    return {**raw, "apiVersion": API_VERSION, "kind": RENAMED.get(kind, kind)}
