"""A function that user space drives: bound to vfio-pci by the pool, carried by our DPDK port, and given back."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cards import NEAR, TOKEN, Far, drivers, interfaces
from nsm_node import until
from station import PROGRAM, SECONDS, replies, wants_dpdk

from meshwright.core import errors
from meshwright.dataplane.forwarder import KernelPort
from meshwright.dataplane.sriov import FunctionPool, Served
from meshwright.nsm.descriptors import Descriptor
from meshwright.platform.demo import enclaves

pytestmark = [wants_dpdk, pytest.mark.timeout(240)]

SERVED = [Served(NEAR, 4, [TOKEN])]
MAC, VLAN = "02:00:00:00:00:07", 100
CLIENT, FAR = "172.16.9.1", "172.16.9.0"
STATION = (MAC, CLIENT, FAR)


@pytest.fixture
def pool() -> Iterator[FunctionPool]:
    pool = FunctionPool(SERVED)
    pool.settle()
    yield pool
    pool.settle()


@pytest.fixture
def far() -> Iterator[Far]:
    far = Far()
    far.serve(VLAN, [f"{FAR}/32"], [f"{CLIENT}/32"])
    yield far
    far.end()


@contextlib.contextmanager
def carrying(function: str, socket: Path) -> Iterator[subprocess.Popen[str]]:
    """The process that has the function open, once it carries packets."""
    carrier = subprocess.Popen(
        [*PROGRAM, "carry", function, str(socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert carrier.stdout is not None
        assert json.loads(carrier.stdout.readline() or "null") == {"mac": MAC}
        yield carrier
    finally:
        carrier.kill()
        carrier.communicate()


async def test_a_memif_reaches_the_wire(pool: FunctionPool, far: Far, tmp_path: Path) -> None:
    """vfio-pci by the function's own IOMMU group; packets both ways on its VLAN; then the kernel may have it again."""
    given = pool.give_device("c1", TOKEN, MAC, VLAN)
    assert drivers() == {given.address: "vfio-pci"}
    assert Path(f"/dev/vfio/{given.iommu_group}").exists()
    with carrying(given.address, tmp_path / "memif") as carrier:
        assert replies(str(tmp_path / "memif"), *STATION) == 5
        said, _ = carrier.communicate(timeout=SECONDS)  # closes its input
        counted = json.loads(said.splitlines()[-1])
        assert min(counted["from_wire"], counted["from_memif"]) >= 6  # ARP and five pings
    pool.give_back("c1")
    assert (drivers(), interfaces()) == ({}, [])
    async with enclaves.made(os.getpid()) as client:
        with Descriptor(client.open()) as namespace:
            port = KernelPort(namespace.fileno(), "nsm-1", addresses=[f"{CLIENT}/32"], routes=[(f"{FAR}/32", None)])
            assert pool.give_interface("c2", TOKEN, port, MAC, VLAN).address == given.address

        async def reached() -> bool:
            with contextlib.suppress(errors.Unavailable):
                return len(await client.ping(FAR)) == 5
            return False

        await until(reached, "the same function under the kernel's driver")
        pool.give_back("c2")


def test_a_killed_process_leaves_a_function_that_comes_back(pool: FunctionPool, far: Far, tmp_path: Path) -> None:
    """kill -9 while packets pass: the next process takes the function back, and can give it again."""
    given = pool.give_device("c1", TOKEN, MAC, VLAN)
    with carrying(given.address, tmp_path / "memif"):
        assert replies(str(tmp_path / "memif"), *STATION) == 5
    assert drivers() == {given.address: "vfio-pci"}
    later = FunctionPool(SERVED)
    assert later.settle() == [given.address]
    assert (drivers(), interfaces()) == ({}, [])
    again = later.give_device("c2", TOKEN, MAC, VLAN)
    with carrying(again.address, tmp_path / "again"):
        assert replies(str(tmp_path / "again"), *STATION) == 5
    later.give_back("c2")
    assert drivers() == {}
