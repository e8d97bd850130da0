"""Errors of the network service API; each is one of the platform's kinds, so that one place turns it into a status.

    ConfigError ── InvalidPath, InvalidUrl, InvalidMechanism, InvalidRegistration
    Forbidden ──── InvalidToken, PolicyDenied
    NotFound ───── NoSuchService, NoEndpoint
    Unavailable ── NoForwarder, PolicyUnavailable
    Exhausted ──── NoAddress

A next hop's refusal keeps its status code and names the hop (`remote`): the original programs turn all into UNKNOWN.
"""

from __future__ import annotations

import grpc

from meshwright.core import errors


class InvalidPath(errors.ConfigError):
    """The hops that a message claims to have passed don't fit together."""


class InvalidUrl(errors.ConfigError):
    """An address or a network service URL that can't be read."""


class InvalidMechanism(errors.ConfigError):
    """A mechanism that isn't supported, or whose parameters or descriptor are missing."""


class InvalidRegistration(errors.ConfigError):
    """A network service or an endpoint that can't be registered as it is."""


class InvalidToken(errors.Forbidden):
    """A token that doesn't prove what its bearer claims."""


class PolicyDenied(errors.Forbidden):
    """The mesh's policy says no; the message is the rule's reason."""


class NoSuchService(errors.NotFound):
    """Nobody registered this network service."""


class NoEndpoint(errors.NotFound):
    """The network service has no endpoint for this client."""


class NoForwarder(errors.Unavailable):
    """No forwarder of this node is registered, or none took the connection."""


class PolicyUnavailable(errors.Unavailable):
    """No mixer answered, and the setting for that case is to deny."""


class NoAddress(errors.Exhausted):
    """The endpoint's prefix has no free pair of addresses."""


_KINDS: dict[grpc.StatusCode, type[errors.MeshwrightError]] = {
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.ALREADY_EXISTS: errors.Conflict,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Exhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
}


def remote(hop: str, failure: grpc.RpcError) -> errors.MeshwrightError:
    """Return the error that a call to `hop` ended with, as one of ours."""
    status = failure.code() if hasattr(failure, "code") else grpc.StatusCode.UNKNOWN
    details = (failure.details() if hasattr(failure, "details") else None) or str(failure)
    message = f"{hop}: {details}"
    if status is grpc.StatusCode.INVALID_ARGUMENT:
        return errors.ConfigError(message)
    return _KINDS.get(status, errors.MeshwrightError)(message)
