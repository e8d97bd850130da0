"""DPDK on virtual devices: by itself, and connected to memif by the forwarder of `meshwright`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshwright import dpdk
from meshwright.dataplane.forwarder import DpdkPort, Forwarder, MemifPort

SECONDS = 20.0
FRAME = bytes.fromhex("020000000002020000000001") + b"\x08\x00" + bytes(range(46))


@pytest.fixture(scope="session", autouse=True)
def environment() -> None:
    """It begins once a process."""
    with pytest.raises(dpdk.DpdkError, match="init\\(\\) first"):
        dpdk.Port("net_null9")
    dpdk.init(memory=128, buffers=8192)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        time.sleep(0.01)


def passes(one: dpdk.Port, other: dpdk.Port) -> None:
    """Frames of several sizes go from one to the other, whole."""
    wanted = [FRAME + b"!", FRAME * 10, FRAME * 25]
    got: list[bytes] = []

    def through() -> bool:
        got.extend(frame for frame in other.receive() if frame != FRAME)  # those of the first wait may come late
        return len(got) >= len(wanted)

    until(lambda: one.send([FRAME]) == 1 and FRAME in other.receive(), "the first frame")
    assert one.send(wanted) == len(wanted)
    until(through, "all frames")
    assert got == wanted


def test_a_thread_carries_packets_and_counts_them() -> None:
    with dpdk.CrossConnect(dpdk.Port("net_null0"), dpdk.Port("net_null1")) as connected:
        until(lambda: connected.counters()[0][0]["packets"] > 100_000, "packets")
    (came, _), (_, went) = connected.counters()
    assert went["packets"] + went["dropped_full"] == came["packets"]
    assert came["bytes"] == came["packets"] * 64
    assert went["bytes"] == went["packets"] * 64


def test_what_a_full_device_has_no_room_for_is_counted(tmp_path: Path) -> None:
    """Between two devices buffers change hands; each packet and byte is counted on either side all the same."""
    one, other = (f"socket={tmp_path}/{name}.sock,socket-abstract=no" for name in ("one", "other"))
    sent = [FRAME * (1 + number % 30) for number in range(3000)]  # more than a queue, which nobody empties meanwhile
    # Clients send into buffers of their own: those of a server wait until its peer has asked for the first frame.
    near, right = dpdk.Port(f"net_memif7,role=server,{one}"), dpdk.Port(f"net_memif8,role=server,{other}")
    far = dpdk.Port(f"net_memif9,role=client,{other}")
    with (
        right,
        dpdk.CrossConnect(near, far) as connected,
        dpdk.Port(f"net_memif10,role=client,{one}") as left,
    ):
        # Each end is asked, not the first that is down: a client dials when it is asked for its link.
        until(lambda: all([port.link_up for port in (near, far, left, right)]), "the links")
        for frame in sent:
            until(lambda frame=frame: left.send([frame]) == 1, "room")
        until(lambda: connected.counters()[0][0]["packets"] == len(sent), "all frames")
        (came, _), (_, went) = connected.counters()
        got: list[bytes] = []

        def through() -> bool:
            got.extend(right.receive())
            return len(got) >= went["packets"]

        until(through, "what went")
    assert came["bytes"] == sum(map(len, sent))
    assert went["packets"] == len(got) > 0
    assert went["bytes"] == sum(map(len, got))
    assert went["dropped_full"] == len(sent) - len(got) > 0
    in_order = iter(sent)
    assert all(frame in in_order for frame in got)


def test_the_forwarder_connects_a_device_to_memif(tmp_path: Path) -> None:
    """Frames pass device, forwarder, memif and back; each is copied, as the buffers are different libraries'."""
    one, other = (f"socket={tmp_path}/{name}.sock,socket-abstract=no" for name in ("one", "other"))
    forwarder = Forwarder(workers=1)
    port = dpdk.Port(f"net_memif2,role=server,{one}")
    forwarder.connect_user_space("c", DpdkPort(port), MemifPort(serve=True, path=f"{tmp_path}/other.sock"))
    with pytest.raises(ValueError, match="given away"):
        port.send([FRAME])
    with (
        dpdk.Port(f"net_memif3,role=client,{one}") as left,
        dpdk.Port(f"net_memif4,role=client,{other}") as right,
    ):
        until(lambda: left.link_up and right.link_up, "the links")
        passes(left, right)
        passes(right, left)
        client, endpoint = forwarder.flows()["c"]
        assert endpoint.sent.packets >= 4
        assert client.received.packets >= 4
        assert endpoint.memif is not None
        assert endpoint.memif.up
        forwarder.close("c")
        assert forwarder.flows() == {}
    # By the thread that answers clients, once it hears of the close.
    until(lambda: not (tmp_path / "other.sock").exists(), "the socket's file goes")


def test_the_forwarder_is_a_client_of_a_device(tmp_path: Path) -> None:
    """Other roles: the device owns socket and waits, the forwarder hands memory over."""
    one, other = f"{tmp_path}/one.sock", f"{tmp_path}/other.sock"
    forwarder = Forwarder(workers=1)
    with dpdk.Port(f"net_memif5,role=server,socket={one},socket-abstract=no") as left:
        client, endpoint = MemifPort(serve=False, path=one), MemifPort(serve=True, path=other)
        forwarder.connect_user_space("c", client, endpoint)
        with dpdk.Port(f"net_memif6,role=client,socket={other},socket-abstract=no") as right:
            until(lambda: left.link_up and right.link_up, "the links")
            passes(left, right)
            passes(right, left)
        forwarder.close("c")


def test_what_is_no_device_is_said() -> None:
    with pytest.raises(dpdk.DpdkError, match="net_nothing0"):
        dpdk.Port("net_nothing0")
    with pytest.raises(dpdk.DpdkError, match="once"):
        dpdk.init()
