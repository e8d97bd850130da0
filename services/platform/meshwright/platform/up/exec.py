"""Runs before every part: asks the kernel to end this process when `up` ends, then becomes the part.

One decision to know: it is a tiny program of its own (`python -I -S exec.py PARENT ARGV…`), not a preexec_fn, because
forking a process that has gRPC threads is not safe; imports nothing of ours, so that it costs milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Set the death signal (kept over exec), check that the parent still lives, and exec."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        sys.exit(f"can't run {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
