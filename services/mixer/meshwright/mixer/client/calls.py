"""Calls of mixer: with a deadline, tried again as the options say, and in words that the server knows.

One decision to know: a server that knows fewer global words than we do is asked again at once with those that every
Mixer knows, and from then on only with those.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from meshwright.api.istio.mixer.v1 import mixer_pb2, mixer_pb2_grpc
from meshwright.core import clock as clocks
from meshwright.mixer.client import words as dictionary
from meshwright.mixer.client.encoding import Attributes, Words, compress
from meshwright.mixer.client.options import Options

T = TypeVar("T")
Demand = tuple[int, bool]
"""Amount, and whether less is welcome."""

_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED})
_OTHER_WORDS = "inconsistent global dictionary versions used"
_INVALID = "Request could not be processed due to invalid"


class Calls:
    """`channel` is meshwright.core.grpc's or grpc.aio's."""

    def __init__(self, channel: Any, options: Options, clock: clocks.Clock) -> None:
        self._stub = mixer_pb2_grpc.MixerStub(channel)
        self._options, self._clock = options, clock
        self._known = len(dictionary.WORDS)
        self._name, self._numbers = uuid.uuid4().hex, itertools.count()

    async def check(
        self, attributes: Attributes, quotas: Mapping[str, Demand], timeout: float | None = None
    ) -> mixer_pb2.CheckResponse:
        """Ask; grpc.aio.AioRpcError when there is no answer after all attempts, all under one deduplication id."""
        deduplication_id = f"{self._name}-{next(self._numbers)}"

        def attempt() -> Awaitable[mixer_pb2.CheckResponse]:
            words = Words(self._known)
            message = mixer_pb2.CheckRequest(
                attributes=compress(attributes, words),
                global_word_count=self._known,
                deduplication_id=deduplication_id,
                quotas={
                    name: mixer_pb2.CheckRequest.QuotaParams(amount=amount, best_effort=best_effort)
                    for name, (amount, best_effort) in quotas.items()
                },
            )
            message.attributes.words.extend(words)
            answer: Awaitable[mixer_pb2.CheckResponse] = self._stub.Check(
                message, timeout=timeout or self._options.timeout
            )
            return answer

        return await self._tried(attempt, self._options.retries)

    async def report(self, records: Sequence[Attributes]) -> None:
        """Send one Report; grpc.aio.AioRpcError when it wasn't taken after all attempts."""

        def attempt() -> Awaitable[None]:
            words = Words(self._known)
            message = mixer_pb2.ReportRequest(
                attributes=[compress(record, words) for record in records],
                repeated_attributes_semantics=mixer_pb2.ReportRequest.INDEPENDENT_ENCODING,
                global_word_count=self._known,
            )
            message.default_words.extend(words)
            answer: Awaitable[None] = self._stub.Report(message, timeout=self._options.timeout)
            return answer

        await self._tried(attempt, self._options.report_retries)

    async def _tried(self, attempt: Callable[[], Awaitable[T]], retries: int) -> T:
        pause = self._options.retry_base
        while True:
            try:
                return await attempt()
            except grpc.aio.AioRpcError as error:
                if self._known > dictionary.BASE and _knows_fewer_words(error):
                    self._known = dictionary.BASE
                    continue
                if retries <= 0 or error.code() not in _AWAY:
                    raise
            retries -= 1
            # Anything up to the pause, so that clients that failed together don't come again together.
            await self._clock.sleep(random.uniform(0, pause))
            pause = min(2 * pause, self._options.retry_max)


def _knows_fewer_words(error: grpc.aio.AioRpcError) -> bool:
    details = error.details() or ""
    return (error.code() is grpc.StatusCode.INVALID_ARGUMENT and details.startswith(_INVALID)) or (
        error.code() is grpc.StatusCode.INTERNAL and details.startswith(_OTHER_WORDS)
    )
