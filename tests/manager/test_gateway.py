"""Real Envoys take routes of Istio's dialects, old and new, and serve gateways for clients from outside."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ads import Manager, free_port, located, manager
from envoys import DEADLINE, application, eventually, get, mixer, proxy
from meshes import SHOP, World

from meshwright.manager.xds import types
from pki import Pki

ENTRANCE = """
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: entrance-0}
spec: {address: 127.0.0.1, labels: {istio: ingressgateway, istio-classic: ingress}, serviceAccount: entrance}
"""
GATEWAY = """
apiVersion: networking.istio.io/v1beta1
kind: Gateway
metadata: {name: entrance}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: PLAIN, protocol: HTTP, name: http}
      hosts: [shop.example.com]
    - port: {number: REDIRECTING, protocol: HTTP, name: redirecting}
      hosts: [shop.example.com]
      tls: {httpsRedirect: true}
    - port: {number: SECURED, protocol: HTTPS, name: https}
      hosts: [shop.example.com]
      tls: {mode: SIMPLE, serverCertificate: FOLDER/tls.crt, privateKey: FOLDER/tls.key}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.example.com]
  gateways: [entrance]
  http:
    - match: [{uri: {prefix: /gone}}]
      directResponse: {status: 410, body: {string: gone}}
    - match: [{uri: {prefix: /shop}}]
      rewrite: {uri: /}
      route: [{destination: {host: catalog-v1, port: {number: 80}}}]
"""


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for the 107 bytes of a socket's path."""
    return tmp_path_factory.mktemp("g")


@contextlib.asynccontextmanager
async def street(pki: Pki, short: Path, more: str) -> AsyncIterator[tuple[Manager, list[bytes]]]:
    """Run shop, catalog-v1 and a proxy at the entrance; yields the manager, and what the catalog is asked."""
    (short / "shop").mkdir()
    (short / "catalog-v1").mkdir()
    mesh = located(SHOP, short, free_port(), free_port()) + ENTRANCE + "---\n" + more
    async with (
        manager(pki, mesh) as manager_,
        mixer(pki) as (_, mixer_address),
        application(short / "catalog-v1" / "app.sock", "catalog v1") as heads,
        contextlib.AsyncExitStack() as stack,
    ):
        for workload, account in (("shop-0", "shop"), ("catalog-v1-0", "catalog"), ("entrance-0", "entrance")):
            identity = pki.workload(account)
            await stack.enter_async_context(
                proxy(short / account, workload, identity, manager=manager_.address, mixers=(mixer_address,))
            )
        await manager_.settled("shop-0", "catalog-v1-0", "entrance-0")
        yield manager_, heads


async def ask(
    port: int, path: str, host: str = "shop.example.com", *, secure: bool = False, shown: Path | None = None
) -> tuple[int, str]:
    """Send one request from outside, with a certificate of the folder `shown`; returns status and head."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(shown / "tls.crt", shown / "tls.key")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context if secure else None, server_hostname=host if secure else None
    )
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n".encode())
    try:
        answer = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)).decode()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
    return int(answer.split(" ", 2)[1]), answer


async def test_clients_from_outside_come_in_by_a_gateway(pki: Pki, short: Path) -> None:
    certificate = pki.part("entrance")
    (short / "tls.crt").write_bytes(certificate.cert_chain_pem)
    (short / "tls.key").write_bytes(certificate.key_pem)
    ports = {"PLAIN": free_port(), "REDIRECTING": free_port(), "SECURED": free_port()}
    text = GATEWAY.replace("FOLDER", str(short))
    for name, number in ports.items():
        text = text.replace(name, str(number))
    async with street(pki, short, text) as (manager_, heads):

        async def open_() -> bool:
            with contextlib.suppress(OSError, EOFError):
                return (await ask(ports["PLAIN"], "/shop/items"))[0] == 200
            return False

        await eventually(open_, "the gateway serves")
        assert heads[-1].startswith(b"GET /items ")
        assert (await ask(ports["PLAIN"], "/gone"))[0] == 410
        assert (await ask(ports["PLAIN"], "/else"))[0] == 404
        assert (await ask(ports["PLAIN"], "/shop", "other.example.com"))[0] == 404
        assert (await ask(ports["SECURED"], "/shop", secure=True))[0] == 200
        status, answer = await ask(ports["REDIRECTING"], "/shop")
        assert status == 301
        assert "location: https://shop.example.com" in answer
        manager_.apply("", remove=("VirtualService/shop",))
        await manager_.settled("entrance-0")
        assert (await ask(ports["PLAIN"], "/shop"))[0] == 404
        manager_.apply("", remove=("Gateway/entrance",))
        await manager_.settled("entrance-0")
        assert not manager_.world.snapshot.view("default", "entrance-0").listeners  # type: ignore[union-attr]


ROUTES = """
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: catalog}
spec:
  hosts: [catalog]
  http:
    - match: [{headers: {x-fault: {exact: "yes"}}}]
      fault: {abort: {percentage: {value: 100}, httpStatus: 418}}
      route: [{destination: {host: catalog, subset: v1}}]
    - match: [{uri: {regex: "/re[0-9]+"}, withoutHeaders: {x-not: {}}, queryParams: {q: {exact: a}}}]
      rewrite: {uri: /regex}
      route: [{destination: {host: catalog, subset: v1}}]
    - match: [{uri: {exact: /moved}}]
      redirect: {uri: /there, redirectCode: 302}
    - route:
        - destination: {host: catalog, subset: v1}
          weight: 100
          headers: {response: {set: {x-from: v1}}}
        - {destination: {host: catalog, subset: v2}, weight: 0}
      timeout: 5s
      retries: {attempts: 3, perTryTimeout: 2s, retryOn: "connect-failure,503"}
      mirrors: [{destination: {host: catalog-v1}, percentage: {value: 0.5}}]
      corsPolicy: {allowOrigins: [{exact: "*"}], allowMethods: [GET]}
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: catalog}
spec:
  host: catalog
  trafficPolicy:
    loadBalancer: {consistentHash: {httpHeaderName: x-user, maglev: {tableSize: 251}}}
    connectionPool:
      tcp: {maxConnections: 10, tcpKeepalive: {probes: 3, time: 60s, interval: 5s}}
      http: {maxRetries: 2}
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 1s, maxEjectionPercent: 10}
    retryBudget: {percent: 20}
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
"""
CLASSIC = """
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: refused}
spec:
  destination: {name: catalog}
  precedence: 2
  match: {source: {labels: {app: shop}}, request: {headers: {uri: {prefix: /refused}}}}
  httpFault: {abort: {percent: 100, grpcStatus: UNAVAILABLE}, delay: {percent: 1, exponentialDelay: 1ms}}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: first-version}
