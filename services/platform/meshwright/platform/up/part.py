"""What the supervisor knows about a part, and what it reports of it. Descriptions only: the supervisor acts."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from meshwright.platform.up.ports import Port


class State(enum.StrEnum):
    """Where a part stands."""

    WAITING = "waiting"  # for the parts it needs
    STARTING = "starting"  # running, not yet healthy
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # running, was healthy, now says or seems otherwise
    BACKOFF = "back-off"  # ended by itself, will be started again
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One health probe's outcome; `reason` is for people and empty when all is well."""

    ok: bool
    reason: str = ""


Probe = Callable[[], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the platform.

    `needs` are parts that must be healthy before this one starts. `before_start` runs before every start (a fresh
    one-time token), `after_start` with the process id right after it (a registration of that very process).
    """

    name: str
    argv: tuple[str, ...]
    probe: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    sockets: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    before_start: Callable[[], Awaitable[None]] | None = None
    after_start: Callable[[int], Awaitable[None]] | None = None
    rank: int = 0  # parts stop in the order of their rank, those of one rank together
    stop_seconds: float = 10.0
    optional: bool = False  # the platform is healthy without it


@dataclass(frozen=True, slots=True)
class Status:
    """One part at one moment; `since` is when its process started (monotonic seconds)."""

    name: str
    state: State
    reason: str
    pid: int | None
    ports: tuple[Port, ...]
    sockets: tuple[str, ...]
    restarts: int
    since: float | None
    optional: bool = False
