"""Who a process is, told so that a reused number, a replaced file or a private mount namespace doesn't fool it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshwright.citadel.agent import attestation, process
from meshwright.citadel.agent.process import Process
from meshwright.citadel.registrations.model import Selector
from meshwright.core import errors

WAIT = "import sys; print('up', flush=True); sys.stdin.read()"


def start(*argv: str) -> subprocess.Popen[str]:
    """Start a process that says "up" and waits for the end of its input."""
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    running = start(sys.executable, "-c", WAIT)
    yield running
    end(running)


@contextlib.contextmanager
def held(pid: int) -> Iterator[Process]:
    """The process, as the kernel gives it with a connection."""
    pidfd = os.pidfd_open(pid)
    try:
        with Process(pid, pidfd) as process:
            yield process
    finally:
        os.close(pidfd)


def selectors(pid: int) -> frozenset[Selector]:
    with held(pid) as process_of_pid:
        peer = attestation.Caller(pid, os.getuid(), os.getgid(), process.ticks_ago(0), process_of_pid.fileno())
        return attestation.attest(peer, process_of_pid)


def test_a_process_is_known_by_user_group_file_and_itself(child: subprocess.Popen[str]) -> None:
    assert selectors(child.pid) == {
        Selector("unix:uid", str(os.getuid())),
        Selector("unix:gid", str(os.getgid())),
        Selector("unix:path", os.path.realpath(sys.executable)),
        Selector("unix:pid", f"{child.pid}@{process.start_time(child.pid)}"),
    }


def test_another_process_of_the_same_file_differs_in_one_selector_only(child: subprocess.Popen[str]) -> None:
    """Why there is `unix:pid`: a launcher means this process, not its siblings."""
    other = start(sys.executable, "-c", WAIT)
    try:
        (mine,) = selectors(child.pid) - selectors(other.pid)
        assert mine.type == "unix:pid"
    finally:
        end(other)


def test_a_process_that_ended_is_nobody(child: subprocess.Popen[str]) -> None:
    """Also when it ends between being held and being read."""
    with held(child.pid) as running:
        assert running.alive()
        end(child)
        assert not running.alive()
        with pytest.raises(errors.Forbidden, match="has ended"):
            running.facts(0, 0, process.ticks_ago(0))


def test_another_process_with_the_number_is_refused(child: subprocess.Popen[str]) -> None:
    """What /proc says belongs to another process than the one that is held."""
    pidfd = os.pidfd_open(child.pid)
    end(child)
    other = start(sys.executable, "-c", WAIT)
    try:
        with Process(other.pid, pidfd) as running, pytest.raises(errors.Forbidden, match="has ended"):
            running.facts(0, 0, process.ticks_ago(0))
    finally:
        end(other)
        os.close(pidfd)


def test_a_reused_number_gains_nothing(short_tmp: Path) -> None:
    """A caller ends, another process gets its number, and the connection lives on: nobody is attested by it."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if os.getuid() != 0:
        unshare += ["--user", "--map-root-user"]
    probe = [*unshare, "sh", "-c", "test -w /proc/sys/kernel/ns_last_pid"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("needs unshare(1), PID namespaces and a kernel with CONFIG_CHECKPOINT_RESTORE")
    script = Path(__file__).with_name("pid_reuse.py")
    command = [*unshare, sys.executable, str(script), "tell", str(short_tmp / "agent.sock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == {"honest": "attested PID", "stolen": "Forbidden: process PID has ended", "reused": "True"}


def test_a_process_younger_than_its_connection_is_refused(child: subprocess.Popen[str]) -> None:
    """A process that started after the connection was accepted can't have made it."""
    started = process.start_time(child.pid)
    assert started is not None
    with held(child.pid) as running:
        running.facts(0, 0, started)
        with pytest.raises(errors.Forbidden, match="reused"):
            running.facts(0, 0, started - 1)


@pytest.mark.parametrize("pid", [0, -1])
def test_a_process_of_another_namespace_is_refused(pid: int) -> None:
    """The kernel gives 0 for a peer whose process has no number in the agent's namespace."""
    with pytest.raises(errors.Forbidden, match="namespace"):
        Process(pid, 0)


def test_a_replaced_executable_gives_no_path(tmp_path: Path) -> None:
    """The file at that path isn't the one that runs."""
    program = tmp_path / "program"
    shutil.copy2(shutil.which("sh") or "/bin/sh", program)
    running = start(str(program), "-c", "echo up; read x")
    try:
        assert Selector("unix:path", str(program)) in selectors(running.pid)
        program.rename(tmp_path / "old")
        shutil.copy2(shutil.which("sh") or "/bin/sh", program)
        moved = {selector.value for selector in selectors(running.pid) if selector.type == "unix:path"}
        assert str(program) not in moved
        (tmp_path / "old").unlink()
        assert not any(selector.type == "unix:path" for selector in selectors(running.pid))
    finally:
        end(running)


def test_a_private_mount_namespace_gives_no_false_path(tmp_path: Path) -> None:
    """In its own mount namespace any user may mount a program of its own over a trusted one."""
    mine, trusted = tmp_path / "mine", tmp_path / "trusted"
    shutil.copy2(shutil.which("sh") or "/bin/sh", mine)
    trusted.write_text("")
    trusted.chmod(0o755)
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare(1) and unprivileged user namespaces")
    running = start(*unshare, "sh", "-c", f"mount --bind {mine} {trusted} && exec {trusted} -c 'echo up; read x'")
    try:
        assert os.readlink(f"/proc/{running.pid}/exe") == str(trusted)
        assert not any(selector.type == "unix:path" for selector in selectors(running.pid))
    finally:
        end(running)


def test_a_name_with_brackets_and_spaces_doesnt_shift_the_fields(tmp_path: Path) -> None:
    """The name in /proc/<pid>/stat is the process's own choice."""
    program = tmp_path / "x) S 1 (2 3"
    shutil.copy2(shutil.which("sh") or "/bin/sh", program)
    before = process.ticks_ago(0)
    running = start(str(program), "-c", "echo up; read x")
    try:
        started = process.start_time(running.pid)
        assert started is not None
        assert before - 4 <= started <= process.ticks_ago(0)
    finally:
        end(running)


def test_no_such_process_has_no_start_time(child: subprocess.Popen[str]) -> None:
    end(child)
    assert process.start_time(child.pid) is None


class Context:
    def __init__(self, pidfd: int | None = 5, **properties: list[bytes]) -> None:
        self.pidfd, self.properties = pidfd, properties

    def connection_age(self) -> float:
        return 0.5

    def peer_pidfd(self) -> int:
        if self.pidfd is None:
            raise ProcessLookupError("ended")
        return self.pidfd

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.properties


def test_the_kernels_word_is_read_from_the_connection() -> None:
    context = Context(unix_pid=[b"7"], unix_uid=[b"1000"], unix_gid=[b"100"])
    found = attestation.caller(context)
    assert (found.pid, found.uid, found.gid, found.pidfd) == (7, 1000, 100, 5)
    half = os.sysconf("SC_CLK_TCK") // 2
    assert half - 4 <= process.ticks_ago(0) - found.connected <= half + 50


def test_a_caller_that_had_ended_at_its_accept_is_refused() -> None:
    """Then the kernel has no descriptor to give."""
    with pytest.raises(errors.Forbidden, match="process 7 has ended"):
        attestation.caller(Context(None, unix_pid=[b"7"], unix_uid=[b"1000"], unix_gid=[b"100"]))


@pytest.mark.parametrize("properties", [{}, {"unix_pid": [b"7"]}, {"unix_pid": [b"x"], "unix_uid": [], "unix_gid": []}])
def test_a_server_that_cant_tell_is_unavailable(properties: dict[str, list[bytes]]) -> None:
    """The agent's fault, not the caller's: the caller may try again."""
    with pytest.raises(errors.Unavailable):
        attestation.caller(Context(**properties))


def test_descriptors_dont_leak(child: subprocess.Popen[str]) -> None:
    """Cure53's finding 006 in SPIRE's peer tracker."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        selectors(child.pid)
    assert len(os.listdir("/proc/self/fd")) == before
