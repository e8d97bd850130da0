"""What mixer has to lend to adapters; each handler gets it through an environment of its own."""

from __future__ import annotations

from dataclasses import dataclass

from meshwright.core.grpc import Channel
from meshwright.core.identity import IdentitySource, part_id


@dataclass(frozen=True, slots=True)
class MixerHost:
    """Lends mixer's identity; without one, only collectors on this machine can be reached."""

    otlp: str | None
    replica: str
    identity: IdentitySource | None
    trust_domain: str

    def channel(self, target: str, peer: str | None) -> Channel:
        """A channel that follows the rotation of mixer's identity."""
        expected = (peer or part_id(self.trust_domain, "collector")) if self.identity else None
        return Channel(target, self.identity, peer=expected)
