"""Pods without a cluster: network namespaces with an application, a redirecting proxy and nothing else in common.

Two pods are joined by a veth pair; each has another one to the test, on which manager, mixer and kubelet are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from meshwright.api.envoy.service.secret.v3 import sds_pb2_grpc
from meshwright.core.grpc import Server
from meshwright.core.identity import X509Identity

sys.path.insert(0, str(Path(__file__).parents[1] / "manager"))

from envoys import Agent, eventually

USER = 1337
SIDECAR = (sys.executable, "-m", "meshwright.platform.sidecar")


@dataclass(frozen=True)
class Pod:
    """A namespace with the addresses of its two interfaces."""

    name: str
    namespace: str
    address: str
    sixth: str
    node: str  # this machine's address, as the pod sees it
    kubelet: str  # the pod's address, as this machine sees it

    def inside(self, *command: str, user: int = 0) -> tuple[str, ...]:
        """Return the command line that runs a command in the pod."""
        # This environment's Python may lie where only root may look.
        look = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        run = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *look) if user else ()
        return ("nsenter", f"--net=/run/netns/{self.namespace}", *run, *command)


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True, timeout=20)


def _pod(name: str, number: int, namespace: str) -> Pod:
    # On this machine the links to pods stand beside those of other runs of these tests.
    link, first = f"10.214.{os.getpid() % 250}", 4 * number + 1
    own = (f"10.213.7.{number + 2}", f"fd00:213::{number + 2}")
    return Pod(name, namespace, *own, f"{link}.{first}", f"{link}.{first + 1}")


@contextlib.contextmanager
def pods(*names: str) -> Iterator[list[Pod]]:
    """Make two pods that reach each other and this machine."""
    if os.geteuid():
        pytest.skip("needs root: network namespaces with addresses of their own")
    unique = f"{os.getpid() % 100_000}"
    made = [_pod(name, number, f"mwp{unique}{number}") for number, name in enumerate(names)]
    with contextlib.ExitStack() as stack:
        for number, pod in enumerate(made):
            ip("netns", "add", pod.namespace)
            stack.callback(ip, "netns", "del", pod.namespace)
            host = f"mwt{unique}{number}"
            ip("link", "add", host, "type", "veth", "peer", "name", "node0", "netns", pod.namespace)
            stack.callback(ip, "link", "del", host)  # with the namespace it would go too, but some time later
            ip("addr", "add", f"{pod.node}/30", "dev", host)
            ip("link", "set", host, "up")
            ip("-n", pod.namespace, "addr", "add", f"{pod.kubelet}/30", "dev", "node0")
            for device in ("lo", "node0"):
                ip("-n", pod.namespace, "link", "set", device, "up")
        one, two = made
        ip("-n", one.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", two.namespace)
        for pod in made:
            ip("-n", pod.namespace, "addr", "add", f"{pod.address}/24", "dev", "eth0")
            ip("-n", pod.namespace, "addr", "add", f"{pod.sixth}/64", "dev", "eth0", "nodad")
            ip("-n", pod.namespace, "link", "set", "eth0", "up")
            # Where a service's address would be routed: any way out will do, it is redirected before.
            ip("-n", pod.namespace, "route", "add", "10.96.0.0/16", "via", pod.node)
            ip("-n", pod.namespace, "-6", "route", "add", "fd00:96::/64", "dev", "eth0")
        ip("-n", two.namespace, "route", "add", f"{one.node}/32", "via", two.node)
        yield made


@contextlib.asynccontextmanager
async def process(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for the length of the context."""
    started = await asyncio.create_subprocess_exec(*command)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        await asyncio.wait_for(started.wait(), 20)


async def output(*command: str) -> str:
    """Run a program to its end and return what it wrote."""
    started = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        written, _ = await asyncio.wait_for(started.communicate(), 20)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
    return written.decode()


def redirect(pod: Pod, *options: str) -> None:
    """Do what the init container does."""
    subprocess.run(pod.inside(*SIDECAR, "redirect", *options), check=True, timeout=30)


