"""A box ends whole, however it ends, and leaves nothing on the machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import box
from tests.box import ROOT, Box, BoxError, until

# Begins a box with a mount, a network and a program that has left its parents, and stays.
BEGIN = """
import sys, time
from pathlib import Path
from tests.box import Box
made = Box.begin(Path(sys.argv[1]))
made.run("sh", "-c", "mount -t tmpfs tmpfs /mnt; ip link add inside type dummy || ip link add inside type veth")
made.run("sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 < /dev/null &")
print(made.run("cat", "/proc/self/mountinfo").count("tmpfs"), flush=True)
time.sleep(1000)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if reason := box.missing():
        pytest.skip(reason)
    yield tmp_path / "box"
    Box.end_at(tmp_path / "box")


def alive(space: str) -> list[str]:
    """Return the processes in a process namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            if str(process.readlink()) == space:
                found.append(process.parts[2])
        except OSError:
            continue  # it has ended meanwhile
    return found


def test_all_of_it_ends_with_whoever_made_it_even_killed(folder: Path) -> None:
    """Processes that have left their parents, too; and with the last one its mounts and its network are gone."""
    maker = subprocess.Popen([sys.executable, "-c", BEGIN, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    maker.stdout.readline()
    made = Box.at(folder)
    assert made is not None
    space = str(Path(f"/proc/{made.pid}/ns/pid").readlink())
    assert len(alive(space)) == 2
    assert "/mnt tmpfs" not in Path("/proc/self/mounts").read_text()
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    until("nothing of the box is alive", lambda: alive(space) == [])
    assert Box.at(folder) is None


def test_the_next_box_of_a_folder_ends_the_one_before(folder: Path) -> None:
    """Whoever made it left it on purpose; there is one at a time."""
    first = Box.begin(folder, outlive=True)
    second = Box.begin(folder)
    going = Box.at(folder)
    assert (going and going.pid, first.goes_on()) == (second.pid, False)
    first.end()
    second.end()


def test_its_folders_and_its_network_are_its_own(folder: Path) -> None:
    made = Box.begin(folder)
    made.run("touch", "/run/mine", "/var/lib/mine")
    assert (folder / "lib" / "mine").exists()
    assert not Path("/run/mine").exists()
    assert not Path("/var/lib/mine").exists()
    assert made.run("ls", "/proc/sys/net/ipv4/conf").split() == ["all", "default", "lo"]
    made.end()
    assert Box.at(folder) is None


def test_a_program_that_ends_is_told_with_its_last_words(folder: Path) -> None:
    made = Box.begin(folder)
    made.start("short", "sh", "-c", "echo why; exit 3")
    with pytest.raises(BoxError, match=r"short ended with status 3: why"):
        made.ready("short", lambda: False)
    made.end()
