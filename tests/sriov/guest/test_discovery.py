"""The device tree of a real kernel: cards, their functions, drivers and IOMMU groups."""

from __future__ import annotations

from cards import FAR, NEAR

from meshwright.dataplane.sriov import FunctionPool, Served, physical_functions


def test_cards_are_found_and_make_functions() -> None:
    """Both cards with all that the forwarder must know; functions come without a driver, each in a group of its own."""
    found = {card.address: card for card in physical_functions()}
    assert sorted(found) == [NEAR, FAR]
    assert {(card.model, card.driver, card.total) for card in found.values()} == {("8086:10c9", "igb", 7)}
    pool = FunctionPool([Served(NEAR, 4, ["ward.example/10G"])])
    listed = pool.list()
    assert len(listed) == 4
    assert {(each.physical, each.holder) for each in listed} == {(NEAR, None)}
    assert {(each.function.driver, each.function.interface) for each in listed} == {(None, None)}
    assert len({each.function.iommu_group for each in listed} - {None}) == 4
