"""grpc's interoperation cases with grpc.aio's client, unmodified, and with our channel, against NativeServer."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from interop_cases import CASES

from meshwright.dataplane.grpc import NativeChannel


@pytest.mark.parametrize("name", CASES)
async def test_grpcio_client(name: str, server: str, ends: Any) -> None:
    if ends.client is None:
        channel = grpc.aio.insecure_channel(server)
    else:
        identity = ends.client.current()
        credentials = grpc.ssl_channel_credentials(identity.bundle_pem, identity.key_pem, identity.cert_chain_pem)
        options = [("grpc.ssl_target_name_override", ends.name)]
        channel = grpc.aio.secure_channel(server, credentials, options)
    async with channel:
        await CASES[name](channel)


@pytest.mark.parametrize("name", CASES)
async def test_native_client(name: str, server: str, ends: Any) -> None:
    async with NativeChannel(server, ends.client, peer=ends.server_id) as channel:
        await CASES[name](channel)
