"""What the store keeps of one quota cell: the slices of its limit that replicas have, each until when it counts.

Pure. One decision to know: a slice counts in full from when it is leased until a whole window after its last use was
possible, and only who leased it may say that less was used. So whoever dies, no window sees more than the limit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

MAX_SLICES = 256
"""Of a cell; above it the oldest count together, for as long as the later of them."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Used:
    """How much of a slice was used in its time, and until when (milliseconds since 1970) that counts."""

    id: int
    used: int
    counted: int


@dataclass(frozen=True, slots=True)
class Granted:
    """A slice (zero: nothing is left), with times in milliseconds since 1970."""

    amount: int
    until: int
    counted: int
    more_at: int
    """When something comes back."""


@dataclass(frozen=True, slots=True)
class _Slice:
    holder: str
    id: int
    amount: int
    counted: int


class Ledger:
    """One cell's slices. Amounts are those of the limit, times milliseconds since 1970."""

    def __init__(self, slices: Sequence[_Slice] = ()) -> None:
        self._slices = [*slices]

    @classmethod
    def read(cls, value: bytes | None) -> Ledger:
        """ValueError when it isn't what `value` writes."""
        if value is None:
            return cls()
        document = json.loads(value)
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise ValueError(f"not a ledger of format {_FORMAT}")
        return cls(
            [_Slice(str(holder), int(id_), int(amount), int(end)) for holder, id_, amount, end in document["slices"]]
        )

    def value(self) -> bytes:
        """For the store."""
        slices = [[each.holder, each.id, each.amount, each.counted] for each in self._slices]
        return json.dumps({"format": _FORMAT, "slices": slices}, separators=(",", ":")).encode()

    def is_over(self, now: int) -> bool:
        """Whether nothing counts any more."""
        return all(each.counted <= now for each in self._slices)

    def settle(self, holder: str, used: Sequence[Used]) -> None:
        """Take what its holder says of its slices, those that the store didn't know included."""
        told = {each.id: each for each in used}
        self._slices = [each for each in self._slices if each.holder != holder or each.id not in told]
        self._slices += [_Slice(holder, each.id, each.used, each.counted) for each in used if each.used > 0]

    def lease(
        self, holder: str, id_: int, amount: int, *, limit: int, window: int, life: int, is_fixed: bool, now: int
    ) -> Granted:
        """Lease up to `amount` to the holder, to be used within `life`."""
        self._slices = [each for each in self._slices if each.counted > now]
        until, counted = now + life, now + life + window
        if is_fixed:
            counted = (now // window + 1) * window
            until = min(until, counted)
        left = max(0, limit - sum(each.amount for each in self._slices))
        granted = min(amount, left)
        if granted:
            self._slices.append(_Slice(holder, id_, granted, counted))
            self._shorten()
        return Granted(granted, until, counted, min((each.counted for each in self._slices), default=now))

    def _shorten(self) -> None:
        self._slices.sort(key=lambda each: each.counted)
        while len(self._slices) > MAX_SLICES:
            first, second, *rest = self._slices
            self._slices = [_Slice("", 0, first.amount + second.amount, second.counted), *rest]
