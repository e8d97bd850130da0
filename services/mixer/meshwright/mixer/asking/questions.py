"""Questions to handlers and their answers back, a batch at a time: what arrived together is taken together, and what is
answered in one turn of the loop goes back together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from enum import IntEnum
from functools import partial
from typing import Any, Protocol

from meshwright.mixer.adapter.v1 import Charge, CheckResult, QuotaResult, templates
from meshwright.mixer.asking.handlers import Handlers
from meshwright.mixer.asking.opened import NotOpenError

MESSAGE = 4096
"""Characters of a message to the caller; the rest is cut off."""

Answer = tuple[Any, ...]


class Variety(IntEnum):
    """Numbers of istio.mixer.adapter.model.v1beta1.TemplateVariety."""

    CHECK = 0
    QUOTA = 2
    ATTRIBUTE_GENERATOR = 3
    CHECK_WITH_OUTPUT = 4


METHODS = {
    Variety.CHECK: "check",
    Variety.CHECK_WITH_OUTPUT: "check",
    Variety.QUOTA: "quota",
    Variety.ATTRIBUTE_GENERATOR: "generate",
}


class Box(Protocol):
    """The native end (meshwright.dataplane.policy.Questions)."""

    def fileno(self) -> int:
        """Readable when something has arrived."""
        ...

    def take(self) -> tuple[list[tuple[Any, ...]], list[int]]:
        """Questions that arrived, and the numbers of those that nobody waits for any more."""
        ...

    def answer(self, answers: list[Answer]) -> None:
        """Answers by number; a question that was cancelled is answered, too, when the adapter is done with it."""
        ...


class Questions:
    """Reads the box on the running loop, from `begin` to `end`."""

    def __init__(self, box: Box, handlers: Handlers) -> None:
        self._box, self._handlers = box, handlers
        self._running: dict[int, asyncio.Future[Any]] = {}
        self._answers: list[Answer] = []
        self._flushing = False

    def begin(self) -> None:
        """Answer questions from now on."""
        asyncio.get_running_loop().add_reader(self._box.fileno(), self._arrived)

    def end(self) -> None:
        """Take no more; what is under way is left to its handlers' closing."""
        asyncio.get_running_loop().remove_reader(self._box.fileno())

    def _arrived(self) -> None:
        questions, gone = self._box.take()
        answers = []
        for question in questions:
            answer = self._ask(*question)
            if answer is not None:
                answers.append(answer)
        if answers:
            self._box.answer(answers)
        for number in gone:
            running = self._running.get(number)
            if running is not None:
                running.cancel()

    def _ask(
        self,
        number: int,
        handler: str,
        instance: str,
        template: str,
        variety: int,
        fields: Mapping[str, Any],
        amount: int,
        best_effort: bool,
        deduplication_id: str | None,
    ) -> Answer | None:
        """The answer, or None when it comes later. Nothing that an adapter raises gets past here."""
        try:
            opened = self._handlers.get(handler)
            if opened is None:
                return number, "away", "it has no handler here"
            arguments: list[Any] = [templates.question(template, instance, fields)]
            if variety == Variety.QUOTA:
                charge = Charge(amount=amount, best_effort=best_effort, deduplication_id=deduplication_id or "")
                arguments.append(charge)
            result = opened.call(METHODS[Variety(variety)], *arguments)
            if isinstance(result, asyncio.Future):
                self._running[number] = result
                result.add_done_callback(partial(self._done, number, variety))
                return None
            return _answer(number, variety, result)
        except NotOpenError as error:
            return number, "away", str(error)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            return number, "raised", _told(error)

    def _done(self, number: int, variety: int, future: asyncio.Future[Any]) -> None:
        self._running.pop(number, None)
        if future.cancelled():
            answer: Answer = (number, "raised", "cancelled")
        else:
            error = future.exception()
            if error is not None:
                answer = (number, "raised", _told(error))
            else:
                try:
                    answer = _answer(number, variety, future.result())
                except Exception as wrong:
                    answer = (number, "invalid", _told(wrong))
        self._answers.append(answer)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        answers, self._answers = self._answers, []
        self._box.answer(answers)


def _answer(number: int, variety: int, result: Any) -> Answer:
    """A result as the box takes it: (number, "check" | "quota" | "generate" | reason of a failure, …)."""
    if variety == Variety.QUOTA:
        if not isinstance(result, QuotaResult):
            return number, "invalid", f"quota returned {type(result).__name__}: return a QuotaResult"
        return number, "quota", int(result.granted), _nanoseconds(result.valid_duration)
    if variety == Variety.ATTRIBUTE_GENERATOR:
        if not isinstance(result, Mapping):
            return number, "invalid", f"generate returned {type(result).__name__}: return a mapping"
        return number, "generate", {name: each for name, each in result.items() if each is not None}
    if not isinstance(result, CheckResult):
        return number, "invalid", f"check returned {type(result).__name__}: return a CheckResult"
    direct = result.direct_response
    return (
        number,
        "check",
        int(result.code),
        result.message[:MESSAGE],
        _nanoseconds(result.valid_duration),
        result.valid_use_count,
        None if direct is None else (direct.code, direct.body, dict(direct.headers)),
        dict(result.output) if variety == Variety.CHECK_WITH_OUTPUT else None,
    )


def _nanoseconds(duration: timedelta) -> int:
    return (duration.days * 86_400 + duration.seconds) * 1_000_000_000 + duration.microseconds * 1000


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:MESSAGE]
    except Exception:
        return type(error).__name__  # an exception whose text raises
