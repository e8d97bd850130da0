"""A test's clients as loads: what of SMP the generator carries out, and what it says of the rest."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from meshwright.api.smp import smp_pb2 as smp
from meshwright.core.errors import ConfigError
from meshwright.dataplane.load import Load

GENERATOR = "meshwright"
DURATION = "30s"
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|s|m|h)")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_Protocol = smp.PerformanceTestConfig.Client


@dataclass(frozen=True, slots=True)
class Planned:
    """One URL of one client. Clients run side by side, the URLs of one client one after the other."""

    client: int
    load: Load
    internal: bool
    """Calls with an identity of the mesh."""
    peer: str = ""
    """Whom it must then be that answers: a SPIFFE ID or the beginning of one."""


def planned(config: smp.PerformanceTestConfig) -> tuple[list[Planned], list[str]]:
    """Return the loads of a test, and notes on what is carried out otherwise than written."""
    if not config.clients:
        raise ConfigError("no client", field="clients", remedy="write one with endpoint_urls, or give --url")
    duration = seconds(config.duration or DURATION, "duration")
    loads: list[Planned] = []
    notes: list[str] = []
    for index, client in enumerate(config.clients):
        place = f"clients[{index}]"
        if client.load_generator not in ("", GENERATOR):
            notes.append(f"{place}.load_generator: {client.load_generator} isn't used; our own generator is")
        if not client.endpoint_urls:
            raise ConfigError("no URL", field=f"{place}.endpoint_urls", remedy="write a list with at least one")
        for number, url in enumerate(client.endpoint_urls):
            where = f"{place}.endpoint_urls[{number}]"
            loads.append(_one(index, client, url, place, where, duration))
    return loads, notes


def seconds(text: str, field: str) -> float:
    """Read a duration as Go writes it, 1m30s."""
    found = 0.0
    rest = text.strip()
    while rest and (match := _PART.match(rest)):
        found += float(match[1]) * _SECONDS[match[2]]
        rest = rest[match.end() :]
    if rest or found <= 0:
        raise ConfigError(f"{text!r} is no duration", field=field, remedy="write for example 30s, 1m30s or 500ms")
    return found


def _one(
    index: int, client: smp.PerformanceTestConfig.Client, url: str, place: str, where: str, duration: float
) -> Planned:
    if client.protocol in (_Protocol.PROTOCOL_TCP, _Protocol.PROTOCOL_UDP):
        name = _Protocol.Protocol.Name(client.protocol)
        raise ConfigError(
            f"{name} isn't measured yet", field=f"{place}.protocol", remedy="PROTOCOL_HTTP, PROTOCOL_GRPC"
        )
    _check_url(url, where)
    if client.rps < 0 or client.connections < 0:
        field = "rps" if client.rps < 0 else "connections"
        raise ConfigError("below 0", field=f"{place}.{field}", remedy="0 for rps means as many requests as come")
    headers = sorted(client.headers.items())  # maps have no order
    if client.cookies:
        headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in sorted(client.cookies.items()))))
    if client.content_type:
        headers.append(("content-type", client.content_type))
    load = Load(
        url=url,
        rate=float(client.rps),
        connections=client.connections or 1,
        duration=duration,
        grpc=client.protocol == _Protocol.PROTOCOL_GRPC,
        method="POST" if client.body else "GET",
        headers=tuple(headers),
        body=client.body.encode(),
        authorities=_authorities(client.ssl_certificate, place),
    )
    load, peer = _optional(load, client.additional_options, f"{place}.additional_options")
    return Planned(index, load, client.internal, peer)


def _check_url(url: str, where: str) -> None:
    remedy = "write for example http://127.0.0.1:8080/, grpc://HOST:PORT/package.Service/Method"
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018 - a property that judges
    except ValueError as error:
        raise ConfigError(f"{url!r}: {error}", field=where, remedy=remedy) from error
    if not parts.scheme or not parts.netloc:
        raise ConfigError(f"{url!r} is no whole URL", field=where, remedy=remedy)


def _authorities(certificate: str, place: str) -> bytes | None:
    if not certificate:
        return None
    if "-----BEGIN" in certificate:
        return certificate.encode()
    try:
        return Path(certificate).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{certificate}: {error.strerror}", field=f"{place}.ssl_certificate", remedy="PEM text, or a file with it"
        ) from error


def _optional(load: Load, text: str, field: str) -> tuple[Load, str]:
    """Read additional_options: NAME=VALUE, separated by spaces."""
    peer = ""
    for option in text.split():
        name, found, value = option.partition("=")
        if not found or name not in _OPTIONS:
            raise ConfigError(
                f"{option[:50]!r} is no option of this generator",
                field=field,
                remedy="known are " + ", ".join(f"{known}={example}" for known, example in _OPTIONS.items()),
            )
        match name:
            case "warm_up":
                load = replace(load, warm_up=seconds(value, f"{field}.{name}"))
            case "timeout":
                load = replace(load, timeout=seconds(value, f"{field}.{name}"))
            case "method":
                load = replace(load, method=value)
            case "arrivals":
                if value not in ("constant", "poisson"):
                    raise ConfigError(f"{value!r}", field=f"{field}.{name}", remedy="constant or poisson")
                load = replace(load, poisson=value == "poisson")
            case "peer":
                peer = value
            case "streams":
                load = replace(load, streams=_count(value, f"{field}.{name}"))
            case "threads":
                load = replace(load, threads=_count(value, f"{field}.{name}"))
    return load, peer


_OPTIONS: Mapping[str, str] = {
    "warm_up": "2s",
    "timeout": "5s",
    "method": "PUT",
    "arrivals": "poisson",
    "streams": "8",
    "threads": "2",
    "peer": "spiffe://mesh.local/ns/shop/*",
}


def _count(text: str, field: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise ConfigError(f"{text[:20]!r} is no count", field=field, remedy="1 to 100000")
    return int(text)
