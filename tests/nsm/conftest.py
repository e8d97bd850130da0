"""Fixtures of the network service tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest


@pytest.fixture
def open_descriptors() -> Callable[[], int]:
    """Counts this process's open descriptors, after what is unreachable was collected."""

    def count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    return count
