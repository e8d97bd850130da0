"""Whatever comes in, the answer is a sentence."""

from __future__ import annotations

import json

from google.protobuf.any_pb2 import Any
from hypothesis import given
from hypothesis import strategies as st

from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from meshwright.core import errors
from meshwright.manager.model import kinds
from meshwright.manager.model.parse import Parsed, parse
from meshwright.manager.xds import node, wire

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["spec", "metadata", "name", "ports", "backends", "weight", "x"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(_JSON, st.sampled_from(kinds.KINDS), _JSON, _JSON)
def test_any_document_is_parsed_or_told_why_not(
    value: object, kind: kinds.Kind, metadata: object, spec: object
) -> None:
    for document in (
        value,
        {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec},
        {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": "a"}, "spec": spec},
    ):
        result = parse(json.dumps(document), 3)
        if isinstance(result, Parsed):
            assert parse(result.text) == result
        else:
            assert all(fault.message and fault.index == 3 for fault in result)
            assert result


@given(st.text(max_size=200))
def test_any_text_is_judged(text: str) -> None:
    result = parse(text)
    assert isinstance(result, Parsed) or result[0].message


@given(st.text(max_size=80))
def test_any_node_id_is_a_sidecars_or_refused(text: str) -> None:
    try:
        found = node.parse(text)
    except errors.ConfigError:
        return
    assert node.parse(node.node_id(found.namespace, found.workload)) == found


@given(
    st.lists(st.binary(max_size=300).map(lambda raw: raw.hex()), max_size=5), st.text(max_size=9), st.text(max_size=9)
)
def test_responses_put_together_from_bytes_are_protobufs_own(clusters: list[str], version: str, nonce: str) -> None:
    messages = [ClusterLoadAssignment(cluster_name=name) for name in clusters]
    ours = wire.response("a/b", version, [wire.resource("x", message).body for message in messages]) + wire.nonce(nonce)
    resources = []
    for message in messages:
        resources.append(Any())
        resources[-1].Pack(message)
    theirs = DiscoveryResponse(version_info=version, resources=resources, type_url="a/b", nonce=nonce)
    assert DiscoveryResponse.FromString(ours) == theirs
