"""Accepted parameters of handlers → their messages in the compiled policy."""

from __future__ import annotations

from collections.abc import Sequence

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.config import models
from meshwright.mixer.config.adapters import Denier, ListChecker, MemQuota, QuotaLimit
from meshwright.mixer.config.documents import shown
from meshwright.mixer.config.fields import Model
from meshwright.mixer.config.prometheus import Prometheus
from meshwright.mixer.config.stdio import Stdio
from meshwright.mixer.config.violation import Identity
from meshwright.mixer.remote.handlers import RemoteHandler
from meshwright.mixer.templates import TEMPLATES, Variety

TIMEOUT_NANOS = 500_000_000
"""Of a question, where the handler's `timeout` says nothing."""
_INTERNAL = 13  # as the original: callers that pass when mixer fails pass then as well
_CHECKS = frozenset({Variety.CHECK, Variety.CHECK_WITH_OUTPUT})
_ENTRY_TYPES = {
    "STRINGS": pb.Handler.ListChecker.STRINGS,
    "CASE_INSENSITIVE_STRINGS": pb.Handler.ListChecker.CASE_INSENSITIVE_STRINGS,
    "IP_ADDRESSES": pb.Handler.ListChecker.IP_ADDRESSES,
    "REGEX": pb.Handler.ListChecker.REGEX,
}


def native(identity: Identity, parameters: Model, provided: Sequence[str] | None = ()) -> pb.Handler:
    """A handler that the engine runs itself; the compiler adds what refers to instances, as it knows them.

    `provided` are the entries that a list's provider gave; without them (None) nobody can be looked up, and nobody
    passes.
    """
    handler = pb.Handler(name=shown(identity), namespace=identity.namespace)
    match parameters:
        case Denier():
            handler.denier.validity.SetInParent()
            handler.denier.code = parameters.status.code
            handler.denier.message = parameters.status.message
            for detail in parameters.status.details:
                response = handler.denier.direct_response
                response.code, response.body = detail.code, detail.body
                response.headers.update(detail.headers)
                response.SetInParent()
            handler.denier.validity.duration_nanos = parameters.valid_duration
            handler.denier.validity.use_count = parameters.valid_use_count
        case ListChecker() if provided is None:
            handler.denier.validity.SetInParent()
            handler.denier.code = _INTERNAL
            handler.denier.message = f"the list of {parameters.provider_url} can't be had"
        case ListChecker():
            handler.list_checker.validity.SetInParent()
            handler.list_checker.entries.extend(parameters.overrides)
            handler.list_checker.entries.extend(provided or ())
            handler.list_checker.type = _ENTRY_TYPES[parameters.entry_type]
            handler.list_checker.blacklist = parameters.blacklist
            handler.list_checker.validity.duration_nanos = parameters.caching_interval
            handler.list_checker.validity.use_count = parameters.caching_use_count
        case MemQuota():
            handler.quotas.SetInParent()
            handler.quotas.min_deduplication_nanos = parameters.min_deduplication_duration
            handler.quotas.distributed = parameters.distributed
        case Prometheus():
            handler.report.sink = "prometheus"
            handler.report.prometheus.CopyFrom(parameters.compiled())
        case Stdio():
            handler.report.sink = "stdio"
            handler.report.stdio.CopyFrom(parameters.compiled())
    return handler


def sink(identity: Identity, adapter: str) -> pb.Handler:
    """A handler whose adapter is Python: the engine evaluates its instances and hands them out to the sink."""
    return pb.Handler(name=shown(identity), namespace=identity.namespace, report=pb.Handler.Sink(sink=adapter))


def python(identity: Identity, given: models.Handler, adapter: Adapter) -> pb.Handler:
    """A handler whose adapter is Python: it is asked when it decides anything, else its instances go to a sink."""
    varieties = {TEMPLATES[each].variety for each in adapter.templates if each in TEMPLATES}
    if varieties == {Variety.REPORT}:
        return sink(identity, adapter.name)
    return pb.Handler(
        name=shown(identity),
        namespace=identity.namespace,
        asked=pb.Handler.Asked(
            adapter=adapter.name,
            host=pb.Handler.Asked.PYTHON,
            on_failure=_on_failure(given, decides=bool(varieties & _CHECKS)),
            timeout_nanos=given.timeout or TIMEOUT_NANOS,
        ),
    )


def remote(identity: Identity, given: models.Handler, compiled: RemoteHandler) -> pb.Handler:
    """A handler whose adapter is another process, asked by Rust."""
    asked = pb.Handler.Asked(
        adapter=given.adapter or given.compiled_adapter,
        host=pb.Handler.Asked.REMOTE,
        on_failure=_on_failure(given, decides=compiled.decides),
        timeout_nanos=compiled.timeout_nanos or TIMEOUT_NANOS,
        remote=compiled.remote,
    )
    return pb.Handler(name=shown(identity), namespace=identity.namespace, asked=asked)


def _on_failure(given: models.Handler, *, decides: bool) -> pb.Handler.Asked.FailurePolicy:
    """What its author chose, or what is safe: adapters that decide requests deny them."""
    is_closed = given.failure_policy == "closed" or (given.failure_policy is None and decides)
    return pb.Handler.Asked.CLOSED if is_closed else pb.Handler.Asked.OPEN


def limit(quota: QuotaLimit, instance: int) -> pb.Handler.Limit:
    """One limit; an override without a duration keeps the limit's own."""
    compiled = pb.Handler.Limit(instance=instance, max_amount=quota.max_amount, window_nanos=quota.valid_duration)
    for override in quota.overrides:
        window = quota.valid_duration if override.valid_duration is None else override.valid_duration
        compiled.overrides.add(dimensions=override.dimensions, max_amount=override.max_amount, window_nanos=window)
    return compiled
