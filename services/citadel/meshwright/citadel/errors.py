"""Citadel's errors, below the platform's tree.

ConfigError
├── RequestRefused       a certificate signing request that must not be signed; names the part of it that is wrong
├── RegistrationRefused  a registration that can't be accepted
└── TokenInvalid         a JWT-SVID that isn't one, or isn't for whom it was shown to
Unauthorized
└── TokenRefused         a one-time token that doesn't exist, was used, or has expired: deliberately one message
Unavailable
├── AuthorityExpired     the CA certificate has ended: nothing may be signed with it
└── NoAuthority          the stored CA can't be opened (wrong seal key, other trust domain, damaged)
"""

from __future__ import annotations

from meshwright.core import errors


class RequestRefused(errors.ConfigError):
    """A certificate signing request that must not be signed."""


class RegistrationRefused(errors.ConfigError):
    """A registration that can't be accepted."""


class TokenInvalid(errors.ConfigError):
    """A JWT-SVID that can't be accepted: `message` completes the sentence "the token …"."""

    def __init__(self, message: str) -> None:
        super().__init__(f"the token {message}", field="svid")


class TokenRefused(errors.Unauthorized):
    """A one-time token that isn't valid; whoever guesses must not learn why."""

    def __init__(self) -> None:
        super().__init__("the one-time token doesn't exist, was used already, or has expired (ask for a fresh one)")


class AuthorityExpired(errors.Unavailable):
    """The CA certificate has ended."""


class NoAuthority(errors.Unavailable):
    """The stored CA can't be opened."""
