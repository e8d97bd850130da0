"""A process that lives in a network namespace of its own and looks around in it, told by lines of JSON.

One decision to know: it is a small program that imports nothing of ours, because joining a user namespace needs a
process with one thread. Without privileges it first joins the user namespace of a process that has rights over network
namespaces (the forwarder's), so that what the forwarder builds can reach into it.

    {"do": "interfaces"}                        → {"interfaces": ["lo", "nsm-1"]}
    {"do": "ping", "address": "172.16.1.1"}     → {"milliseconds": [0.05, …]}
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import sys
import time

_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_ECHO_REQUEST, _ECHO_REPLY = 8, 0  # ICMP types (RFC 792)
_WAIT_SECONDS = 1.0


def main() -> None:
    """Make the namespace, say so, and answer until standard input ends."""
    try:
        _enter(int(sys.argv[1]))
    except OSError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _enter(rights: int) -> None:
    """Join the user namespace of process `rights` when it is another than ours, then make a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: int) -> None:
        if getattr(libc, name)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")

    theirs = f"/proc/{rights}/ns/user"
    if os.readlink(theirs) != os.readlink("/proc/self/ns/user"):
        descriptor = os.open(theirs, os.O_RDONLY)
        call("setns", descriptor, _CLONE_NEWUSER)
        os.close(descriptor)
    call("unshare", _CLONE_NEWNET)


def _answer(order: dict[str, str]) -> dict[str, object]:
    try:
        if order["do"] == "ping":
            return {"milliseconds": [_ping(order["address"], number) for number in range(1, 6)]}
        return {"interfaces": [name for _, name in socket.if_nameindex()]}
    except OSError as error:
        return {"error": str(error)}


def _ping(address: str, number: int) -> float:
    """Send one echo request and return the round trip in milliseconds; raise TimeoutError without a reply."""
    identifier = os.getpid() & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.connect((address, 0))
        began = time.monotonic()
        raw.send(_packet(identifier, number))
        while (left := began + _WAIT_SECONDS - time.monotonic()) > 0:
            if not select.select([raw], [], [], left)[0]:
                break
            packet = raw.recv(2048)
            header = (packet[0] & 0x0F) * 4  # IPv4 header length in words of four octets
            kind, _, _, who, which = struct.unpack("!BBHHH", packet[header : header + 8])
            if (kind, who, which) == (_ECHO_REPLY, identifier, number):
                return round((time.monotonic() - began) * 1000, 3)
    raise TimeoutError(f"no reply from {address} in {_WAIT_SECONDS} s")


def _packet(identifier: int, number: int) -> bytes:
    body = b"meshwright" * 4
    head = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identifier, number)
    words = struct.unpack(f"!{len(head + body) // 2}H", head + body)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", _ECHO_REQUEST, 0, checksum, identifier, number) + body


if __name__ == "__main__":
    main()
