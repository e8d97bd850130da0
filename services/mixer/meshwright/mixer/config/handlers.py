"""Accepted parameters of handlers → their messages in the compiled policy."""

from __future__ import annotations

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.config.adapters import Denier, ListChecker, MemQuota, QuotaLimit
from meshwright.mixer.config.fields import Model
from meshwright.mixer.config.violation import Identity

_ENTRY_TYPES = {
    "STRINGS": pb.Handler.ListChecker.STRINGS,
    "CASE_INSENSITIVE_STRINGS": pb.Handler.ListChecker.CASE_INSENSITIVE_STRINGS,
    "IP_ADDRESSES": pb.Handler.ListChecker.IP_ADDRESSES,
    "REGEX": pb.Handler.ListChecker.REGEX,
}


def native(identity: Identity, parameters: Model) -> pb.Handler:
    """A handler that the engine runs itself; the compiler adds a quota handler's limits, as it knows instances."""
    handler = pb.Handler(name=identity.name, namespace=identity.namespace)
    match parameters:
        case Denier():
            handler.denier.validity.SetInParent()
            handler.denier.code = parameters.status.code
            handler.denier.message = parameters.status.message
            handler.denier.validity.duration_nanos = parameters.valid_duration
            handler.denier.validity.use_count = parameters.valid_use_count
        case ListChecker():
            handler.list_checker.validity.SetInParent()
            handler.list_checker.entries.extend(parameters.overrides)
            handler.list_checker.type = _ENTRY_TYPES[parameters.entry_type]
            handler.list_checker.blacklist = parameters.blacklist
            handler.list_checker.validity.duration_nanos = parameters.caching_interval
            handler.list_checker.validity.use_count = parameters.caching_use_count
        case MemQuota():
            handler.quotas.SetInParent()
            handler.quotas.min_deduplication_nanos = parameters.min_deduplication_duration
    return handler


def sink(identity: Identity, adapter: str) -> pb.Handler:
    """A handler whose adapter is Python: the engine evaluates its instances and hands them out to the sink."""
    return pb.Handler(name=identity.name, namespace=identity.namespace, report=pb.Handler.Sink(sink=adapter))


def limit(quota: QuotaLimit, instance: int) -> pb.Handler.Limit:
    """One limit; an override without a duration keeps the limit's own."""
    compiled = pb.Handler.Limit(instance=instance, max_amount=quota.max_amount, window_nanos=quota.valid_duration)
    for override in quota.overrides:
        window = quota.valid_duration if override.valid_duration is None else override.valid_duration
        compiled.overrides.add(dimensions=override.dimensions, max_amount=override.max_amount, window_nanos=window)
    return compiled
