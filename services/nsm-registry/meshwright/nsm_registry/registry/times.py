"""When an endpoint was first registered, and when its registration is over.

One decision to know: unlike in the original, the deadline of the call takes nothing off the life of the registration.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from meshwright.nsm.errors import InvalidRegistration
from meshwright.nsm_registry.registry.chain import Exchange, Proceed
from meshwright.nsm_registry.registry.directory import Directory


class SetTimes:
    """`default` is the life of a registration that asks for none."""

    def __init__(self, directory: Directory, *, default: timedelta) -> None:
        self._directory, self._default = directory, default

    async def __call__(self, message: Any, exchange: Exchange, proceed: Proceed) -> Any:
        """Set both times, and go on."""
        if exchange.registering:
            now = exchange.clock.now()
            expires = now + self._default
            if message.HasField("expiration_time"):
                expires = message.expiration_time.ToDatetime(tzinfo=UTC)
                if expires <= now:
                    raise InvalidRegistration("has passed", field="expiration_time", remedy="is this clock right?")
            message.expiration_time.FromDatetime(min(expires, exchange.latest or expires))
            known = self._directory.get(message.name)
            if known is not None and not known.gone and known.message.HasField("initial_registration_time"):
                message.initial_registration_time.CopyFrom(known.message.initial_registration_time)
            elif not message.HasField("initial_registration_time"):
                message.initial_registration_time.FromDatetime(now)
        return await proceed(message, exchange)
