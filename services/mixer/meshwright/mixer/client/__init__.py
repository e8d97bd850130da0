"""A client of istio.mixer.v1 that behaves as the original sidecar did: it caches, fetches quota ahead, batches records.

It needs neither the servers nor the native module. docs/check-client.md shows how to use it.
"""

from meshwright.mixer.client.client import Decision, MixerClient
from meshwright.mixer.client.encoding import Attributes, AttributeValue
from meshwright.mixer.client.options import Options
from meshwright.mixer.client.statistics import Statistics

__all__ = ["AttributeValue", "Attributes", "Decision", "MixerClient", "Options", "Statistics"]
