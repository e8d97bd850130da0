"""Run as the first process of a PID namespace: lets a caller's number be reused while its connection lives on.

A caller connects, leaves its connection to a child and ends; another process then gets its number; the child calls.
Prints as JSON what the agent made of it, and of an honest call.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc

from meshwright.citadel.agent.session import attested
from meshwright.citadel.agent.workloads import Workloads
from meshwright.core import errors
from meshwright.core.clock import SystemClock
from meshwright.dataplane.grpc import NativeServer

PATH = "/test.Who/Is"


def call(connection: socket.socket) -> None:
    """Make one call with no request on a plain HTTP/2 connection, and wait for its end."""
    import h2.config
    import h2.connection
    import h2.events

    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    http.initiate_connection()
    headers = {":method": "POST", ":scheme": "http", ":path": PATH, ":authority": "localhost", "te": "trailers"}
    http.send_headers(1, [*headers.items(), ("content-type", "application/grpc")])
    http.send_data(1, bytes(5), end_stream=True)
    connection.sendall(http.data_to_send())
    while data := connection.recv(65536):
        if any(isinstance(event, h2.events.StreamEnded) for event in http.receive_data(data)):
            return


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def leave(path: str) -> None:
    """Connect, leave the connection to a child that calls when told so, and end."""
    connection = connect(path)
    if os.fork() == 0:
        sys.stdin.readline()
        call(connection)
    os._exit(0)


async def told(path: str) -> dict[str, str]:
    outcomes: asyncio.Queue[str] = asyncio.Queue()

    async def who(request: bytes, context: Any) -> bytes:
        try:
            async with attested(context, Workloads("mesh.local", SystemClock())) as session:
                outcomes.put_nowait(f"attested {session.peer.pid}")
        except errors.MeshwrightError as error:
            outcomes.put_nowait(f"{type(error).__name__}: {error}")
        return b""

    server = NativeServer(f"unix:{path}", None)
    handlers = {"Is": grpc.unary_unary_rpc_method_handler(who)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Who", handlers),))
    await server.start()
    try:
        honest = await asyncio.create_subprocess_exec(sys.executable, __file__, "call", path)
        honest_outcome = await asyncio.wait_for(outcomes.get(), 30)
        await honest.wait()

        accepted = server.stats()["connections_accepted"]
        left = subprocess.Popen([sys.executable, __file__, "leave", path], stdin=subprocess.PIPE)
        await asyncio.to_thread(left.wait, 30)  # reaped: its number is free
        async with asyncio.timeout(30):
            while server.stats()["connections_accepted"] == accepted:
                await asyncio.sleep(0.01)
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(left.pid - 1))
        thief = subprocess.Popen(["sleep", "60"])
        assert left.stdin is not None
        left.stdin.write(b"go\n")
        left.stdin.flush()
        stolen_outcome = await asyncio.wait_for(outcomes.get(), 30)
        thief.kill()
        thief.wait()
        return {
            "honest": honest_outcome.replace(str(honest.pid), "PID"),
            "stolen": stolen_outcome.replace(str(left.pid), "PID"),
            "reused": str(thief.pid == left.pid),
        }
    finally:
        await server.stop(0)


if __name__ == "__main__":
    role, path = sys.argv[1:]
    if role == "call":
        call(connect(path))
    elif role == "leave":
        leave(path)
    else:
        print(json.dumps(asyncio.run(told(path))))
