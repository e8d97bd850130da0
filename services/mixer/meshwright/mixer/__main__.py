"""`meshwright-mixer`: settings in, exit code out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from meshwright.core import process, settings
from meshwright.mixer import app
from meshwright.mixer.settings import MixerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one replica until it is told to stop; return the exit code."""
    chosen = settings.load(MixerSettings, arguments)
    return process.run("meshwright-mixer", lambda stop: app.run(chosen, stop))


if __name__ == "__main__":
    sys.exit(main())
