"""The policy engine: decides about requests in Rust, from policies that Python compiled.

One decision to know: Python loads policies, names the replicas and drains records; checks and reports are served by
native handlers (`Engine.services`) and never enter the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshwright.dataplane import _native
from meshwright.dataplane.grpc import identity as identities


class Engine:
    """One engine with its record queue; a process that serves has one, a validator one that serves nobody.

    With `identity`, charges to other replicas go over mutual TLS and only callers of the same SPIFFE ID may charge
    here; without, in plain text. `record_bytes` bounds the records that wait to be drained.
    """

    def __init__(self, identity: identities.IdentitySource | None = None, *, record_bytes: int = 64 << 20) -> None:
        native: _native.Identity | None = None
        self._unfollow: Callable[[], None] | None = None
        if identity is not None:
            native, self._unfollow = identities.follow(identity)
        self._native = _native.PolicyEngine(native, record_bytes)

    @property
    def services(self) -> _native.NativeServices:
        """The gRPC services for `NativeServer(native=[engine.services])`.

        istio.mixer.v1.Mixer, envoy.service.auth.v3.Authorization, envoy.service.accesslog.v3.AccessLogService and
        meshwright.mixer.v1.QuotaPeer.
        """
        return self._native.services

    @property
    def revision(self) -> str:
        """The revision that the policy in force was compiled from; empty before the first."""
        return self._native.revision

    def load(self, compiled: bytes) -> None:
        """Take a serialised meshwright.policy.v1.Policy at once and as a whole.

        ValueError tells the place of the first mistake, and then the policy in force stays. Quota counters survive when
        handler, instance, limit and window are the same.
        """
        self._native.load(compiled)

    def check(self, request: bytes) -> bytes:
        """Answer a serialised istio.mixer.v1.CheckRequest with a CheckResponse, charging only this replica's cells.

        ValueError when the request is wrong; over gRPC that is INVALID_ARGUMENT.
        """
        return self._native.check(request)

    def drain_records(self, most: int, timeout: float) -> list[bytes]:
        """Take up to `most` serialised meshwright.mixer.v1.Records; wait up to `timeout` seconds for the first.

        Blocks without the GIL: call it in a thread. What was drained is the caller's to keep until it is published.
        """
        return self._native.drain_records(most, timeout)

    def set_replicas(self, own_id: str, replicas: Sequence[tuple[str, str]]) -> None:
        """Name the (id, address) of all mixer replicas that are alive; each quota cell is charged at one of them."""
        self._native.set_replicas(own_id, list(replicas))

    def stats(self) -> dict[str, int]:
        """Return the counters since the start, and the cells, rules and waiting records of now."""
        return self._native.stats()

    def close(self) -> None:
        """Stop following the identity."""
        if self._unfollow:
            self._unfollow()
            self._unfollow = None
