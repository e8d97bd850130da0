"""`python -m meshwright.platform.collector`: parse settings, run, map failures to exit codes."""

from __future__ import annotations

import functools
import sys

from meshwright.core import process, settings
from meshwright.platform.collector import app
from meshwright.platform.collector.settings import CollectorSettings


def main() -> int:
    """Run the collector."""
    return process.run("meshwright-collector", functools.partial(app.run, settings.load(CollectorSettings)))


if __name__ == "__main__":
    sys.exit(main())
