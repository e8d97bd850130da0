"""`meshwright-forwarder`: reads settings, gets the rights it needs while it has one thread, runs, names the failure."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from meshwright.core import process, settings
from meshwright.dataplane import app
from meshwright.dataplane.agent import rights
from meshwright.dataplane.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    chosen = settings.load(Settings, arguments)
    held = rights.obtain(
        may_enter=chosen.user_namespace == "auto",
        memory=chosen.journal.with_name(chosen.journal.name + ".userns"),
    )
    return process.run("meshwright-forwarder", lambda stop: app.run(chosen, held, stop))


if __name__ == "__main__":
    sys.exit(main())
