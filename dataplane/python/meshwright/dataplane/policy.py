"""The policy engine: decides about requests in Rust, from policies that Python compiled.

One decision to know: Python loads policies and names the replicas; checks and reports are served by native handlers
(`Engine.services`) and never enter the interpreter, but for batches of records that are for adapters in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from meshwright.dataplane import _native
from meshwright.dataplane.grpc import identity as identities


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQueue:
    """A JetStream stream: `servers` are a cluster's host:port, `tls` the folder with cert.pem, key.pem and ca.pem.

    `user` prefixes the subjects of answers; the stream keeps `max_bytes`, each message on `replicas` servers.
    """

    servers: Sequence[str]
    tls: Path | None
    user: str
    max_bytes: int
    replicas: int = 1


class Want(NamedTuple):
    """What a quota cell wants of the store; times in nanoseconds, `counted` on the engine's clock."""

    cell: bytes
    id: int
    max: int
    window: int
    is_fixed: bool
    amount: int
    life: int
    """For how long a slice may be used."""
    settled: list[tuple[int, int, int]]
    """Of slices whose time is over and of which something else was used than the store knows: id, used, counted."""


class Lease(NamedTuple):
    """What the store gave; times on the engine's clock in nanoseconds."""

    amount: int
    until: int
    counted: int
    more_at: int
    """When it is less than wanted: the time before which there is no use in asking again."""


class Engine:
    """One engine with its record queue; a process that serves has one, a validator one that serves nobody.

    With `identity`, charges to other replicas go over mutual TLS and only callers of the same SPIFFE ID may charge
    here; without, in plain text. `record_bytes` bounds the reports that wait to be stored: beyond it, they are refused.
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

        istio.mixer.v1.Mixer; Envoy's Authorization, RateLimitService and AccessLogService; OpenTelemetry's
        TraceService, MetricsService and LogsService; meshwright.mixer.v1.QuotaPeer.
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

    def ask_python(self, questions: Questions) -> None:
        """Let adapters in Python answer what policies ask them, from now on."""
        self._native.ask_python(questions.native)

    def outdated(self) -> int:
        """Return how many replaced policies requests still use: their handlers may still be asked."""
        return self._native.outdated()

    def check(self, request: bytes) -> bytes:
        """Answer a serialised istio.mixer.v1.CheckRequest with a CheckResponse, charging only this replica's cells.

        ValueError when the request is wrong; over gRPC that is INVALID_ARGUMENT.
        """
        return self._native.check(request)

    def explain(self, request: bytes, *, at: int | None = None, charge: bool = False) -> bytes:
        """Decide about a serialised CheckRequest and tell why, as a meshwright.mixer.v1.ExplainResponse.

        Adapters outside of the engine aren't asked. With `charge` quotas are charged here: for tests, at moments `at`
        (nanoseconds) that don't go back. ValueError when the request is wrong.
        """
        return self._native.explain(request, at, charge)

    def attributes(self, prefix: str = "") -> bytes:
        """Return what requests carried, by names that begin with `prefix`: a meshwright.mixer.v1.AttributesResponse."""
        return self._native.attributes(prefix)

    def decisions(self, start: int = 0) -> bytes:
        """Return the decisions that are kept from number `start` on: a meshwright.mixer.v1.DecisionBatch."""
        return self._native.decisions(start)

    def trials(self) -> dict[str, int]:
        """Return how much each rule in dry run would have refused, by name.namespace."""
        return dict(self._native.trials())

    def carry_records(
        self,
        queue: RecordQueue | None,
        *,
        memory_bytes: int = 32 << 20,
        batch_records: int = 512,
        batch_seconds: float = 0.2,
        rest_seconds: float = 5.0,
    ) -> None:
        """Begin to store reports in `queue` and to deliver them to handlers; once an engine.

        Without a queue they stay in memory, `memory_bytes` at the most. A Report is answered OK when it is stored.
        Handlers get `batch_records` at once, or what has come `batch_seconds` after the first; one that refused rests
        for `rest_seconds` at the most before another batch tries it.
        """
        native: _native.RecordQueue | None = None
        if queue is not None:
            tls = None if queue.tls is None else str(queue.tls)
            native = _native.RecordQueue(
                queue.servers, tls, queue.user, max_bytes=queue.max_bytes, replicas=queue.replicas
            )
        self._native.carry_records(
            native,
            memory_bytes=memory_bytes,
            batch_records=batch_records,
            batch_seconds=batch_seconds,
            rest_seconds=rest_seconds,
        )

    def take_records(self, timeout: float) -> _native.RecordBatch | None:
        """Take the next batch for handlers in Python; wait up to `timeout` seconds for it.

        Blocks without the GIL: call it in a thread. `records` are serialised meshwright.mixer.v1.Records, each with
        whether it may have been handled before; `settle` names the handlers that refused their part, which comes again.
        """
        return self._native.take_records(timeout)

    def finish_records(self, timeout: float) -> bool:
        """Return when all that was reported is stored and, without a queue, delivered; False after `timeout` seconds.

        Blocks without the GIL.
        """
        return self._native.finish_records(timeout)

    def record_faults(self) -> dict[str, str]:
        """Return what is wrong on the way of reports at the moment: the reason by part."""
        return dict(self._native.record_faults())

    def record_handlers(self) -> list[tuple[str, str, int, int]]:
        """Return handler, adapter, instances taken and batches refused of each handler that runs in Rust."""
        return self._native.record_handlers()

    def prometheus(self, openmetrics: bool) -> str:
        """Return the metrics of prometheus handlers, in OpenMetrics (without its end mark) or in Prometheus' format."""
        return self._native.prometheus(openmetrics)

    def set_replicas(self, own_id: str, replicas: Sequence[tuple[str, str]]) -> None:
        """Name the (id, address) of all mixer replicas that are alive; each quota cell is charged at one of them."""
        self._native.set_replicas(own_id, list(replicas))

    def set_rate_limit_headers(self, are_sent: bool) -> None:
        """Say whether the rate limit service answers with RateLimit headers for the response; at first it doesn't."""
        self._native.set_rate_limit_headers(are_sent)

    def set_authorization(self, handler: str, value: str | None) -> None:
        """Give calls of a remote handler (`name.namespace`) the value of its authorization entry; None: none.

        ValueError when the policy in force has no such handler.
        """
        self._native.set_authorization(handler, value)

    def set_session(self, handler: str, session: str | None) -> None:
        """Give calls of a remote handler the session that its adapter keeps; None: none. ValueError as above."""
        self._native.set_session(handler, session)

    def remote_statistics(self) -> Mapping[str, _native.QuestionStatistics]:
        """Return what became of the questions to remote adapters, by handler."""
        return self._native.remote_statistics()

    def now(self) -> int:
        """Return the time that quota cells run on, in nanoseconds from an arbitrary start."""
        return self._native.now()

    def wanted_leases(self, timeout: float) -> list[Want]:
        """Return what cells of distributed quotas want of the store; wait up to `timeout` seconds for the first.

        Blocks without the GIL: call it in a thread. Each is answered by `leased`, and its requests wait meanwhile.
        """
        return [Want(*fields) for fields in self._native.wanted_leases(timeout)]

    def leased(self, cell: bytes, id_: int, lease: Lease | None) -> None:
        """Say what the store gave for a want; None: no answer, so that this replica grants by what it knows itself."""
        self._native.leased(cell, id_, lease)

    def stats(self) -> dict[str, int]:
        """Return the counters since the start, and the cells, rules and waiting records of now."""
        return self._native.stats()

    def close(self) -> None:
        """Stop following the identity."""
        if self._unfollow:
            self._unfollow()
            self._unfollow = None


