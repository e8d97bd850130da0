"""Received file descriptors, by what names them on both ends: device and inode."""

import asyncio
import os
from collections.abc import Callable

from meshwright.dataplane import _native

Begin = Callable[[int, int, float, "asyncio.Future[int]"], None]


class Descriptors:
    """The descriptors that the peer of one connection has sent."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin

    async def take(self, device: int, inode: int, timeout: float) -> int:
        """Wait for the descriptor of (st_dev, st_ino); the caller owns the number and closes it.

        Each one that the peer sends can be taken once. TimeoutError when it doesn't come within `timeout` seconds,
        ConnectionError when the connection ends or can carry none (TCP).
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._begin(device, inode, timeout, future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                os.close(future.result())  # it came at the very moment that the caller gave up
            raise


def open_descriptors() -> int:
    """Return how many descriptors all connections of this process hold now: received and not taken, or to be sent."""
    return _native.open_descriptors()
