"""What the tests inside the guest share. Nothing here is for the host, which only collects them."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).parent
_TESTS = _HERE.parents[1]

# Tests import `cards` beside this file, the node of the registry's tests, and what all tests have.
for folder in (_TESTS, _TESTS / "nsm_registry", _HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