spec:
  destination: {name: catalog}
  precedence: 1
  route: [{labels: {version: v1}}]
  httpReqTimeout: {simpleTimeout: {timeout: 5s, overrideHeaderName: x-timeout}}
  httpReqRetries: {simpleRetry: {attempts: 2, perTryTimeout: 1s, overrideHeaderName: x-tries}}
  mirror: {name: catalog-v1}
  corsPolicy: {allowOrigin: ["*"], maxAge: 1h}
  appendHeaders: {x-came-by: mesh}
---
apiVersion: config.istio.io/v1alpha2
kind: DestinationPolicy
metadata: {name: catalog-v1}
spec:
  destination: {name: catalog, labels: {version: v1}}
  source: {name: shop}
  loadBalancing: {name: ROUND_ROBIN}
  circuitBreaker: {simpleCb: {maxConnections: 10, httpConsecutiveErrors: 5, sleepWindow: 1s}}
"""


async def test_proxies_take_what_istio_says(pki: Pki, short: Path) -> None:
    async with street(pki, short, "{apiVersion: v1, kind: Namespace, metadata: {name: x}}") as (manager_, heads):
        shop = short / "shop" / "mesh.sock"
        manager_.apply(ROUTES)
        await manager_.settled("shop-0")
        assert await get(shop, "catalog") == (200, "catalog v1")
        assert (await get(shop, "catalog", headers=["x-fault: yes"]))[0] == 418
        assert (await get(shop, "catalog", "/moved"))[0] == 302
        assert (await get(shop, "catalog", "/re12?q=a"))[0] == 200
        assert b"GET /regex?q=a" in heads[-1]
        assert manager_.states("shop-0")[types.CLUSTER].error == ""


async def test_proxies_take_what_istio_said_in_2017(pki: Pki, short: Path) -> None:
    async with street(pki, short, "{apiVersion: v1, kind: Namespace, metadata: {name: x}}") as (manager_, heads):
        shop = short / "shop" / "mesh.sock"
        manager_.apply(CLASSIC)
        await manager_.settled("shop-0")
        for _ in range(4):
            assert await get(shop, "catalog") == (200, "catalog v1")
        assert b"x-came-by: mesh" in heads[-1]
        await get(shop, "catalog", "/refused")
        assert not any(b"/refused" in head for head in heads)


INGRESS = """
apiVersion: config.istio.io/v1alpha2
kind: IngressRule
metadata: {name: items}
spec:
  port: PLAIN
  match: {request: {headers: {uri: {prefix: /items}}}}
  destination: {name: catalog-v1}
  destinationPortName: http
