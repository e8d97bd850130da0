"""`meshwright-nsm-registry`: reads settings, runs the registry, names the failure."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from meshwright.core import process, settings
from meshwright.nsm_registry import app
from meshwright.nsm_registry.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    chosen = settings.load(Settings, arguments)
    return process.run("meshwright-nsm-registry", lambda stop: app.run(chosen, stop))


if __name__ == "__main__":
    sys.exit(main())
