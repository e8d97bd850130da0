"""Small servers that behave as a test wants, each on a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

Answer = Callable[[socket.socket, int], bool]
"""Answers request number n of a connection; false: close it."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def plain(connection: socket.socket, number: int) -> bool:
    """Answer at once."""
    connection.sendall(OK)
    return True


class Server:
    """Serves HTTP/1.1 on loopback, each connection on a thread."""

    def __init__(self, answer: Answer, turn: threading.Lock | None = None) -> None:
        self._answer, self._turn = answer, turn
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.heads: list[bytes] = []
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        data, number = b"", 0
        with contextlib.suppress(OSError), connection:
            while more := connection.recv(65536):
                data += more
                while b"\r\n\r\n" in data:
                    head, _, data = data.partition(b"\r\n\r\n")
                    self.heads.append(head)
                    with self._turn or contextlib.nullcontext():
                        if not self._answer(connection, number):
                            return
                    number += 1

    def close(self) -> None:
        """End everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def serving(answer: Answer = plain, *, one_at_a_time: bool = False) -> Iterator[Server]:
    """Serve for the length of the context."""
    server = Server(answer, threading.Lock() if one_at_a_time else None)
    try:
        yield server
    finally:
        server.close()


def stalling(seconds: float, after: float) -> Answer:
    """Answer at once, but for one stall of `seconds` that begins `after` seconds after the first request."""
    state = {"begun": 0.0, "stalled": 0.0}

    def answer(connection: socket.socket, number: int) -> bool:
        now = time.monotonic()
        state["begun"] = state["begun"] or now
        if not state["stalled"] and now - state["begun"] > after:
            state["stalled"] = now
            threading.Event().wait(seconds)  # the stall is what is tested
        connection.sendall(OK)
        return True

    return answer
