"""How far a revision has come: which proxies have acknowledged it, and what one says that hasn't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Of `proxies` those in `have` have it; `error` is a proxy's complaint.

    `refusal` is what a proxy said of a resource that the object has a part in; nobody has that resource then.
    """

    have: int
    proxies: int
    error: str = ""
    refusal: str = ""

    @property
    def complete(self) -> bool:
        """Whether nobody is waited for."""
        return self.have >= self.proxies and not self.refusal


def acknowledged(proxies: Sequence[Any], revision: int, refusal: str = "") -> Acknowledged:
    """Count, over messages ProxyStatusResponse.Proxy."""
    have = sum(proxy.acknowledged_revision >= revision for proxy in proxies)
    complaints = (
        f"{proxy.node_id} refused {kind.type_url.rpartition('.')[2]}: {kind.error}"
        for proxy in proxies
        if proxy.acknowledged_revision < revision
        for kind in proxy.types
        if kind.error
    )
    return Acknowledged(have, len(proxies), next(complaints, ""), refusal)
