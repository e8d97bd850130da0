"""A distributed quota in the store: no window sees more than the limit, and what isn't used comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.mixer.quota.ledger import MAX_SLICES, Granted, Ledger, Used

WINDOW, LIFE = 1000, 100


def lease(
    ledger: Ledger, holder: str, id_: int, amount: int, now: int, *, limit: int = 10, is_fixed: bool = False
) -> Granted:
    return ledger.lease(holder, id_, amount, limit=limit, window=WINDOW, life=LIFE, is_fixed=is_fixed, now=now)


def again(ledger: Ledger) -> Ledger:
    """As another replica reads it."""
    return Ledger.read(ledger.value())


@given(
    st.lists(st.tuples(st.integers(0, 150), st.sampled_from("abc"), st.integers(1, 9), st.booleans()), max_size=80),
    st.integers(1, 30),
    st.booleans(),
)
def test_no_window_sees_more_than_the_limit(
    steps: list[tuple[int, str, int, bool]], limit: int, is_fixed: bool
) -> None:
    """Slices used at any moment of their time, settled or not, by any number of replicas."""
    ledger, now, uses = Ledger(), 0, list[tuple[int, int]]()
    waiting: dict[str, list[tuple[int, Granted]]] = {}
    for number, (pause, holder, amount, is_late) in enumerate(steps):
        now += pause
        ended = [(id_, granted) for id_, granted in waiting.get(holder, []) if granted.until <= now]
        # Half of each was used; who doesn't say so is taken to have used all.
        ledger.settle(holder, [Used(id_, granted.amount // 2, granted.counted) for id_, granted in ended])
        waiting[holder] = [each for each in waiting.get(holder, []) if each not in ended]
        granted = lease(ledger, holder, number, amount, now, limit=limit, is_fixed=is_fixed)
        assert 0 <= granted.amount <= min(amount, limit)
        used = granted.amount // 2
        moment = granted.until - 1 if is_late else now
        uses.append((moment, used))
        waiting[holder].append((number, granted))
        ledger = again(ledger)
    for begin, _ in uses:
        start = begin // WINDOW * WINDOW if is_fixed else begin
        assert sum(used for moment, used in uses if start <= moment < start + WINDOW) <= limit


def test_what_a_dead_replica_had_comes_back_when_its_time_is_over() -> None:
    ledger = Ledger()
    first = lease(ledger, "dead", 1, 7, 0)
    assert (first.amount, first.until, first.counted) == (7, 100, 1100)
    ledger = again(ledger)
    short = lease(ledger, "alive", 1, 5, 50)
    assert (short.amount, short.more_at) == (3, 1100)
    assert lease(ledger, "alive", 2, 5, 1099).amount == 0
    assert lease(ledger, "alive", 3, 5, 1100).amount == 5
    assert not ledger.is_over(1100)
    assert ledger.is_over(2200)


def test_what_was_not_used_comes_back_at_once() -> None:
    ledger = Ledger()
    lease(ledger, "a", 1, 8, 0)
    ledger.settle("a", [Used(1, 2, 1100)])
    assert lease(ledger, "b", 1, 10, 100).amount == 8
    # Another's slice of the same id is another slice.
    ledger.settle("a", [Used(1, 0, 1100)])
    assert lease(ledger, "a", 2, 10, 100).amount == 2


def test_what_was_granted_without_the_store_is_counted_when_it_is_told() -> None:
    ledger = Ledger()
    ledger.settle("a", [Used(9, 4, 1500)])
    assert lease(ledger, "b", 1, 10, 600).amount == 6


def test_fixed_windows_begin_at_multiples_of_their_length() -> None:
    ledger = Ledger()
    granted = lease(ledger, "a", 1, 10, 950, is_fixed=True)
    assert (granted.amount, granted.until, granted.counted) == (10, 1000, 1000)
    assert lease(ledger, "a", 2, 10, 999, is_fixed=True).amount == 0
    assert lease(ledger, "a", 3, 10, 1000, is_fixed=True).amount == 10


def test_a_ledger_stays_small_and_exact() -> None:
    ledger = Ledger()
    for number in range(3 * MAX_SLICES):
        lease(ledger, "a", number, 1, number % 50, limit=10_000)
    assert ledger.value().count(b"[") <= MAX_SLICES + 1
    assert lease(ledger, "b", 0, 10_000, 50, limit=10_000).amount == 10_000 - 3 * MAX_SLICES


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"format":2,"slices":[]}', b'{"format":1,"slices":[[1]]}'])
def test_what_is_no_ledger_is_told(value: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Ledger.read(value)
