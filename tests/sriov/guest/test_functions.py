"""The pool on a real kernel: functions go into namespaces as interfaces and come back, whatever became of those."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cards import NEAR, TOKEN, drivers, interfaces
from nsm_node import until

from meshwright.core import errors
from meshwright.dataplane.forwarder import ForwarderError, KernelPort
from meshwright.dataplane.sriov import FunctionPool, Given, Served
from meshwright.nsm.descriptors import Descriptor
from meshwright.platform.demo import enclaves
from meshwright.platform.demo.enclaves import Enclave

pytestmark = pytest.mark.timeout(120)

SERVED = [Served(NEAR, 4, [TOKEN])]


@pytest.fixture
def pool() -> Iterator[FunctionPool]:
    """A pool that all functions have come back to at the end."""
    pool = FunctionPool(SERVED)
    pool.settle()
    yield pool
    for listed in pool.list():
        if listed.holder is not None:
            pool.give_back(listed.holder)
    assert drivers() == {}


def give(pool: FunctionPool, number: int, enclave: Enclave, *, vlan: int = 0) -> Given:
    with Descriptor(enclave.open()) as namespace:
        port = KernelPort(namespace.fileno(), "nsm-1", addresses=[f"10.9.0.{number}/24"], mtu=1400)
        return pool.give_interface(f"c{number}", TOKEN, port, f"02:00:00:00:00:{number:02x}", vlan)


async def reaches(enclave: Enclave, number: int) -> bool:
    try:
        return bool(await enclave.ping(f"10.9.0.{number}"))
    except errors.Unavailable:
        return False


async def test_functions_are_neighbours_on_one_vlan_only(pool: FunctionPool) -> None:
    """The card switches between two functions with the addresses that were set, and keeps VLANs apart."""
    async with enclaves.made(os.getpid()) as one, enclaves.made(os.getpid()) as other:
        given = [give(pool, 1, one, vlan=100), give(pool, 2, other, vlan=100)]
        assert given[0].side is not None
        assert given[0].side.mac == "02:00:00:00:00:01"
        assert sorted(drivers().items()) == sorted((each.address, "igbvf") for each in given)
        assert await one.interfaces() == await other.interfaces() == ["lo", "nsm-1"]
        await until(lambda: reaches(one, 2), "the first packet")
        assert give(pool, 2, other, vlan=200).address == given[1].address  # in place
        await until(lambda: unreached(one, 2), "the other VLAN")
        pool.give_back("c1")
        assert await one.interfaces() == ["lo"]
        assert await other.interfaces() == ["lo", "nsm-1"]
        assert interfaces() == []


async def unreached(enclave: Enclave, number: int) -> bool:
    return not await reaches(enclave, number)


async def test_a_deleted_namespace_gives_its_function_back(pool: FunctionPool) -> None:
    """The interface comes back under the client's name; the pool sees whose it was, and nothing of it is left."""
    async with enclaves.made(os.getpid()) as one:
        first = give(pool, 1, one)
        assert pool.fallen() == []
    await until(pool.fallen, "the interface to come back")
    assert (pool.fallen(), interfaces()) == (["c1"], ["nsm-1"])
    async with enclaves.made(os.getpid()) as other:
        assert give(pool, 1, other).address == first.address  # the client goes on elsewhere
        assert (await other.interfaces(), interfaces(), pool.fallen()) == (["lo", "nsm-1"], [], [])
        pool.give_back("c1")


async def test_a_new_process_finds_whose_is_what(pool: FunctionPool) -> None:
    """What is restored is adopted where it is; what nobody claims is taken out of whatever namespace it is in."""
    async with enclaves.made(os.getpid()) as one, enclaves.made(os.getpid()) as other:
        first = give(pool, 1, one)
        second = give(pool, 2, other)
        later = FunctionPool(SERVED)
        assert later.restore("c1", first.address)
        assert later.settle() == [second.address]
        assert await other.interfaces() == ["lo"]
        assert give(later, 1, one).address == first.address
        later.give_back("c1")
        assert await one.interfaces() == ["lo"]


async def test_a_step_that_fails_leaves_nothing(pool: FunctionPool) -> None:
    """The name is taken in the client's namespace: the function is free again, and nobody's interface is touched."""
    async with enclaves.made(os.getpid()) as one:
        give(pool, 1, one)
        with pytest.raises(ForwarderError, match="move a function in as nsm-1"):
            give(pool, 2, one)
        assert list(drivers()) == [listed.function.address for listed in pool.list() if listed.holder == "c1"]
        assert await one.interfaces() == ["lo", "nsm-1"]
        assert interfaces() == []
