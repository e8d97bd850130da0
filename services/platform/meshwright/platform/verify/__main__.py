"""`meshwright-verify`: parse settings, check, map failures to exit codes."""

from __future__ import annotations

import functools
import sys

from meshwright.core import process, settings
from meshwright.platform.verify import app
from meshwright.platform.verify.settings import VerifySettings


def main() -> int:
    """Check, and return 0 when everything passed."""
    return process.run("meshwright-verify", functools.partial(app.run, settings.load(VerifySettings)))


if __name__ == "__main__":
    sys.exit(main())