"""


async def test_an_ingress_rule_of_2017_lets_clients_in(pki: Pki, short: Path) -> None:
    port = free_port()
    text = INGRESS.replace("PLAIN", str(port))
    async with street(pki, short, text) as (manager_, _):
        world: World = manager_.world
        manager_.apply(ENTRANCE.replace("istio: ingressgateway", "istio: ingress").removeprefix("\n---"))
        assert world.snapshot.view("default", "entrance-0").listeners  # type: ignore[union-attr]
        await manager_.settled("entrance-0")

        async def open_() -> bool:
            with contextlib.suppress(OSError, EOFError):
                return (await ask(port, "/items", "anything"))[0] == 200
            return False

        await eventually(open_, "the gateway serves")
        assert (await ask(port, "/else", "anything"))[0] == 404


OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner}
spec:
  hosts: [partner.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: "unix:///run/partner.sock"}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: partner}
spec:
  hosts: [partner.example.com]
  http:
    - match: [{uri: {prefix: /secret}}]
      directResponse: {status: 403}
    - route: [{destination: {host: partner.example.com}}]
"""


async def test_a_host_outside_is_called_by_its_name_and_under_its_routes(pki: Pki, short: Path) -> None:
    more = OUTSIDE.replace("/run/", f"{short}/")
    async with street(pki, short, more) as (manager_, _), application(short / "partner.sock", "partner") as heads:
        shop = short / "shop" / "mesh.sock"
        assert await get(shop, "partner.example.com") == (200, "partner")
        assert await get(shop, "partner.example.com:80", "/items") == (200, "partner")
        assert (await get(shop, "partner.example.com", "/secret"))[0] == 403
        assert len(heads) == 2
        manager_.apply("", remove=("ServiceEntry/partner",))
        await manager_.settled("shop-0")
        assert (await get(shop, "partner.example.com"))[0] == 404


BYTES = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bytes}
spec:
  hosts: [bytes.partner.com]
  ports: [{number: 9000, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: "unix:///run/bytes.sock"}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: bytes}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: BARE, protocol: TCP, name: tcp}
      hosts: ["*"]
    - port: {number: ENDED, protocol: TLS, name: tls}
      hosts: [bytes.partner.com]
      tls:
        mode: MUTUAL
        serverCertificate: FOLDER/tls.crt
        privateKey: FOLDER/tls.key
        caCertificates: FOLDER/ca.crt
    - port: {number: PASSED, protocol: TLS, name: passed}
      hosts: ["*.partner.com"]
      tls: {mode: PASSTHROUGH}
    - port: {number: MESHED, protocol: HTTPS, name: meshed}
      hosts: ["*"]
      tls: {mode: ISTIO_MUTUAL}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bytes}
spec:
  hosts: ["*.partner.com"]
  gateways: [bytes]
  tcp:
    - match: [{port: BARE}]
      route: [{destination: {host: bytes.partner.com, port: {number: 9000}}}]
    - match: [{port: ENDED}]
      route: [{destination: {host: bytes.partner.com, port: {number: 9000}}}]
  tls:
    - match: [{port: PASSED, sniHosts: [bytes.partner.com]}]
      route: [{destination: {host: bytes.partner.com, port: {number: 9000}}}]
"""


async def test_gateways_carry_bytes_with_and_without_tls(pki: Pki, short: Path) -> None:
    certificate = pki.part("entrance")
    for name, content in (
        ("tls.crt", certificate.cert_chain_pem),
        ("tls.key", certificate.key_pem),
        ("ca.crt", certificate.bundle_pem),
    ):
        (short / name).write_bytes(content)
    ports = {name: free_port() for name in ("BARE", "ENDED", "PASSED", "MESHED")}
    text = BYTES.replace("FOLDER", str(short)).replace("/run/", f"{short}/")
    for name, number in ports.items():
        text = text.replace(name, str(number))
    came: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Envoy dials ahead while a client still shakes hands; what counts is what comes through.
        came.extend(filter(None, [await reader.read(4096)]))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(answer, short / "bytes.sock")
    async with server, street(pki, short, text):

        async def carried(port: int, **more: Any) -> bool:
            with contextlib.suppress(OSError, EOFError):
                return (await ask(port, "/", "bytes.partner.com", **more))[0] == 200
            return False

        await eventually(lambda: carried(ports["BARE"]), "bytes as they are")
        await eventually(lambda: carried(ports["ENDED"], secure=True, shown=short), "bytes out of TLS")
        known = len(came)
        assert not await carried(ports["ENDED"], secure=True)
        assert not await carried(ports["MESHED"], secure=True)
        assert len(came) == known
        hello = client_hello("bytes.partner.com")
        await eventually(lambda: carries(ports["PASSED"], hello), "TLS as it is")
        assert came[-1] == hello
        assert not await carries(ports["PASSED"], client_hello("other.partner.com"))
        assert came[-1] == hello


def client_hello(host: str) -> bytes:
    """Return what a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=host)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def carries(port: int, sent: bytes) -> bool:
    """Say whether anything comes back for some bytes."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(sent)
            return bool(await asyncio.wait_for(reader.read(100), DEADLINE))
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    return False
