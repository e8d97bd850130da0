"""What processes cost, from the kernel: CPU time and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds since its start, and resident memory of now."""

    cpu_seconds: float = 0.0
    memory_mb: float = 0.0


def cost(pid: int | None) -> Cost:
    """Return what a process has cost; nothing when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return Cost()
    # Fields of proc_pid_stat(5) after the name: utime and stime are numbers 14 and 15, rss is 24.
    return Cost((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE_MB)


def spent(before: Iterable[Cost], after: Iterable[Cost]) -> float:
    """Return CPU seconds between two looks at the same processes; one that was started anew counts from its start."""
    return sum(
        late.cpu_seconds - (early.cpu_seconds if early.cpu_seconds <= late.cpu_seconds else 0.0)
        for early, late in zip(before, after, strict=True)
    )
