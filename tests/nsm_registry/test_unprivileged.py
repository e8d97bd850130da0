"""The same journey by a user without any privilege, in user namespaces (issue 3, journey 5)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534

# Arguments: a scratch folder, the folders that the test needs, `--`, the command. What lies below a folder that only
# root may enter (a home, .tox) is shown to the user in a mount namespace: the closed folder is covered, the needed one
# put back.
SCRIPT = """
set -e
scratch=$1
shift
count=0
for needed in "$@"; do
    [ "$needed" = -- ] && break
    count=$((count + 1))
    mkdir "$scratch/$count"
    mount --bind "$needed" "$scratch/$count"
done
for number in $(seq "$count"); do
    needed=$1
    shift
    closed= above=$needed
    while [ "$above" != / ]; do
        above=$(dirname "$above")
        case $(stat -c %A "$above" 2>/dev/null) in "" | *[xt]) ;; *) closed=$above ;; esac
    done
    [ -z "$closed" ] || mount -t tmpfs -o mode=755 none "$closed"
    if [ ! -e "$needed" ]; then
        mkdir -p "$needed"
        mount --bind "$scratch/$number" "$needed"
    fi
done
shift
exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all "$@"
"""


def needed_folders() -> list[str]:
    """The checkout, the environment and its interpreter, outer folders first."""
    folders = {Path(__file__).parents[2], Path(sys.prefix), Path(sys.base_prefix)}
    return sorted(map(str, folders), key=len)


@pytest.mark.skipif(os.getuid() != 0, reason="the other tests of the journey run without privileges already")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) isn't installed")
@pytest.mark.mesh
@pytest.mark.timeout(300)
def test_the_journey_needs_no_privileges() -> None:
    """Connect, ping, survive kill -9 of manager and forwarder, close: as user 65534 with no capabilities at all."""
    with tempfile.TemporaryDirectory(prefix="nsm") as folder:
        os.chown(folder, NOBODY, NOBODY)
        run = subprocess.run(
            [
                "unshare", "--mount", "sh", "-c", SCRIPT, "sh", folder, *needed_folders(), "--",
                sys.executable, "-m", "pytest", str(Path(__file__).with_name("test_journey.py")), "-q",
                "-p", "no:cacheprovider", "--basetemp", f"{folder}/t", "--timeout", "240",
                "-k", "gets_its_network_service or (killed_part and parts3)",
            ],
            env={**os.environ, "HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
    if "gives no user namespace" in run.stdout:
        pytest.skip("this kernel gives unprivileged users no user namespace")
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "2 passed" in run.stdout
