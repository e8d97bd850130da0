"""Responses that are the same for many clients, put together once.

One decision to know: the nonce belongs to the bytes, not to the stream. Whoever is sent the same resources at the same
version gets the same response, and acknowledges it with the same bytes, which are read once too. A stream that would
get one nonce twice gets a response of its own.
"""

from __future__ import annotations

from collections import OrderedDict

from meshwright.manager.xds import wire
from meshwright.manager.xds.typestate import Answer

_KEPT_BYTES = 32 << 20  # of responses that others may want too
_KEPT = 1024

_Key = tuple[bool, str, str, tuple[str, ...], tuple[str, ...]]


class Responses:
    """Makes responses; one for all streams of a server."""

    def __init__(self) -> None:
        self._nonces = 0
        self._kept: OrderedDict[_Key, tuple[int, bytes]] = OrderedDict()
        self._bytes = 0

    def make(self, type_url: str, version: str, answer: Answer, *, delta: bool, after: str) -> tuple[str, bytes]:
        """Return nonce and bytes; the nonce is a higher number than `after`, the last one of that stream and type."""
        key = (delta, type_url, version, tuple([one.version for one in answer.resources]), answer.removed)
        found = self._kept.get(key)
        if found is None:
            found = self._made(key, answer)
        elif found[0] <= int(after or 0):
            self._bytes -= len(found[1])
            del self._kept[key]
            found = self._made(key, answer)
        return str(found[0]), found[1]

    def _made(self, key: _Key, answer: Answer) -> tuple[int, bytes]:
        delta, type_url, version, _, removed = key
        self._nonces += 1
        if delta:
            body = wire.delta_response(type_url, version, (resource.delta for resource in answer.resources), removed)
        else:
            body = wire.response(type_url, version, (resource.body for resource in answer.resources))
        made = self._nonces, body + wire.nonce(str(self._nonces))
        self._kept[key] = made
        self._bytes += len(made[1])
        while self._bytes > _KEPT_BYTES or len(self._kept) > _KEPT:
            _, (_, old) = self._kept.popitem(last=False)
            self._bytes -= len(old)
        return made
