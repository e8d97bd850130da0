"""`meshwright-manager`: parse settings, run, map failures to exit codes."""

from __future__ import annotations

import functools
import sys

from meshwright.core import process, settings
from meshwright.manager import app
from meshwright.manager.settings import ManagerSettings


def main() -> int:
    """Run the manager."""
    return process.run("meshwright-manager", functools.partial(app.run, settings.load(ManagerSettings)))


if __name__ == "__main__":
    sys.exit(main())
