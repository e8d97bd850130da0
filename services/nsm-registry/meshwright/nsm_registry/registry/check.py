"""Refuses objects that can't be kept or would cost others: names, counts and sizes have limits."""

from __future__ import annotations

from typing import Any

from meshwright.core import errors
from meshwright.nsm.errors import InvalidRegistration
from meshwright.nsm.wire import NetworkServiceEndpoint
from meshwright.nsm_registry.registry.chain import Exchange, Proceed
from meshwright.nsm_registry.registry.directory import Directory

_NAME = 253  # octets, as DNS names
_URL = 1024
_SERVICES = 64  # of one endpoint
_SIZE = 64 * 1024  # octets of a whole object


class Check:
    """`limit` bounds how many objects of this kind there are."""

    def __init__(self, directory: Directory, *, limit: int) -> None:
        self._directory, self._limit = directory, limit

    async def __call__(self, message: Any, exchange: Exchange, proceed: Proceed) -> Any:
        """Check, and go on."""
        if exchange.registering:
            _check(message)
            if self._directory.get(message.name) is None and len(self._directory) >= self._limit:
                kind = self._directory.kind.name
                raise errors.Exhausted(f"{self._limit} {kind} are registered already (--max-{kind})")
        return await proceed(message, exchange)


def _check(message: Any) -> None:
    if message.ByteSize() > _SIZE:
        raise InvalidRegistration(f"{message.ByteSize()} octets", field="message", remedy=f"{_SIZE} at most")
    _check_name(message.name, "name")
    if isinstance(message, NetworkServiceEndpoint):
        if not message.network_service_names:
            raise InvalidRegistration("is empty", field="network_service_names", remedy="name what the endpoint serves")
        if len(message.network_service_names) > _SERVICES:
            raise InvalidRegistration(f"has more than {_SERVICES}", field="network_service_names")
        for position, name in enumerate(message.network_service_names):
            _check_name(name, f"network_service_names[{position}]")
        if not message.url or len(message.url.encode()) > _URL:
            raise InvalidRegistration(
                f"must have 1 to {_URL} octets", field="url", remedy="say where the endpoint is reached"
            )


def _check_name(name: str, field: str) -> None:
    if not name or len(name.encode()) > _NAME or not name.isprintable():
        raise InvalidRegistration(
            f"{name[:50]!r} can't be a name", field=field, remedy=f"1 to {_NAME} printable characters"
        )
