"""What clients of mixer are configured with: which quotas a request is charged, and what its API calls it.

`ClientSpecs` answers for one service; the other modules are the kinds. Pure, and free of the servers: whoever asks
mixer for others (meshwright.mixer.client, a proxy) can use it.
"""

from __future__ import annotations

from meshwright.mixer.specs.client import ClientSpecs, ServiceSpecs

__all__ = ["ClientSpecs", "ServiceSpecs"]
