"""Parameters of the adapters prometheus and stdio: what they become in the engine, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
from rule_documents import document

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.config.compiled import Compiled
from meshwright.mixer.config.compiler import compile_policy

SIZE = document(
    "instance",
    "size",
    {"compiledTemplate": "metric", "params": {"value": "request.size", "dimensions": {"path": "request.path"}}},
)


def compiled(adapter: str, params: dict[str, Any]) -> Compiled:
    return compile_policy([document("handler", "it", {"compiledAdapter": adapter, "params": params}), SIZE], {})


def prometheus(**metric: Any) -> Compiled:
    return compiled("prometheus", {"metrics": [{"instanceName": "size", "kind": "DISTRIBUTION", **metric}]})


@pytest.mark.parametrize(
    ("buckets", "bounds"),
    [
        ({"linearBuckets": {"numFiniteBuckets": 3, "width": 10, "offset": 5}}, [5, 15, 25, 35]),
        ({"exponentialBuckets": {"numFiniteBuckets": 2, "growthFactor": 10, "scale": 0.1}}, [0.1, 1, 10]),
        ({"explicitBuckets": {"bounds": [1, 2.5]}}, [1, 2.5]),
    ],
)
def test_buckets_become_their_upper_bounds(buckets: dict[str, Any], bounds: list[float]) -> None:
    policy = pb.Policy.FromString(prometheus(buckets=buckets, label_names=["path"]).policy)
    [metric] = policy.handlers[0].report.prometheus.metrics
    assert [*metric.bounds] == pytest.approx(bounds)
    assert (metric.name, metric.help) == ("istio_size", "istio_size")
    assert [(label.name, label.dimension) for label in metric.labels] == [("path", "path")]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ({"labelNames": ["host"]}, "has no dimension 'host'"),
        ({"instanceName": "nobody"}, "unknown instance 'nobody'"),
        ({"kind": "COUNTER", "buckets": {"explicitBuckets": {"bounds": [1]}}}, "only a DISTRIBUTION has buckets"),
        ({"buckets": {"explicitBuckets": {"bounds": [2, 1]}}}, "bounds must rise"),
        ({"buckets": {}}, "give one of linearBuckets"),
    ],
)
def test_a_wrong_metric_is_refused(metric: dict[str, Any], reason: str) -> None:
    assert any(reason in str(each) for each in prometheus(**metric).dropped)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"logStream": "FILE"}, "outputPath"),
        ({"logStream": "FILE", "outputPath": "access.log"}, "from / on"),
        ({"logStream": "FILE", "outputPath": "/var/../etc/passwd"}, "without .."),
        ({"outputPath": "/tmp/log"}, "for nothing else"),
    ],
)
def test_a_wrong_output_is_refused(params: dict[str, Any], reason: str) -> None:
    assert any(reason in str(each) for each in compiled("stdio", params).dropped)


def test_severities_fit_in_any_case() -> None:
    policy = pb.Policy.FromString(compiled("stdio", {"severityLevels": {"Custom": "ERROR"}}).policy)
    severities = policy.handlers[0].report.stdio.severities
    assert (severities["custom"], severities["warning"]) == (pb.Handler.Stdio.ERROR, pb.Handler.Stdio.WARNING)
