"""One run of the guest, from power-on to power-off, and what it says meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import Machine

_SECONDS = 10 * 60.0  # for all tests: they cost five CPU-minutes, on cores that may be busy with other things
_OFF_SECONDS = 15.0
_LOOK_SECONDS = 0.1  # files on 9p announce no changes
_TAIL = 3000


class Run:
    """Boots at once. `fault` says why nothing more is to come, once that is so."""

    def __init__(self, machine: Machine, tests: list[str]) -> None:
        self.fault = ""
        self._folder = Path(tempfile.mkdtemp(prefix="guest"))
        (self._folder / "tests").write_text("".join(f"{test}\n" for test in tests))
        self._said = (self._folder / "outcomes").open("a+b")
        self._partial = b""
        self._lines: dict[str, list[dict[str, Any] | None]] = {}
        self._deadline = time.monotonic() + _SECONDS
        with (self._folder / "qemu").open("wb") as log:
            self._process = machine.start(
                self._folder, "tests", stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def outcomes(self, test: str) -> Iterator[dict[str, Any]]:
        """Yield what is said of a test, as it is said, until it is through or there is a `fault`."""
        while not self.fault:
            is_off = self._process.poll() is not None
            self._read()
            while waiting := self._lines.get(test):
                said = waiting.pop(0)
                if said is None:
                    return
                yield said
            if is_off:
                self.fault = f"the guest went off before it ran this test\n{self._tail()}"
            elif time.monotonic() > self._deadline:
                self.fault = f"the guest isn't through after {_SECONDS:g} s\n{self._tail()}"
            else:
                time.sleep(_LOOK_SECONDS)

    def end(self) -> None:
        """Wait until the machine is off, or switch it off, and remove what it wrote."""
        try:
            self._process.wait(_OFF_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        *whole, self._partial = (self._partial + self._said.read()).split(b"\n")
        for line in whole:
            test, said = json.loads(line)
            self._lines.setdefault(test, []).append(said)

    def _tail(self) -> str:
        parts = []
        for name in ("qemu", "console", "output"):
            path = self._folder / name
            if path.exists():
                parts.append(f"--- {name}\n{path.read_text(errors='replace')[-_TAIL:]}")
        return "\n".join(parts)
