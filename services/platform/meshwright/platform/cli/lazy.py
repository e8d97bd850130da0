"""A command group that imports a command's module when the command is used.

One decision to know: `meshwright --help` must answer in a blink, and the services' commands import gRPC and
cryptography; so the table holds each command's one-line help as well as where it lives.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command: `target` is ``module:attribute``, a typer application; `inner` names one of its commands."""

    help: str
    target: str
    inner: str | None = None


class LazyGroup(TyperGroup):
    """Resolves commands from `table`, which a subclass gives."""

    table: Mapping[str, Lazy] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the table's order."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the command; while help is formatted, only a stand-in with the help text."""
        lazy = self.table.get(cmd_name)
        if lazy is None:
            return None
        if getattr(ctx, "formatting_help", False):
            return _stand_in(cmd_name, lazy.help)
        module, _, attribute = lazy.target.partition(":")
        command: Any = get_command(getattr(importlib.import_module(module), attribute))
        if lazy.inner is not None and hasattr(command, "commands"):
            command = command.commands[lazy.inner]
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Format help without importing any command."""
        ctx.formatting_help = True
        super().format_help(ctx, formatter)


def _stand_in(name: str, text: str) -> Any:
    application = typer.Typer(add_completion=False)
    application.command(name, help=text)(lambda: None)
    return get_command(application)