@contextlib.asynccontextmanager
async def sidecar(
    pod: Pod, folder: Path, identity: X509Identity, *, manager: str, mixer: str, options: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the sidecar of a pod, with an agent of its own; return when it is ready."""
    folder.mkdir()
    os.chown(folder, USER, USER)
    socket = folder / "agent.sock"
    server = Server(f"unix:{socket}", None, socket_mode=0o666)
    sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(Agent(identity), server)
    await server.start()
    arguments = {
        "namespace": "default",
        "pod": pod.name,
        "address": pod.address,
        "manager": manager,
        "mixer": mixer,
        "collector": "127.0.0.1:1",
        "agent-socket": str(socket),
        "folder": str(folder),
        "concurrency": "1",
        "drain-seconds": "20",
    }
    told = [text for name, value in arguments.items() for text in (f"--{name}", value)]
    try:
        async with process(*pod.inside(*SIDECAR, "run", *told, *options, user=USER)) as running:
            await eventually(lambda: ready(pod), f"{pod.name} ready", timeout=40)
            yield running
    finally:
        await server.stop(None)


async def ready(pod: Pod) -> bool:
    """Ask as the kubelet does."""
    return (await kubelet(pod, "/healthz"))[0] == 200


async def kubelet(pod: Pod, path: str, port: int = 15020) -> tuple[int, str]:
    """Ask a pod from this machine, without any identity; status 0: refused."""
    writer = None
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(pod.kubelet, port)
            writer.write(
                f"GET {path} HTTP/1.1\r\nhost: {pod.kubelet}\r\nx-by: kubelet\r\nconnection: close\r\n\r\n".encode()
            )
            answer = await reader.read()
    except OSError:
        return 0, ""
    finally:
        if writer:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]), body.decode()) if head else (0, "")


APPLICATION = """
import http.server, os, socket, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        before, _, folder = self.path.partition("/until")
        if folder:  # answer when the test says so
            open(folder + "/asked", "w").close()
            while not os.path.exists(folder + "/go"): time.sleep(0.02)
        text = f"{sys.argv[1]} {self.path} from {self.client_address[0]} "
        text += f"by {self.headers.get('x-forwarded-client-cert', 'nobody')} host {self.headers['host']}"
        body = text.encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
server = Server(("::", int(sys.argv[2])), Handler)
print("ready", flush=True)
server.serve_forever()
"""

ECHO = """
import socketserver, sys
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"hello from " + self.client_address[0].encode() + b": ")
        while data := self.request.recv(4096): self.request.sendall(data.upper())
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True; daemon_threads = True
server = Server(("0.0.0.0", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@contextlib.asynccontextmanager
async def application(pod: Pod, program: str, *arguments: str) -> AsyncIterator[None]:
    """Run a program of the application's in a pod, as another user than the proxy's."""
    started = await asyncio.create_subprocess_exec(
        *pod.inside(sys.executable, "-c", program, *arguments, user=1000), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert started.stdout
        assert await asyncio.wait_for(started.stdout.readline(), 20) == b"ready\n"
        yield
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


CURL = """
import http.client, sys
host, port, path, header = sys.argv[1:5]
try:
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", path, headers={"host": header} if header else {})
    answer = connection.getresponse()
    print(answer.status, answer.read().decode())
except (OSError, http.client.HTTPException) as error:
    print(0, type(error).__name__)
"""


async def call(pod: Pod, host: str, port: int, path: str = "/", header: str = "", user: int = 1000) -> tuple[int, str]:
    """Send a request from inside a pod as its application."""
    status, _, body = (
        await output(*pod.inside(sys.executable, "-c", CURL, host, str(port), path, header, user=user))
    ).partition(" ")
    return int(status), body.strip()


TALK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
        connection.sendall(b"abc"); connection.shutdown(socket.SHUT_WR)
        said = b""
        while data := connection.recv(4096): said += data
    print(said.decode(), end="")
except OSError: pass
"""


async def talk(pod: Pod, host: str, port: int) -> str:
    """Send bytes from inside a pod as its application and return what comes back."""
    return await output(*pod.inside(sys.executable, "-c", TALK, host, str(port), user=1000))


@contextlib.asynccontextmanager
async def stranger(address: str) -> AsyncIterator[int]:
    """Serve on this machine, outside of the mesh; yields the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("peername")[0]
        writer.write(f"hello from {host}: ".encode() + (await reader.read()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, address, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
