"""What is wrong with configuration, so that a person can mend it: the object, the field, the reason and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pydantic

from meshwright.core.errors import ConfigError

API_VERSION = "config.istio.io/v1alpha2"
RBAC_API_VERSION = "rbac.istio.io/v1alpha1"
_SHOWN = 5  # violations in an error's text; a program reads all of them


class Identity(NamedTuple):
    """Which object: `namespace` and `name` within a kind (rule, handler, instance, …)."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}.{self.namespace}"


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault; `field` is a path in the document such as ``spec.actions[0].handler``.

    With a `cause` it is no fault of the document's own: it can't do without another that was left out.
    """

    object: Identity
    field: str
    message: str
    source: str = ""
    cause: Identity | None = None

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        return f"{where}{self.object}: {self.field}: {self.message}"


class PolicyError(ConfigError):
    """Documents with faults; `violations` has every fault that was found, not just the first."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        shown = "; ".join(map(str, violations[:_SHOWN]))
        more = f"; and {len(violations) - _SHOWN} more" if len(violations) > _SHOWN else ""
        super().__init__(f"{shown}{more}")


def path(*parts: str | int) -> str:
    """Write a location as a path: ("spec", "actions", 0, "handler") gives ``spec.actions[0].handler``."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def from_pydantic(error: pydantic.ValidationError, root: str) -> list[tuple[str, str]]:
    """(field, message) of every fault that pydantic found in the mapping at `root`."""
    return [
        (path(root, *fault["loc"]), _message(fault["type"], fault["msg"], fault.get("ctx", {})))
        for fault in error.errors()
    ]


def _message(kind: str, message: str, context: dict[str, object]) -> str:
    match kind:
        case "extra_forbidden":
            return "unknown field: remove it, or correct its spelling"
        case "missing":
            return "missing: add it"
        case "literal_error":
            return f"unknown value: use one of {context.get('expected')}"
        case _:
            return message.removeprefix("Value error, ").replace("Input should be", "must be")
