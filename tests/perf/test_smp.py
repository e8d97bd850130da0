"""SMP read strictly, older shapes of it, and written so that protobuf's own strict reader takes it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from meshwright.api.smp import smp_pb2 as smp
from meshwright.core.errors import ConfigError
from meshwright.platform.perf import plan
from meshwright.platform.perf.smp import documents, message

MESHERYCTL = """
test:
  smp_version: v0.0.1
  id: 7b6ab5f0-6b5e-4b0a-8b55-1c8a0b0d2a11
  name: Istio Performance Test
  labels: {}
  clients:
  - internal: false
    load_generator: fortio
    protocol: 1
    connections: 2
    rps: 10
    headers: {x-one: a}
    cookies: {session: b, theme: c}
    body: ""
    content_type: ""
    endpoint_urls:
    - http://localhost:2323/productpage
  duration: 1m30s
mesh:
  type: 3
"""

# layer5io/service-mesh-performance-specification, commit de41a91, shortened: its latencies are seconds.
FIRST = """
start_time: 2020-01-20T12:34:56Z
end_time: 2020-01-20T12:35:56Z
exp_uuid: f2dfb3d6-1f5b-4f9c-8d35-0a7a5ea3a2c1
endpoint_url: http://10.0.0.1/productpage
env: {kubernetes: v1.15}
client:
  connections: 64
  rps: 998.5
  latencies_ms: {min: 0.0012, average: 0.0236, p50: 0.02, p90: 0.03, p99: 0.05, max: 0.09}
