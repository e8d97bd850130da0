"""What differs from template to template in a new project: the instance's class, its document, and what the test asks.

`value` and `line` are expressions of the generated code over `instance` or `entry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CHECK, QUOTA, REPORT, GENERATOR = "check", "quota", "report", "generator"


@dataclass(frozen=True, slots=True)
class Sample:
    """`kind` names the files; `spec` is what follows `compiledTemplate` in the instance's document."""

    kind: str
    instance: str
    spec: str
    value: str = ""
    line: str = ""
    made: str = ""
    denied: str = "mallory"


SAMPLES: Mapping[str, Sample] = MappingProxyType(
    {
        "checknothing": Sample(
            CHECK,
            "CheckNothing",
            "{}",
            value="instance.instance",
            made='CheckNothing(instance="{value}")',
            denied="question.meshwright-system",
        ),
        "listentry": Sample(
            CHECK,
            "ListEntry",
            '{value: source.principal | "unknown"}',
            value="str(instance.value)",
            made='ListEntry(instance="question.default", value="{value}")',
        ),
        "authorization": Sample(
            CHECK,
            "Authorization",
            "\n".join(  # the shape of the original's template
                [
                    "",
                    '    subject: {user: source.principal | "unknown"}',
                    '    action: {method: request.method | "", path: request.path | ""}',
                ]
            ),
            value="instance.subject.user",
            made='Authorization(instance="question.default", subject=Subject(user="{value}"))',
        ),
        "apikey": Sample(
            CHECK,
            "ApiKey",
            '{api: \'"shop"\', apiKey: source.principal | ""}',
            value="instance.api_key",
            made='ApiKey(instance="question.default", api="shop", api_key="{value}")',
        ),
        "quota": Sample(QUOTA, "Quota", '{dimensions: {caller: source.principal | "unknown"}}'),
        "logentry": Sample(
            REPORT,
            "LogEntry",
            '{severity: \'"info"\', variables: {caller: source.principal | "unknown"}}',
            line='{"severity": entry.severity, **entry.variables}',
        ),
        "metric": Sample(
            REPORT,
            "Metric",
            '{value: "1", dimensions: {caller: source.principal | "unknown"}}',
            line='{"value": entry.value, **entry.dimensions}',
        ),
        "tracespan": Sample(
            REPORT,
            "TraceSpan",
            '{spanName: source.principal | "unknown", startTime: request.time, endTime: response.time}',
            line='{"span": entry.span_name, "start": entry.start_time, "end": entry.end_time}',
        ),
        "edge": Sample(
            REPORT,
            "Edge",
            '{timestamp: request.time, sourceUid: source.principal | "", destinationUid: destination.uid | ""}',
            line='{"from": entry.source_uid, "to": entry.destination_uid}',
        ),
        "reportnothing": Sample(REPORT, "ReportNothing", "{}", line='{"reporter": entry.origin.reporter}'),
        "kubernetes": Sample(GENERATOR, "Kubernetes", '{sourceUid: source.uid | ""}'),
    }
)
