"""`meshwright apply|get|delete|…`: the configuration API from the command line; what each does is in `commands`."""

from __future__ import annotations

import typer

from meshwright.manager.commands import analyzing, changes, explaining, history, reading, waiting

app = typer.Typer(no_args_is_help=True, add_completion=False)

for _name, _command in (
    ("apply", changes.apply_command),
    ("delete", changes.delete_command),
    ("rollback", changes.rollback_command),
    ("get", reading.get_command),
    ("status", reading.status_command),
    ("wait", waiting.wait_command),
    ("history", history.history_command),
    ("diff", history.diff_command),
    ("watch", history.watch_command),
    ("analyze", analyzing.analyze_command),
):
    app.command(_name)(_command)
app.add_typer(explaining.app, name="explain")
