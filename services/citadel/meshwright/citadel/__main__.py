"""`meshwright-citadel`: the service, and its commands for what must exist before it: `bootstrap` and `etcd-users`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from meshwright.citadel import app
from meshwright.citadel.infrastructure import commands
from meshwright.citadel.settings import CitadelSettings
from meshwright.core import process, settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in commands.COMMANDS:
        return commands.run(given[0], given[1:])
    chosen = settings.load(CitadelSettings, given)
    return process.run("meshwright-citadel", lambda stop: app.run(chosen, stop))


if __name__ == "__main__":
    sys.exit(main())
