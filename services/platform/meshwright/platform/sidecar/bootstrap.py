"""Writes the proxy's bootstrap and ends: a program of its own, so that what it loads doesn't stay in every pod."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from meshwright.manager.xds.bootstrap import bootstrap


def main() -> int:
    """Write the file that the JSON on standard input describes."""
    told: dict[str, Any] = json.load(sys.stdin)
    path = Path(told.pop("path"))
    path.write_text(json.dumps(bootstrap(**told)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
