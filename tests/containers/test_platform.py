"""What needs no cluster, each part in a container of its own: configuration, identity, policy, telemetry, network."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from typing import Any

import pytest
from tests.box import BoxError, until
from tests.containers.platform import NSM, PORT, RUN, TRUST, USERS, Platform

pytestmark = pytest.mark.timeout(1200)  # the first one waits for images and platform

SHOP = "spiffe://mesh.local/ns/shop/sa/shop"
QUOTA = 5

# Asks the shop's proxy as whoever the node's agent says that this process is.
ASK = """
import asyncio, json, sys
from pathlib import Path
from meshwright.platform.demo.client import Client
from meshwright.platform.demo.workload_api import WorkloadIdentity

async def main(agent, port, expected, path, count, *headers):
    async with WorkloadIdentity(Path(agent)) as identity:
        client = Client("proxy", int(port), identity, expected)
        given = dict(header.split("=", 1) for header in headers)
        answers = [await client.get("shop.shop.svc.cluster.local", path, given) for _ in range(int(count))]
        client.close()
    print(json.dumps([[answer.status, answer.body.decode()] for answer in answers]))

asyncio.run(main(*sys.argv[1:]))
"""

# What the shop's proxy answers to plain text.
PLAIN = """
import socket, sys
with socket.create_connection(("proxy", int(sys.argv[1])), 10) as connection:
    connection.sendall(b"GET / HTTP/1.1\\r\\nHost: shop\\r\\n\\r\\n")
    try:
        print(connection.recv(100))
    except ConnectionResetError:
        print(b"")
"""

FIND = """
import asyncio, json, sys
from pathlib import Path
from meshwright.api.collector.v1 import collector_pb2, collector_pb2_grpc
from meshwright.core.grpc import Channel
from meshwright.core.identity import FileIdentity, part_id

async def main(folder, trace_id):
    async with FileIdentity(Path(folder)) as identity:
        async with Channel("collector:4317", identity, peer=part_id("mesh.local", "collector")) as channel:
            query = collector_pb2_grpc.CollectorQueryStub(channel)
            found = await query.FindTraces(collector_pb2.FindTracesRequest(trace_id=trace_id), timeout=10)
    print(json.dumps([[span.service, span.name] for trace in found.traces for span in trace.spans]))

asyncio.run(main(*sys.argv[1:]))
"""


def ask(platform: Platform, caller: str, path: str, count: int = 1, **headers: str) -> list[tuple[int, str]]:
    """Ask the shop as one of the callers; return status and body of each answer."""
    words = (
        f"{RUN}/workload.sock",
        str(PORT),
        SHOP,
        path,
        str(count),
        *(f"{key}={value}" for key, value in headers.items()),
    )
    answers: list[Any] = json.loads(platform.python(caller, ASK, *words, user=USERS[caller]))
    return [(status, body) for status, body in answers]


@pytest.fixture(scope="module")
def shop(platform: Platform) -> Platform:
    """The platform, when the shop's proxy has its configuration."""
    until("the shop answers", lambda: ask(platform, "customer", "/")[0][0] == 200, 90, every=1)
    return platform


def test_a_proxy_gets_its_configuration_and_tells_who_calls(shop: Platform) -> None:
    """Envoy listens where the documents say, with the shop's certificate, and tells the shop who called."""
    [(status, body)] = ask(shop, "customer", "/")
    assert status == 200
    assert "URI=spiffe://mesh.local/ns/shop/sa/customer" in json.loads(body)["caller"]


def test_plain_text_and_strangers_are_refused(shop: Platform) -> None:
    """Whoever speaks plain text gets no answer, and a process that isn't registered gets no identity."""
    answer = shop.python("customer", PLAIN, str(PORT), user=USERS["customer"])
    assert answer.strip() == "b''"
    with pytest.raises(BoxError, match="no identity"):
        shop.python("customer", ASK, f"{RUN}/workload.sock", str(PORT), SHOP, "/", "1", user=4000)


@pytest.fixture(scope="module")
def policy(shop: Platform) -> Platform:
    """The platform with rules in force."""
    shop.apply("policy", quota=QUOTA, mallory="spiffe://mesh.local/ns/shop/sa/mallory")
    until("the rule is in force", lambda: ask(shop, "mallory", "/admin")[0][0] == 403, 60, every=0.5)
    return shop


def test_a_rule_refuses_one_caller_with_403(policy: Platform) -> None:
    """Mallory, there, and is told why; nobody else, and nowhere else."""
    [(status, body)] = ask(policy, "mallory", "/admin")
    assert (status, "mallory may not administer the shop" in body) == (403, True)
    assert [status for status, _ in ask(policy, "customer", "/admin") + ask(policy, "mallory", "/")] == [200, 200]


def test_a_quota_holds_with_429(policy: Platform) -> None:
    """As many as the quota pass, and the others are told to come later."""
    statuses = Counter(status for status, _ in ask(policy, "customer", "/limited", 3 * QUOTA))
    assert statuses == {200: QUOTA, 429: 2 * QUOTA}


def test_a_request_is_one_trace(shop: Platform) -> None:
    """The proxy's span and that of mixer's decision arrive at the collector in the trace that the caller began."""
    trace = secrets.token_hex(16)
    ask(shop, "customer", "/", traceparent=f"00-{trace}-{secrets.token_hex(8)}-01")

    def whole() -> bool:
        spans = json.loads(shop.python("manager", FIND, f"{TRUST}/admin", trace))
        services = {service for service, _ in spans}
        return "meshwright-mixer" in services and len(services) > 1

    until("the whole trace has arrived", whole, 60, every=1)


def test_two_containers_are_connected_by_a_network_service(platform: Platform) -> None:
    """A client gets an interface to the endpoint's network, and loses it when it ends."""
    common = [f"--agent-socket={RUN}/workload.sock", f"--nsmgr=unix:{NSM}/nsmgr.sock", f"--ready-file={RUN}/sockets/"]
    where = {"pid_mode": "host", "user": USERS["shop"]}
    offer = ["offer", "--name=line", "--service=private-line", "--prefix=172.16.7.0/24", f"--sockets={NSM}"]
    platform.start("line", "sidecar", [*offer, *common[:2], f"{common[2]}line"], **where)
    until("the service is offered", (platform.folder / "sockets" / "line").exists, 60)
    asked = "kernel://private-line/nsm-1"
    connect = ["connect", "--name=client", *common[:2], f"{common[2]}client", asked]
    client = platform.start("client", "sidecar", connect, **{**where, "user": USERS["customer"]})
    until("the client is connected", (platform.folder / "sockets" / "client").exists, 60)

    look = "import os; print(*os.listdir('/sys/class/net'))"
    assert "nsm-1" in platform.python("client", look).split()
    had = platform.python("line", look).split()
    log = platform.daemon.logs(client.get_wrapped_container().id)
    connected = next(json.loads(line) for line in log.splitlines() if "network_service_connected" in line)
    far = connected["endpoint"][0].partition("/")[0]
    listen = "import socket; s = socket.create_server(('', 7007)); c, _ = s.accept(); c.sendall(b'over the line')"
    id_ = platform.container("line").get_wrapped_container().id
    platform.daemon.docker("exec", "--detach", id_, "python", "-c", listen)
    call = f"import socket; print(socket.create_connection(('{far}', 7007), 10).recv(100).decode())"
    until("the other end is heard", lambda: "over the line" in platform.python("client", call), 30)

    platform.daemon.docker("stop", client.get_wrapped_container().id)
    until("its interface is gone", lambda: len(platform.python("line", look).split()) == len(had) - 1, 60)
