"""Point-to-point addresses: unique, kept on refresh, given back, found again after a restart."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core import errors
from meshwright.nsm.errors import InvalidMechanism, NoAddress
from meshwright.nsm.ipam import PointToPoint
from meshwright.nsm.wire import Connection


def _assigned(addresses: PointToPoint, identifier: str, connection: Connection | None = None) -> Connection:
    connection = connection or Connection()
    addresses.assign(identifier, connection)
    return connection


def test_a_pair_with_routes_to_each_other() -> None:
    context = _assigned(PointToPoint("172.16.1.0/24"), "a").context.ip_context
    assert (list(context.dst_ip_addrs), list(context.src_ip_addrs)) == (["172.16.1.0/32"], ["172.16.1.1/32"])
    assert [route.prefix for route in context.src_routes] == ["172.16.1.0/32"]
    assert [route.prefix for route in context.dst_routes] == ["172.16.1.1/32"]


def test_a_refresh_changes_nothing_and_release_frees() -> None:
    addresses = PointToPoint("10.0.0.0/30")
    first = _assigned(addresses, "a")
    again = Connection()
    again.CopyFrom(first)
    assert _assigned(addresses, "a", again) == first
    _assigned(addresses, "b")
    with pytest.raises(NoAddress, match=r"10\.0\.0\.0/30"):
        _assigned(addresses, "c")
    addresses.release("a")
    _assigned(addresses, "c")


def test_a_restarted_endpoint_leaves_its_clients_their_addresses() -> None:
    before = PointToPoint("10.0.0.0/29")
    _assigned(before, "a")
    second = _assigned(before, "b")
    after = PointToPoint("10.0.0.0/29")
    again = Connection()
    again.CopyFrom(second)
    assert _assigned(after, "b", again) == second
    assert _assigned(after, "new").context.ip_context.src_ip_addrs != second.context.ip_context.src_ip_addrs


def test_excluded_prefixes_are_left_out() -> None:
    connection = Connection()
    connection.context.ip_context.excluded_prefixes.append("10.0.0.0/31")
    _assigned(PointToPoint("10.0.0.0/30"), "a", connection)
    assert list(connection.context.ip_context.src_ip_addrs) == ["10.0.0.3/32"]
    connection = Connection()
    connection.context.ip_context.excluded_prefixes.append("x")
    with pytest.raises(InvalidMechanism, match=r"excluded_prefixes\[0\]"):
        _assigned(PointToPoint("10.0.0.0/30"), "a", connection)


def test_ipv6_and_prefixes_that_can_not_serve() -> None:
    assert list(_assigned(PointToPoint("fd00::/64"), "a").context.ip_context.src_ip_addrs) == ["fd00::1/128"]
    for prefix in ("x", "10.0.0.1/32", "10.0.0.1/24"):
        with pytest.raises(errors.ConfigError, match="prefix"):
            PointToPoint(prefix)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=40))
def test_nobody_shares_an_address(steps: list[tuple[int, bool]]) -> None:
    """Whatever is assigned and released in whatever order, open connections have different addresses."""
    addresses = PointToPoint("10.0.0.0/28")
    held: dict[str, str] = {}
    for number, close in steps:
        identifier = str(number)
        if close:
            addresses.release(identifier)
            held.pop(identifier, None)
            continue
        try:
            context = _assigned(addresses, identifier).context.ip_context
        except errors.Exhausted:
            assert len(held) == 8
            continue
        held[identifier] = context.src_ip_addrs[0]
        assert ipaddress.ip_interface(held[identifier]).ip in ipaddress.ip_network("10.0.0.0/28")
    assert len(set(held.values())) == len(held)
