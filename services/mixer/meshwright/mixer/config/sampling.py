"""A rule's sampling → its message in the compiled policy."""

from __future__ import annotations

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Expression, Lookup
from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.config import models

_STRING = ValueType.STRING
_HEADERS = Attribute(ValueType.STRING_MAP, "request.headers")

KEY: Expression = Apply(
    _STRING,
    "|",
    (Attribute(_STRING, "request.id"), Lookup(_STRING, _HEADERS, Constant(_STRING, "x-request-id"))),
)
"""What all rules, replicas and proxies know a request by."""


def compiled(given: models.Sampling, rate: int | None, key: int | None) -> pb.Sampling:
    """`rate` is the node of the attribute expression, `key` that of `KEY`."""
    result = pb.Sampling()
    if given.random is not None:
        percent = given.random.percent_sampled
        result.random.numerator, result.random.denominator = percent.numerator, percent.whole
        if rate is not None:
            result.random.rate = rate
        if key is not None and not given.random.use_independent_randomness:
            result.random.key = key
    if given.rate_limit is not None:
        result.rate_limit.window_nanos = given.rate_limit.sampling_duration
        result.rate_limit.max_unsampled = given.rate_limit.max_unsampled_entries
        result.rate_limit.rate = given.rate_limit.sampling_rate
    return result
