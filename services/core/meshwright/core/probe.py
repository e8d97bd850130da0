"""`meshwright-probe ADDRESS PATH`: asks a process of this machine for its health, for whoever can only run commands.

A kubelet can't ask a part by itself: parts answer health on a Unix socket, or to identities of the mesh.

One decision to know: it imports sockets and nothing else, because it is started every few seconds.
"""

from __future__ import annotations

import socket
import sys

_SECONDS = 4.0  # for each step; kubelets are told to wait 10
_ANSWER_LIMIT = 64 * 1024
_USAGE = "usage: meshwright-probe unix:/path|127.0.0.1:port /path"


def main() -> int:
    """Return 0 when the answer is 200, 1 when it isn't (the body is printed), 64 for wrong arguments."""
    match sys.argv[1:]:
        case [address, path] if path.startswith("/"):
            pass
        case _:
            print(_USAGE, file=sys.stderr)
            return 64
    try:
        status, body = ask(address, path)
    except (OSError, ValueError) as error:
        print(f"{address}: {error}")
        return 1
    if status == 200:
        return 0
    print(f"{address}{path} answers {status}: {body}")
    return 1


def ask(address: str, path: str) -> tuple[int, str]:
    """GET `path` at ``unix:/path`` or ``127.0.0.1:port``; return status and body, or raise OSError or ValueError."""
    with _connected(address) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _ANSWER_LIMIT and (more := connection.recv(_ANSWER_LIMIT)):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = head.split(b" ", 2)
    if len(fields) < 2 or not fields[0].startswith(b"HTTP/1.") or not fields[1].isdigit():
        raise ValueError("the answer isn't HTTP")
    return int(fields[1]), body.decode(errors="replace")


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target: str | tuple[str, int] = address.removeprefix("unix:")
    else:
        host, _, port = address.rpartition(":")
        if host != "127.0.0.1" or not port.isdigit():
            # Health in plain text is for the same machine; elsewhere it is asked over mutual TLS.
            raise ValueError("not an address of this machine: give unix:/path or 127.0.0.1:port")
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        target = host, int(port)
    connection.settimeout(_SECONDS)
    try:
        connection.connect(target)
    except BaseException:
        connection.close()
        raise
    return connection


if __name__ == "__main__":
    sys.exit(main())