metrics: {sidecars: {count: 3}}
"""


def test_mesheryctls_file() -> None:
    """Test and mesh are read, enumerations by number too; the foreign generator gives a note, not an error."""
    test = documents.read_test(MESHERYCTL.encode(), "test.yaml")
    assert test.mesh is not None
    assert test.mesh.type == smp.ServiceMesh.ISTIO
    [one], notes = plan.planned(test.config)
    assert one.load.duration == 90
    assert one.load.rate == 10
    assert dict(one.load.headers) == {"x-one": "a", "cookie": "session=b; theme=c"}
    assert any("fortio" in note for note in notes)


def test_a_bare_configuration_in_json() -> None:
    """No test: around it, JSON, a 64-bit number as text as protobuf writes it."""
    text = json.dumps({"name": "t", "duration": "2s", "clients": [{"rps": "5", "endpoint_urls": ["http://a/"]}]})
    test = documents.read_test(text.encode(), "test.json")
    assert test.config.clients[0].rps == 5
    assert test.notes == ()


@pytest.mark.parametrize(
    ("change", "field", "remedy"),
    [
        ({"clientz": []}, "clientz", "did you mean clients?"),
        ({"clients": [{"protocl": 1}]}, "clients[0].protocl", "did you mean protocol?"),
        ({"clients": [{"protocol": "PROTOCOL_HTP"}]}, "clients[0].protocol", "did you mean PROTOCOL_HTTP?"),
        ({"clients": [{"protocol": 9}]}, "clients[0].protocol", "known are PROTOCOL_INVALID"),
        ({"clients": {"rps": 1}}, "clients", "write a list"),
        ({"clients": [{"rps": "many"}]}, "clients[0].rps", "whole number"),
        ({"clients": [{"connections": 2**31}]}, "clients[0].connections", "doesn't fit"),
        ({"clients": [{"internal": "yes"}]}, "clients[0].internal", "true or false"),
        ({"name": 5}, "name", "quotation marks"),
        ({"labels": {"a": ["b"]}}, "labels['a']", "text is expected"),
        ({"clients": [{}], "duration": "soon"}, "duration", "1m30s"),
        ({"clients": [{}]}, "clients[0].endpoint_urls", "at least one"),
        ({"clients": [{"endpoint_urls": ["localhost"]}]}, "clients[0].endpoint_urls[0]", "http://"),
        ({"clients": [{"endpoint_urls": ["http://a/"], "protocol": 3}]}, "clients[0].protocol", "PROTOCOL_GRPC"),
        (
            {"clients": [{"endpoint_urls": ["http://a/"], "additional_options": "qps=3"}]},
            "clients[0].additional_options",
            "warm_up",
        ),
    ],
)
def test_faults_name_field_and_remedy(change: dict[str, Any], field: str, remedy: str) -> None:
    """What is wrong is said with its place and what to write instead."""
    with pytest.raises(ConfigError) as refused:
        plan.planned(documents.read_test(yaml.safe_dump(change).encode(), "test.yaml").config)
    assert refused.value.field == field
    assert remedy in str(refused.value)


def test_older_names_are_read_with_a_note() -> None:
    """smps_version, endpoint_url and protocols in small letters."""
    text = "smps_version: v0.1.0\nclients: [{protocol: http, endpoint_url: 'http://a/'}]\n"
    test = documents.read_test(text.encode(), "t.yaml")
    assert test.config.smp_version == "v0.1.0"
    assert list(test.config.clients[0].endpoint_urls) == ["http://a/"]
    assert test.config.clients[0].protocol == smp.PerformanceTestConfig.Client.PROTOCOL_HTTP
    assert len(test.notes) == 3


def test_the_first_results_seconds_become_milliseconds() -> None:
    """Its latencies_ms are multiplied, and the note says so."""
    measured = documents.read_measured(FIRST.encode(), "first.yaml")
    latency = measured.results[0].latencies_ms
    assert latency.p50 == pytest.approx(20)
    assert latency.max == pytest.approx(90)
    assert measured.results[0].actual_qps == 998.5
    assert measured.results[0].start_time.ToJsonString() == "2020-01-20T12:34:56Z"
    assert any("seconds" in note for note in measured.notes)


def test_todays_result_in_seconds_is_only_told_of() -> None:
    """A result whose slowest answer took 0.04 ms is left alone with a note."""
    measured = documents.read_measured(b"smp_version: v0.0.1\nlatencies_ms: {p50: 0.02, max: 0.04}\n", "r.yaml")
    assert measured.results[0].latencies_ms.max == 0.04
    assert any("seconds" in note for note in measured.notes)


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["clients", "labels", "name", "rps", "test", "mesh", "results", "protocol", "client", "exp_uuid"]
            )
            | st.text(max_size=8),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(_PLAIN)
def test_nothing_but_a_config_error_comes_of_any_values(value: Any) -> None:
    """Whatever a file holds, it is read or refused."""
    for read in (documents.read_test, documents.read_measured):
        with contextlib.suppress(ConfigError):
            read(json.dumps(value).encode(), "any.json")


@given(st.binary(max_size=400))
def test_nothing_but_a_config_error_comes_of_any_bytes(data: bytes) -> None:
    """The same of bytes that are no YAML."""
    for read in (documents.read_test, documents.read_measured):
        with contextlib.suppress(ConfigError):
            read(data, "any.yaml")


_TEXT = st.text(max_size=10)
_CLIENTS = st.fixed_dictionaries(
    {},
    optional={
        "internal": st.booleans(),
        "protocol": st.sampled_from(smp.PerformanceTestConfig.Client.Protocol.keys()) | st.integers(0, 4),
        "connections": st.integers(-(2**31), 2**31 - 1),
        "rps": st.integers(-(2**63), 2**63 - 1),
        "headers": st.dictionaries(_TEXT, _TEXT, max_size=3),
        "endpoint_urls": st.lists(_TEXT, max_size=3),
        "body": _TEXT,
    },
)


@given(st.fixed_dictionaries({"name": _TEXT, "clients": st.lists(_CLIENTS, max_size=3)}))
def test_what_is_read_is_what_protobufs_strict_reader_reads(value: dict[str, Any]) -> None:
    """Ours and protobuf's reader agree, and what is written is read again."""
    ours = message.read(smp.PerformanceTestConfig, value)
    assert ours == json_format.ParseDict(value, smp.PerformanceTestConfig())
    for form in ("yaml", "json"):
        text = documents.text(message.plain(ours), form)
        again = json.loads(text) if form == "json" else yaml.safe_load(text)
        assert message.read(smp.PerformanceTestConfig, again) == ours
