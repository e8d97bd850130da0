"""Three NATS servers as one cluster, each a process that can be killed and started again."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import servers

from meshwright.core.bus import Cluster, server_config

SIZE = 3


class NatsCluster:
    """`address` is all members', `members` are their processes by name, `routes` their ports for one another."""

    def __init__(self, folder: Path, infrastructure: servers.InfrastructurePki) -> None:
        names = [f"nats-{number}" for number in range(SIZE)]
        self.routes = routes = {name: servers.free_port() for name in names}
        self._monitors = {name: servers.free_port() for name in names}
        self.members: dict[str, servers.Process] = {}
        for name in names:
            home, port = folder / name, servers.free_port()
            text = server_config(
                listen=f"127.0.0.1:{port}",
                tls=infrastructure.write(home / "tls", "nats"),
                store=home / "store",
                monitor=f"127.0.0.1:{self._monitors[name]}",
                cluster=Cluster(name, f"127.0.0.1:{routes[name]}", [f"localhost:{each}" for each in routes.values()]),
            )
            (home / "nats.conf").write_text(text)
            command = [servers.nats_binary(), "-c", str(home / "nats.conf")]
            self.members[name] = servers.Process(command, port, home / "log", self._is_healthy(name))

    @property
    def address(self) -> str:
        """All of them."""
        return ",".join(member.address for member in self.members.values())

    def start(self) -> None:
        """Start all; return when they are one."""
        with ThreadPoolExecutor(SIZE) as threads:
            for started in [threads.submit(member.start) for member in self.members.values()]:
                started.result()

    def kill(self) -> None:
        """Kill all."""
        for member in self.members.values():
            member.kill()

    def leader(self) -> str:
        """The name of the server that leads the stream of records; "" while none is chosen."""
        return next((str(told.get("leader", "")) for _, told in self._stream()), "")

    def copies(self) -> int:
        """How many servers keep the stream, all of them up to date."""
        for name, told in self._stream():
            if told.get("leader") == name:  # the others don't know who is up to date
                return 1 + sum(bool(each.get("current")) for each in told.get("replicas", ()))
        return 0

    def _stream(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What each server that has the stream tells of those that keep it."""
        for name, member in self.members.items():
            if member.process is not None and (told := self._told(name, "jsz?accounts=true&streams=true")) is not None:
                for account in told.get("account_details", ()):
                    for stream in account.get("stream_detail", ()):
                        yield name, dict(stream.get("cluster", {}))

    def _is_healthy(self, name: str) -> Callable[[], bool]:
        """Also: its streams are there, and as new as the others'."""
        return lambda: (self._told(name, "healthz") or {}).get("status") == "ok"

    def _told(self, name: str, path: str) -> dict[str, Any] | None:
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://127.0.0.1:{self._monitors[name]}/{path}", timeout=2) as answer,
        ):
            told: dict[str, Any] = json.load(answer)
            return told
        return None
