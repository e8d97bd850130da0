"""grpc's interoperation cases with grpc-java against NativeServer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toolchains

pytestmark = pytest.mark.timeout(900)  # the first test of a machine downloads

# What grpc-java's program calls them. Without the probes of the compressed cases: they ask a server to refuse what came
# uncompressed, and a handler of grpc.aio's interface isn't told.
NAMES = [
    "empty_unary",
    "large_unary",
    "client_compressed_unary_noprobe",
    "server_compressed_unary",
    "client_streaming",
    "client_compressed_streaming_noprobe",
    "server_streaming",
    "server_compressed_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "pick_first_unary",
    "rpc_soak",
    "channel_soak",
]

# The methods of its tests: the same, and more that a server of any make must pass.
# Not among them: deadlineExceeded wants the words of Java's own timer, and on a busy machine our status comes first.
METHODS = [
    "emptyUnary",
    "emptyUnaryWithRetriableStream",
    "largeUnary",
    "clientCompressedUnary",
    "serverCompressedUnary",
    "clientStreaming",
    "clientCompressedStreaming",
    "serverStreaming",
    "serverCompressedStreaming",
    "serverStreamingShouldBeFlowControlled",
    "pingPong",
    "emptyStream",
    "fullDuplexCallShouldSucceed",
    "halfDuplexCallShouldSucceed",
    "customMetadata",
    "statusCodeAndMessage",
    "specialStatusMessage",
    "unimplementedMethod",
    "unimplementedService",
    "cancelAfterBegin",
    "cancelAfterFirstResponse",
    "timeoutOnSleepingServer",
    "deadlineExceededServerStreaming",
    "deadlineInPast",
    "deadlineNotExceeded",
    "maxInboundSize_exact",
    "maxInboundSize_tooBig",
    "maxOutboundSize_exact",
    "maxOutboundSize_tooBig",
    "gracefulShutdown",
    "veryLargeResponse",
]


@pytest.mark.parametrize("name", NAMES)
async def test_client(name: str, java_jars: Path, plain_server: str) -> None:
    """grpc-java's own program as it is."""
    host, _, port = plain_server.rpartition(":")
    limits = ["--soak_overall_timeout_seconds=40", "--soak_per_iteration_max_acceptable_latency_ms=30000"]
    arguments = [f"--server_host={host}", f"--server_port={port}", "--use_tls=false", f"--test_case={name}", *limits]
    program = "io.grpc.testing.integration.TestServiceClient"
    await toolchains.run("java", "-XX:TieredStopAtLevel=1", "-cp", f"{java_jars}/*", program, *arguments)


async def test_client_with_mutual_tls(java_jars: Path, mutual: Any, mutual_server: str) -> None:
    """Its test methods with a client certificate, in one process."""
    host, _, port = mutual_server.rpartition(":")
    source = toolchains.HERE / "java" / "Client.java"
    arguments = [host, port, mutual.client_folder, mutual.name, *METHODS]
    printed = await toolchains.run("java", "-cp", f"{java_jars}/*", source, *arguments)
    passed = [line.removeprefix("passed ") for line in printed.splitlines() if line.startswith("passed ")]
    assert passed == METHODS
