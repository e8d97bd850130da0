"""Fixtures of the network service tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest


@pytest.fixture
def open_descriptors() -> Callable[[], int]:
    """Counts this process's open descriptors of network namespaces, after what is unreachable was collected.

    Others aren't counted: threads of grpcio may still close what earlier tests had.
    """

    def count() -> int:
        gc.collect()
        return sum(map(_is_namespace, os.listdir("/proc/self/fd")))

    return count


def _is_namespace(number: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("net:[")
    except OSError:  # the one that listed the folder
        return False
