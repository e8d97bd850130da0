"""Version 1 of the adapter SDK: what an adapter implements, what it gets, what it answers, and how it is found.

An adapter is an object with the attributes of `Adapter`, named in its distribution's entry points under the group
`meshwright.adapters`. Mixer's configuration then names it as a handler's `compiledAdapter`.
"""

from meshwright.mixer.adapter.v1.check_instances import (
    Action,
    Address,
    ApiKey,
    Authorization,
    CheckNothing,
    Generic,
    Kubernetes,
    ListEntry,
    Quota,
    Subject,
)
from meshwright.mixer.adapter.v1.host import Clock, Counter, Gauge, Histogram, Host, Logger, Metrics
from meshwright.mixer.adapter.v1.interface import (
    Adapter,
    AttributeGenerator,
    CheckHandler,
    Handler,
    QuotaHandler,
    ReportHandler,
    blocking,
)
from meshwright.mixer.adapter.v1.registry import GROUP, AdapterError, Installed, Source, discover
from meshwright.mixer.adapter.v1.report_instances import (
    Edge,
    Entry,
    GenericEntry,
    LogEntry,
    Metric,
    ReportNothing,
    Telemetry,
    TraceSpan,
)
from meshwright.mixer.adapter.v1.results import Charge, CheckResult, Code, DirectResponse, QuotaResult
from meshwright.mixer.adapter.v1.values import Origin, Value

__all__ = [
    "GROUP",
    "Action",
    "Adapter",
    "AdapterError",
    "Address",
    "ApiKey",
    "AttributeGenerator",
    "Authorization",
    "Charge",
    "CheckHandler",
    "CheckNothing",
    "CheckResult",
    "Clock",
    "Code",
    "Counter",
    "DirectResponse",
    "Edge",
    "Entry",
    "Gauge",
    "Generic",
    "GenericEntry",
    "Handler",
    "Histogram",
    "Host",
    "Installed",
    "Kubernetes",
    "ListEntry",
    "LogEntry",
    "Logger",
    "Metric",
    "Metrics",
    "Origin",
    "Quota",
    "QuotaHandler",
    "QuotaResult",
    "ReportHandler",
    "ReportNothing",
    "Source",
    "Subject",
    "Telemetry",
    "TraceSpan",
    "Value",
    "blocking",
    "discover",
]
