"""An amount of one quota that was fetched ahead of the requests that will need it.

One decision to know: an open quota lets requests pass on an amount that is still being asked for, so that nobody
waits. Once mixer granted less than asked it is closed: only what was granted is used, and more is asked for later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from meshwright.mixer.client.options import Options

_BUCKETS = 10


@dataclass(slots=True, eq=False)
class Slot:
    """An amount that may be used until a time."""

    amount: int
    until: float


@dataclass(slots=True, eq=False)
class Ask:
    """An amount to be asked for, best effort, and the slot that was opened on it."""

    amount: int
    slot: Slot | None = None


@dataclass(slots=True)
class Prefetch:
    """Times are seconds of any clock that never goes back."""

    options: Options
    is_open: bool = True
    asked_at: float = float("-inf")
    _slots: list[Slot] = field(default_factory=list)
    _recent: deque[tuple[int, int]] = field(default_factory=deque)
    _asked: int = 0

    def take(self, amount: int, now: float, *, may_ask: bool = True) -> tuple[bool, Ask | None]:
        """Use `amount` if there is enough; and what to ask for, which the caller then does."""
        self._slots = [slot for slot in self._slots if slot.until > now and slot.amount > 0]
        expected = max(amount, self._count(amount, now), self.options.prefetch_minimum)
        ask = self._ask(expected, amount, now) if may_ask else None
        if self._available(now) < amount:
            return False, ask
        for slot in self._slots:
            if slot.until > now:
                part = min(slot.amount, amount)
                slot.amount -= part
                amount -= part
        return True, ask

    def answered(self, ask: Ask, granted: int, seconds: float, now: float) -> None:
        """What mixer granted, for so many seconds."""
        self._asked -= ask.amount
        slot = ask.slot or Slot(ask.amount, now)
        slot.amount = max(0, slot.amount + granted - ask.amount)
        slot.until = now + seconds
        if slot not in self._slots:  # new, or left out as it was used up meanwhile
            self._slots.append(slot)
        self.is_open = granted >= ask.amount
        self.asked_at = now

    def failed(self, ask: Ask, now: float) -> None:
        """Mixer gave no answer."""
        is_open = self.options.network_fail_open
        self.answered(ask, ask.amount if is_open else 0, self.options.fail_open_seconds, now)

    def _ask(self, expected: int, amount: int, now: float) -> Ask | None:
        available = self._available(now)
        if available >= max(amount, expected / 2):
            return None
        if self.is_open:
            if self._asked >= expected / 2 and available >= amount:
                return None
        elif self._asked or now - self.asked_at < self.options.prefetch_pause:
            return None
        slot = None
        if self.is_open and available < amount:
            slot = Slot(expected, now + self.options.fail_open_seconds)
            self._slots.append(slot)
        self._asked += expected
        self.asked_at = now
        return Ask(expected, slot)

    def _available(self, now: float) -> int:
        return sum(slot.amount for slot in self._slots if slot.until > now)

    def _count(self, amount: int, now: float) -> int:
        """What was asked for in the window, this request included."""
        length = self.options.prefetch_window / _BUCKETS
        bucket = int(now / length)
        while self._recent and self._recent[0][0] <= bucket - _BUCKETS:
            self._recent.popleft()
        if self._recent and self._recent[-1][0] == bucket:
            amount += self._recent.pop()[1]
        self._recent.append((bucket, amount))
        return sum(count for _, count in self._recent)
