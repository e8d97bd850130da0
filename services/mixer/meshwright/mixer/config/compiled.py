"""What compiling yields: the engine's policy, and what mixer itself needs of the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pydantic

from meshwright.mixer.config.adapters import ListChecker
from meshwright.mixer.config.places import Places
from meshwright.mixer.config.violation import Violation
from meshwright.mixer.remote.handlers import RemoteHandler

Lists = Mapping[str, Sequence[str]]
"""What providers have given, by handler (`name.namespace`); a handler isn't there while its list can't be had."""


@dataclass(frozen=True, slots=True)
class Sink:
    """A handler whose adapter is Python: the adapter's name and the handler's accepted parameters.

    `max_in_flight` bounds the questions that it may have at once; beyond it, its failure policy holds at once.
    """

    adapter: str
    parameters: pydantic.BaseModel
    max_in_flight: int = 1000


@dataclass(frozen=True, slots=True)
class Compiled:
    """`policy` is what the engine loads; `sinks` are the handlers of the record pipeline by `name.namespace`.

    `dropped` says why documents are left out; when nothing `is_left` that is every rule that was written. `providers`
    are the handlers whose lists others provide.
    """

    policy: bytes
    rules: int
    places: Places
    sinks: Mapping[str, Sink] = field(default_factory=dict)
    warnings: tuple[Violation, ...] = ()
    dropped: tuple[Violation, ...] = ()
    is_left: bool = True
    providers: Mapping[str, ListChecker] = field(default_factory=dict)
    remotes: Mapping[str, RemoteHandler] = field(default_factory=dict)
