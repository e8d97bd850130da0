"""The audit trail: who asked for what, and what came of it. One line each, marked `audit`; never a key or a token."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from meshwright.citadel.ca.authority import Issued
from meshwright.citadel.ca.jwt_svid import Token
from meshwright.citadel.registrations.model import Registration
from meshwright.citadel.tokens import Grant

# Not `.bind(...)`, which would freeze the configuration of the moment of import.
_log = structlog.get_logger("meshwright.citadel.audit", audit=True)


def issued(caller: str, certificate: Issued, **details: str) -> None:
    """A certificate was signed. `caller` is a SPIFFE ID, or ``unix:uid=…`` on the admin socket."""
    _log.info(
        "certificate_issued",
        caller=caller,
        spiffe_id=certificate.spiffe_id,
        serial=f"{certificate.serial:032x}",
        not_after=certificate.not_after.isoformat(),
        **details,
    )


def token_issued(caller: str, token: Token, audience: Sequence[str], registration: str) -> None:
    """A JWT-SVID was signed."""
    _log.info(
        "token_issued",
        caller=caller,
        spiffe_id=token.spiffe_id,
        audience=list(audience),
        expires=token.expires.isoformat(),
        registration=registration,
    )


def refused(caller: str, what: str, reason: object) -> None:
    """Something was asked for and not given."""
    _log.warning("request_refused", caller=caller, asked=what, reason=str(reason))


def token_minted(caller: str, grant: Grant) -> None:
    """A one-time token was made."""
    _log.info("token_minted", caller=caller, part=grant.part, node=grant.node, expires=grant.expires.isoformat())


def registered(caller: str, registration: Registration) -> None:
    """A registration was made or replaced."""
    _log.info(
        "workload_registered",
        caller=caller,
        registration=registration.id,
        spiffe_id=registration.spiffe_id,
        node=registration.node,
        selectors=[str(selector) for selector in registration.selectors],
    )


def unregistered(caller: str, registration_id: str, existed: bool) -> None:
    """A registration was removed."""
    _log.info("workload_unregistered", caller=caller, registration=registration_id, existed=existed)
