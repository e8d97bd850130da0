"""meshwright.dataplane.forwarder: ports are descriptors, nothing leaks, errors name the field."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from meshwright.dataplane.forwarder import Forwarder, ForwarderError, KernelPort

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def in_thread(work: Callable[[], T]) -> T:
    """Run `work` on a thread of its own, whose namespace may change."""
    result: list[object] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert result, "the thread is stuck"
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]  # type: ignore[return-value]


def make_namespace() -> int:
    def make() -> int:
        if libc.unshare(CLONE_NEWNET):
            raise PermissionError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return in_thread(make)


def within(namespace: int, work: Callable[[], T]) -> T:
    def run() -> T:
        if libc.setns(namespace, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return work()

    return in_thread(run)


@pytest.fixture
def namespaces() -> Iterator[tuple[int, int]]:
    """Two network namespaces, as descriptors."""
    try:
        pair = make_namespace(), make_namespace()
    except PermissionError as error:
        pytest.skip(f"can't make a network namespace: {error}")
    yield pair
    for descriptor in pair:
        os.close(descriptor)


def test_packets_flow_and_descriptors_stay_the_callers(namespaces: tuple[int, int]) -> None:
    client, endpoint = namespaces
    forwarder = Forwarder()
    before = len(os.listdir("/proc/self/fd"))
    connected = forwarder.connect(
        "c1",
        KernelPort(client, "nsm-1", addresses=["172.16.0.2/30"]),
        KernelPort(endpoint, "vl-1", addresses=["172.16.0.1/30"], mtu=1400),
    )
    assert (connected.client.interface, connected.endpoint.interface) == ("nsm-1", "vl-1")

    receiver: socket.socket = within(endpoint, lambda: socket.create_server(("172.16.0.1", 0)))
    receiver.settimeout(5)
    address = receiver.getsockname()
    with within(client, lambda: socket.create_connection(address, timeout=5)) as sender:
        accepted, _ = receiver.accept()
        sender.sendall(b"through")
        assert accepted.recv(64) == b"through"
        accepted.close()
    receiver.close()

    assert forwarder.list()[0].client.tx_packets > 0
    forwarder.close("c1")
    assert forwarder.list() == []
    assert within(client, socket.if_nameindex) == [(1, "lo")]
    assert within(endpoint, socket.if_nameindex) == [(1, "lo")]
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(KeyError, match="no connection c1"):
        forwarder.close("c1")


def test_what_the_kernel_refuses_names_the_step(namespaces: tuple[int, int]) -> None:
    client, endpoint = namespaces
    with pytest.raises(ForwarderError, match=r"route 10\.0\.0\.0/8 through nsm-1"):
        Forwarder().connect(
            "c1",
            KernelPort(client, "nsm-1", addresses=["172.16.0.2/30"], routes=[("10.0.0.0/8", "192.0.2.1")]),
            KernelPort(endpoint, "vl-1", addresses=["172.16.0.1/30"]),
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"addresses": ["172.16.0.300/30"]}, r"addresses\[0\]: \"172"),
        ({"routes": [("10.0.0.0", None)]}, r"routes\[0\]"),
        ({"mac": "02:00"}, "mac: .*isn't a hardware address"),
        ({"neighbors": [("10.0.0.1", "x")]}, "neighbors: "),
        ({"netns_fd": -1}, "netns_fd"),
    ],
)
def test_bad_ports_name_the_field(fields: dict[str, object], message: str) -> None:
    descriptor = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        port = KernelPort(**{"netns_fd": descriptor, "interface": "x", **fields})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message):
            port.native()
    finally:
        os.close(descriptor)


def test_a_descriptor_of_something_else_is_refused() -> None:
    with open("/dev/null") as other, pytest.raises(ValueError, match="something else than a network namespace"):
        KernelPort(other.fileno(), "x").native()
