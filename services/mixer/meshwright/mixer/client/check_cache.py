"""Answers to Checks that may be used again: as long, and as often, as the server said."""

from __future__ import annotations

import math
from dataclasses import dataclass

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.mixer.client.encoding import Attributes
from meshwright.mixer.client.reference_cache import ReferenceCache
from meshwright.mixer.client.references import References

Precondition = mixer_pb2.CheckResponse.PreconditionResult


@dataclass(slots=True)
class _Answer:
    precondition: Precondition
    until: float
    uses: int


class CheckCache:
    """Times are seconds of any clock that never goes back."""

    def __init__(self, most: int) -> None:
        self._answers: ReferenceCache[_Answer] = ReferenceCache(most)

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._answers)

    def find(self, attributes: Attributes, now: float) -> Precondition | None:
        """Use an answer once, if there is one."""
        for key, answer in [*self._answers.find(attributes)]:
            if now >= answer.until or answer.uses == 0:
                self._answers.drop(key)
                continue
            answer.uses -= answer.uses > 0
            return answer.precondition
        return None

    def put(self, attributes: Attributes, precondition: Precondition, now: float) -> None:
        """Keep the answer to a request, if it may be used again. Without a duration it is good for ever."""
        if not precondition.HasField("referenced_attributes"):
            return
        references = References.read(precondition.referenced_attributes, attributes)
        if references is None or precondition.valid_use_count == 0:
            return
        until = math.inf
        if precondition.HasField("valid_duration"):
            until = now + precondition.valid_duration.ToTimedelta().total_seconds()
        if until > now:
            self._answers.put(references, attributes, _Answer(precondition, until, precondition.valid_use_count))
