"""Taken ports and held data directories are named, not broken."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meshwright.core import errors, sockets
from meshwright.platform.up import lock
from meshwright.platform.up.ports import Port, Ports, require_free


def test_taken_port_names_port_part_and_process() -> None:
    """The error for a taken port says which port, who wanted it, and which process holds it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with pytest.raises(errors.Unavailable) as caught:
            require_free([Port(number, "manager", "configuration and xDS")])
    message = str(caught.value)
    assert f"port {number}, wanted by manager" in message
    assert f"process {os.getpid()} ({sockets.process_name(os.getpid())})" in message


def test_port_on_the_wildcard_address_counts_as_taken() -> None:
    """A listener on every IPv6 and IPv4 address would take our connections too."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        number = server.getsockname()[1]
        with pytest.raises(errors.Unavailable, match="wanted by etcd"):
            require_free([Port(number, "etcd", "clients")])


def test_free_ports_pass() -> None:
    """Ports nobody listens on are free, also right after a listener closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    require_free([Port(number, "etcd", "clients")])


def test_ports_are_distinct_and_follow_the_base() -> None:
    """With a base port every port is in one run that starts there."""
    for ports in (Ports.choose(None, 3), Ports.choose(20000, 3)):
        numbers = [port.number for port in ports.all()]
        assert len(set(numbers)) == len(numbers) == 12
    assert {port.number for port in Ports.choose(20000, 3).all()} == {*range(20000, 20009), 20010, 20011, 20012}


def test_finds_listeners_of_descendants() -> None:
    """Every listener of a process tree is found, with the process that holds it."""
    program = (
        "import socket, sys; server = socket.create_server(('127.0.0.1', 0)); "
        "print(server.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        port = int(child.stdout.readline())
        found = sockets.listening_ports(sockets.descendants(os.getpid()))
        assert [(listener.port, pid) for listener, pid in found.items() if listener.port == port] == [(port, child.pid)]
        child.communicate("")


def test_second_holder_is_told_who_holds(tmp_path: Path) -> None:
    """The lock names the process that holds the directory, and is free when that process is gone."""
    data = tmp_path / "data"
    with lock.hold(data):
        assert data.stat().st_mode & 0o777 == 0o700
        assert lock.holder(data) == os.getpid()
        with pytest.raises(lock.Running, match=f"runs there as process {os.getpid()}"), lock.hold(data):
            pass
    assert lock.holder(data) is None
    with lock.hold(data):
        pass
