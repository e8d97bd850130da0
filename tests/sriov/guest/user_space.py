"""Programs around a function that user space drives; each is a process of its own, for DPDK is begun once a process.

carry PCI SOCKET                       the Rust port on the function, connected with a memif; until its input ends
reach SOCKET MAC ADDRESS FAR           a station at the other end of the memif: pings FAR, prints how many replies came
"""

from __future__ import annotations

import ipaddress
import json
import struct
import sys
import time

from meshwright import dpdk

_ARP, _IPV4 = 0x0806, 0x0800  # EtherTypes
_PINGS = 5
_SECONDS = 60.0


def carry(function: str, socket: str) -> None:
    """Carry packets between function and memif; print the function's address once it does."""
    dpdk.init(pci=[function], hugepages=True, memory=48, buffers=4096)
    port = dpdk.Port(function, descriptors=256)
    mac = port.mac
    memif = dpdk.Port(f"net_memif0,role=server,socket={socket},socket-abstract=no", descriptors=256)
    with dpdk.CrossConnect(port, memif) as connected:
        print(json.dumps({"mac": mac}), flush=True)
        sys.stdin.read()
        from_wire, from_memif = (flow["packets"] for flow, _ in connected.counters())
    print(json.dumps({"from_wire": from_wire, "from_memif": from_memif}), flush=True)


def reach(socket: str, mac: str, address: str, far: str) -> None:
    """Find the far station by ARP, then ping it, answering whoever asks for this one."""
    dpdk.init(hugepages=True, memory=48, buffers=4096)
    memif = dpdk.Port(f"net_memif0,role=client,socket={socket},socket-abstract=no", descriptors=256)
    station = Station(memif, bytes.fromhex(mac.replace(":", "")), packed(address), packed(far))
    deadline = time.monotonic() + _SECONDS
    while station.replies < _PINGS and time.monotonic() < deadline:
        station.ask()
        until = time.monotonic() + 0.5
        before = station.replies
        while time.monotonic() < until and station.replies == before:
            for frame in memif.receive():
                station.hear(frame)
    print(json.dumps({"replies": station.replies}), flush=True)


class Station:
    """Just enough of an IPv4 host."""

    def __init__(self, port: dpdk.Port, mac: bytes, address: bytes, far: bytes) -> None:
        self._port, self._mac, self._address, self._far = port, mac, address, far
        self._far_mac = b""
        self.replies = 0

    def ask(self) -> None:
        """Send the next question: who has the far address, or an echo request."""
        if not self._far_mac:
            self._send(b"\xff" * 6, _ARP, self._arp(1, bytes(6), self._far))
            return
        echo = struct.pack("!BBHHH", 8, 0, 0, 7, self.replies) + b"meshwright" * 2
        echo = echo[:2] + checksum(echo) + echo[4:]
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(echo), 0, 0, 64, 1, 0) + self._address + self._far
        self._send(self._far_mac, _IPV4, head[:10] + checksum(head) + head[12:] + echo)

    def hear(self, frame: bytes) -> None:
        """Take a frame as it came."""
        (kind,) = struct.unpack("!H", frame[12:14])
        if kind == _ARP and frame[38:42] == self._address:
            self._far_mac = frame[22:28]
            if frame[20:22] == b"\x00\x01":
                self._send(self._far_mac, _ARP, self._arp(2, self._far_mac, frame[28:32]))
        elif kind == _IPV4 and frame[23] == 1 and frame[34] == 0:
            self.replies += 1

    def _arp(self, operation: int, to: bytes, address: bytes) -> bytes:
        return struct.pack("!HHBBH", 1, _IPV4, 6, 4, operation) + self._mac + self._address + to + address

    def _send(self, to: bytes, kind: int, payload: bytes) -> None:
        self._port.send([(to + self._mac + struct.pack("!H", kind) + payload).ljust(60, b"\0")])


def checksum(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def packed(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


if __name__ == "__main__":
    {"carry": carry, "reach": reach}[sys.argv[1]](*sys.argv[2:])