class Questions:
    """Questions for adapters in Python on their way from the engine, and the answers back.

    Watch `fileno` on one loop and `take` when it is readable. Whoever is asked is held in bounds on the engine's side:
    by the question's deadline, by the questions that a handler may have in flight, and by a breaker.
    """

    def __init__(self) -> None:
        self.native = _native.QuestionBox()

    def fileno(self) -> int:
        """Return an eventfd that is readable when something has arrived."""
        return self.native.fileno()

    def configure(self, handlers: Sequence[tuple[str, int]]) -> None:
        """Name the handlers (name.namespace) that may be asked, and the questions that each may have in flight.

        What is known of a handler that stays, its breaker included, stays too.
        """
        self.native.configure(list(handlers))

    def take(self) -> tuple[list[tuple[Any, ...]], list[int]]:
        """Take all that has arrived at once.

        Questions are (number, handler, instance, template, variety, fields, amount, best effort, deduplication id);
        beside them, the numbers of questions that nobody waits for any more.
        """
        return self.native.take()

    def answer(self, answers: list[tuple[Any, ...]]) -> None:
        """Answer by number, each question once, when the adapter is done with it.

        (number, "check", code, message, valid nanoseconds, uses, direct response, output), where the direct response is
        (code, body, headers) or None; (number, "quota", granted, valid nanoseconds); (number, "generate", output); or
        (number, failure, reason), where the failure is one of raised, deadline, invalid and away.
        """
        self.native.answer(answers)

    def trip(self, handler: str) -> None:
        """Open the handler's breaker, because it does harm."""
        self.native.trip(handler)

    def batches(self) -> tuple[int, int]:
        """Return how often questions were taken, and how many in all."""
        return self.native.batches()

    def statistics(self) -> Mapping[str, _native.QuestionStatistics]:
        """Return what happened at each handler."""
        return self.native.statistics()

    def close(self) -> None:
        """Refuse what is under way and all that comes."""
        self.native.close()
