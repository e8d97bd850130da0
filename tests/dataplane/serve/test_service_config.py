"""The service config: what holds for which method, what is refused by name, and whatever JSON comes."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_echo import SERVICE, AsyncEcho, EchoStub
from serve_rig import code_of, native_channel, native_server

from meshwright.dataplane.grpc import NativeChannel


def methods(*configs: dict[str, Any]) -> dict[str, Any]:
    return {"methodConfig": list(configs)}


async def test_a_methods_own_entry_wins(echo: AsyncEcho) -> None:
    """By method, by service, for all: the nearest holds, alone."""
    config = methods(
        {"name": [{}], "timeout": "0.05s"},
        {"name": [{"service": SERVICE}], "timeout": "30s"},
        {"name": [{"service": SERVICE, "method": "Unary"}], "timeout": "0.2s"},
    )
    async with native_server(echo) as (_, address), native_channel(address, service_config=config) as channel:
        stub = EchoStub(channel)
        assert 0.05 < float(await stub.unary("remaining")) < 0.21
        code, _ = await code_of(stub.unary("wait"))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert float(await stub.unary("remaining", timeout=0.1)) < 0.11
        chat = stub.chat()
        await chat.write("a")
        assert await chat.read() == "A"
        chat.cancel()


async def test_waiting_for_ready_by_config(tmp_path: Any) -> None:
    """The config says whether calls wait; a call may say otherwise."""
    config = methods({"name": [{}], "waitForReady": True})
    async with native_channel(f"unix:{tmp_path}/nobody.sock", service_config=config) as channel:
        stub = EchoStub(channel)
        code, _ = await code_of(stub.unary("hello", timeout=0.3))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        code, _ = await code_of(stub.unary("hello", timeout=10, wait_for_ready=False))
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_sizes(echo: AsyncEcho) -> None:
    """Requests and responses that are too long end their call with RESOURCE_EXHAUSTED."""
    requests = methods({"name": [{"service": SERVICE}], "maxRequestMessageBytes": 10})
    responses = methods({"name": [{"service": SERVICE}], "maxResponseMessageBytes": 10})
    async with native_server(echo) as (_, address):
        async with native_channel(address, service_config=requests) as channel:
            stub = EchoStub(channel)
            assert await stub.unary("0123456789", timeout=10) == "0123456789"
            for call in (stub.unary("0123456789a", timeout=10), stub.upload(iter(["0123456789a"]), timeout=10)):
                code, details = await code_of(call)
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "maxRequestMessageBytes" in details
        async with native_channel(address, service_config=responses) as channel:
            stub = EchoStub(channel)
            assert await stub.unary("0123456789", timeout=10) == "0123456789"
            code, _ = await code_of(stub.unary("0123456789a", timeout=10))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 1}}]}, r"retryPolicy\.maxAttempts"),
        ({"methodConfig": [{"name": [{}], "hedgingPolicy": {}}]}, "hedgingPolicy.maxAttempts: missing"),
        ({"loadBalancingConfig": [{"xds_cluster": {}}]}, "xds_cluster"),
        ({"retryThrottling": {"maxTokens": 5000, "tokenRatio": 1}}, r"retryThrottling\.maxTokens"),
        ({"methodconfig": []}, "methodconfig: unknown"),
        ("[1", "no JSON"),
    ],
)
def test_what_is_wrong_is_named(config: Any, field: str) -> None:
    """A channel isn't made with a config that can't be kept."""
    with pytest.raises(ValueError, match=field):
        NativeChannel("localhost:1", None, service_config=config)


NAMES = st.sampled_from(
    [
        "loadBalancingConfig",
        "loadBalancingPolicy",
        "methodConfig",
        "retryThrottling",
        "name",
        "service",
        "method",
        "timeout",
        "waitForReady",
        "maxRequestMessageBytes",
        "retryPolicy",
        "maxAttempts",
        "initialBackoff",
        "retryableStatusCodes",
        "hedgingPolicy",
        "maxTokens",
        "tokenRatio",
        "round_robin",
        "pick_first",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["1s", "0.5s", "UNAVAILABLE", "round_robin", ""]),
    st.text(max_size=20),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=300)
@given(config=st.dictionaries(NAMES, JSON, max_size=4))
def test_any_json_is_taken_or_refused_by_field(config: dict[str, Any]) -> None:
    """Whatever comes: a channel, or a ValueError that says where in the config it is wrong."""
    try:
        NativeChannel("localhost:1", None, service_config=config)
    except ValueError as error:
        assert str(error).startswith("service config")


@given(text=st.text(max_size=200))
def test_any_text_is_taken_or_refused(text: str) -> None:
    """The same for texts that may be no JSON at all."""
    try:
        json.loads(text)
        is_json = True
    except ValueError:
        is_json = False
    try:
        NativeChannel("localhost:1", None, service_config=text)
    except ValueError as error:
        assert str(error).startswith("service config")
    else:
        assert is_json
