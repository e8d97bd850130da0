"""Report instances with what a test doesn't care about filled in. Check instances need no help: call their classes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from meshwright.mixer.adapter.v1.report_instances import LogEntry, Metric
from meshwright.mixer.adapter.v1.values import Origin, Value

_numbers = itertools.count(1)


def origin(**given: Any) -> Origin:
    """An origin with a new record id; `given` replaces what doesn't fit."""
    return Origin(**{"record_id": f"{next(_numbers):032x}", "time": datetime.now(UTC), **given})


def log_entry(variables: Mapping[str, Value], *, instance: str = "log.default", **given: Any) -> LogEntry:
    """A log entry; `given` are fields of its origin."""
    source = origin(**given)
    return LogEntry(instance=instance, origin=source, timestamp=source.time, severity="info", variables=variables)


def metric(
    value: int | float | timedelta, dimensions: Mapping[str, Value], *, instance: str = "metric.default", **given: Any
) -> Metric:
    """A measurement; `given` are fields of its origin."""
    return Metric(instance=instance, origin=origin(**given), value=value, dimensions=dimensions)
