"""Which objects a refused resource came from: an object's status tells what proxies say of what was made of it.

One decision to know: a resource's name, and what a proxy says, name hosts of services; whoever speaks of such a host
had a part in it. An object that makes routes of one host isn't blamed for those of another in the same configuration.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from meshwright.core.config import Key
from meshwright.manager.model.domain import DOMAIN, service_of
from meshwright.manager.model.mesh import Mesh
from meshwright.manager.model.notices import referrers

_HOST = re.compile(rf"[a-z0-9][-a-z0-9]*(?:\.[-a-z0-9]+)*\.{re.escape(DOMAIN)}")
_HOSTS = 8  # of one refusal


def origins(mesh: Mesh, resource: str, words: str) -> frozenset[Key]:
    """Return the objects that a refused resource came from, by its name and the proxy's words."""
    found: set[Key] = set()
    for host in sorted(set(_HOST.findall(f"{resource} {words}")))[:_HOSTS]:
        found.update(referrers(mesh, host))
        if service := service_of(host):
            found.add(Key("v1", "Service", *service))
    return frozenset(found)


def complaining(proxies: Sequence[Any]) -> list[Any]:
    """Return the proxies that have refused something, of messages ProxyStatusResponse.Proxy."""
    return [proxy for proxy in proxies if any(kind.refused for kind in proxy.types)]


def refused(mesh: Mesh, key: Key, proxies: Sequence[Any]) -> str:
    """Return what a proxy says of a resource that an object has a part in; empty when none complains.

    `proxies` are those that `complaining` returns.
    """
    for proxy in proxies:
        for kind in proxy.types:
            for refusal in kind.refused:
                if key in origins(mesh, refusal.name, refusal.words):
                    return f"{proxy.node_id} refused {refusal.name}: {refusal.words}"
    return ""
