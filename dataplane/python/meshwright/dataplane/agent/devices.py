"""DPDK in this process, as the distribution meshwright-dpdk brings it; begun with the first device that is opened.

One decision to know: DPDK opens all that it is told of when it begins, and a function that is open can't be given back.
So it begins with one device, and is told of each other one when that is to be opened.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

from meshwright.dataplane.agent.ports import CrossConnectFailed
from meshwright.nsm.errors import InvalidMechanism

_BUFFERS_A_MEGABYTE = 128  # of 2 KiB and what DPDK writes in front of each, in a third of the memory
_DESCRIPTORS = 512  # a queue; each holds a buffer for as long as the device is open


class Devices:
    """`memory` is in megabytes of huge pages, for all devices together. Methods may be called from any thread."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._begun = False
        self._fault = ""  # why DPDK can't be begun: it is tried once a process

    def check(self) -> None:
        """Raise InvalidMechanism where meshwright-dpdk isn't."""
        _module()

    def open(self, address: str) -> Any:
        """Open a function that is bound to vfio-pci: a `meshwright.dpdk.Port`. Raises CrossConnectFailed."""
        dpdk = _module()
        with self._lock:
            try:
                self._begin(dpdk, address)
                return dpdk.Port(address, descriptors=_DESCRIPTORS)
            except dpdk.DpdkError as error:
                raise CrossConnectFailed(str(error)) from error

    def _begin(self, dpdk: Any, address: str) -> None:
        if self._fault:
            raise CrossConnectFailed(f"{self._fault}; then start the forwarder again")
        if self._begun:
            return
        buffers = min(self._memory * _BUFFERS_A_MEGABYTE, 1 << 20)
        try:
            dpdk.init(pci=[address], hugepages=True, memory=self._memory, buffers=buffers)
        except dpdk.DpdkError as error:
            self._fault = str(error)
            raise
        self._begun = True


def _module() -> Any:
    try:
        return importlib.import_module("meshwright.dpdk")
    except ImportError as error:
        raise InvalidMechanism(
            f"this forwarder can't drive a virtual function for MEMIF: {error}",
            field="mechanism_preferences",
            remedy="install meshwright-dpdk beside it (pip install ./dataplane/dpdk), or ask for KERNEL",
        ) from error
