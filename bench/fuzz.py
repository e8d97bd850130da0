"""`python -m bench.fuzz`: every fuzz target for some minutes, from the kept corpora.

Needs cargo-fuzz and a nightly compiler. What is found on the way goes into a scratch folder, so that the corpora in git
stay small; an input that fails stays in `dataplane/fuzz/artifacts`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from bench import measure

FUZZ = measure.ROOT / "dataplane" / "fuzz"
COMMAND = ["cargo", "+nightly", "fuzz"]
FOUND = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=4096", "-print_final_stats=1"]


def is_here() -> bool:
    """Whether this machine can fuzz."""
    try:
        return subprocess.run([*COMMAND, "--version"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def fuzz(target: str, minutes: float) -> bool:
    """Run one target; return whether nothing failed."""
    with tempfile.TemporaryDirectory() as scratch:
        corpora = [scratch, str(FUZZ / "corpus" / target)]
        options = [f"-max_total_time={round(minutes * 60)}", f"-artifact_prefix={FUZZ}/artifacts/{target}/", *FOUND]
        (FUZZ / "artifacts" / target).mkdir(parents=True, exist_ok=True)
        command = [*COMMAND, "run", "--fuzz-dir", str(FUZZ), target, *corpora, "--", *options]
        done = subprocess.run(command, stdout=sys.stdout, stderr=subprocess.PIPE, text=True, check=False)
    executions = re.findall(r"number_of_executed_units: (\d+)", done.stderr)
    coverage = re.findall(r"cov: (\d+)", done.stderr)
    print(
        f"{target:12} {'ok' if done.returncode == 0 else 'FAILED'}, executions {executions}, coverage {coverage[-1:]}"
    )
    if done.returncode:
        print(done.stderr[-8000:], file=sys.stderr)
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all targets, or those that are named; status 1 when one failed."""
    targets = sorted(path.stem for path in (FUZZ / "fuzz_targets").glob("*.rs"))
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for each target (default: 10)")
    parser.add_argument("targets", nargs="*", default=targets, help="names (default: all)")
    parsed = parser.parse_args(arguments)
    if not is_here():
        print("skipped: cargo-fuzz or the nightly compiler is missing (`cargo install cargo-fuzz`)")
        return 0
    return 0 if all([fuzz(target, parsed.minutes) for target in parsed.targets]) else 1


if __name__ == "__main__":
    sys.exit(main())
