"""On what terms a change of the configuration is asked for, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshwright.core.config import Key
from meshwright.manager.configapi import plan as plans
from meshwright.manager.configapi.preview import Depth, Preview


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the caller takes for the present: the newest revision, and which one changed an object last (0: none)."""

    revision: int | None = None
    objects: tuple[tuple[Key, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """Who asks for a change, and on what terms."""

    author: str
    message: str = ""
    dry_run: bool = False
    accept_unvalidated: bool = False
    expected: Expectation = Expectation()
    preview: Depth = Depth.NONE


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: `revision` holds the change; the newest where nothing was changed."""

    plan: plans.Plan
    revision: int
    preview: Preview = field(default_factory=Preview)
