"""The error tree of the platform; every message names the object and the likely remedy.

    MeshwrightError
    ├── ConfigError      input a person wrote is wrong: field and remedy are known
    ├── NotFound         the named object doesn't exist
    ├── Compacted        that part of a history is no longer kept: begin anew
    ├── Conflict         somebody else changed it first: read again and retry
    ├── Unauthorized     no identity, or one that can't be verified
    ├── Forbidden        the identity is known and may not do this
    ├── Exhausted        a limit is reached: slow down, or raise the named limit
    ├── DeadlineExceeded no answer in time
    └── Unavailable      a peer can't be reached at the moment: retry with back-off

Foreign errors are chained (`raise ... from`). `meshwright.core.grpc.status` turns an error into a gRPC status.
"""

from __future__ import annotations


class MeshwrightError(Exception):
    """Root of all errors that this platform raises on purpose."""


class ConfigError(MeshwrightError):
    """Configuration or request content that can't be accepted.

    `field` is a path such as ``spec.backends[0].weight``; `remedy` says what to write instead.
    """

    def __init__(self, message: str, *, field: str = "", remedy: str = "") -> None:
        self.message, self.field, self.remedy = message, field, remedy
        prefix = f"{field}: " if field else ""
        suffix = f" ({remedy})" if remedy else ""
        super().__init__(f"{prefix}{message}{suffix}")


class NotFound(MeshwrightError):  # noqa: N818 - named as in the field's vocabulary
    """The named object doesn't exist."""


class Compacted(MeshwrightError):  # noqa: N818
    """That part of a history is no longer kept; the message says from where on it is."""


class Conflict(MeshwrightError):  # noqa: N818
    """A compare-and-set lost: somebody else changed the object first."""


class Unauthorized(MeshwrightError):  # noqa: N818
    """The caller has no identity, or one that can't be verified."""


class Forbidden(MeshwrightError):  # noqa: N818
    """The caller's identity is known and may not do this."""


class Exhausted(MeshwrightError):  # noqa: N818
    """A limit is reached; the message names it."""


class DeadlineExceeded(MeshwrightError):  # noqa: N818
    """No answer came within the deadline."""


class Unavailable(MeshwrightError):  # noqa: N818
    """A peer or backend can't be reached at the moment."""
