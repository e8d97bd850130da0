"""The rights that connecting network namespaces takes, and how a process without them gets some.

One decision to know: without CAP_NET_ADMIN and CAP_SYS_ADMIN the forwarder enters a user namespace of its own, where
it has all of them over network namespaces that belong to it, and stays in the machine's network namespace with its
sockets. Only a process with one thread can do that, so it comes before anything else. After a kill it enters the same
one again as long as somebody lives in it: a new one would have no rights over the namespaces that it connected.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21  # linux/capability.h
_NEEDED = (1 << _CAP_NET_ADMIN) | (1 << _CAP_SYS_ADMIN)


@dataclass(frozen=True, slots=True)
class Rights:
    """What this process may do. `missing` says what it lacks and what would help; empty: nothing."""

    missing: str = ""
    own_user_namespace: bool = False


def obtain(*, may_enter: bool, memory: Path) -> Rights:
    """Return the rights of this process, after entering a user namespace if it must and may.

    `memory` is the file that remembers which one, over restarts.
    """
    if effective() & _NEEDED == _NEEDED:
        return Rights()
    remedy = "run it as root or with CAP_NET_ADMIN and CAP_SYS_ADMIN"
    if not may_enter:
        return Rights(f"no network administration rights ({remedy}, or with --user-namespace auto)")
    try:
        if not _enter_again(memory):
            _enter_new()
            _remember(memory)
    except OSError as error:
        return Rights(
            f"no network administration rights, and this kernel gives no user namespace: {error.strerror} ({remedy}, "
            "or allow user namespaces: user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
        )
    if effective() & _NEEDED != _NEEDED:  # a security module took them away
        return Rights(f"a user namespace without network administration rights ({remedy})", own_user_namespace=True)
    return Rights(own_user_namespace=True)


def effective() -> int:
    """Return the effective capabilities of this process as a bit set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _enter_new() -> None:
    user, group = os.getuid(), os.getgid()
    _call("unshare", _CLONE_NEWUSER)
    # A process may map its own ids without privileges once it gave up setgroups (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _enter_again(memory: Path) -> bool:
    """Enter the remembered user namespace through some process that lives in it; return whether there was one."""
    try:
        wanted = memory.read_text().strip()
    except OSError:
        return False
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            descriptor = os.open(process / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # ended, or another user's
            continue
        try:
            if _name(descriptor) == wanted:
                _call("setns", descriptor, _CLONE_NEWUSER)
                return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return False


def _remember(memory: Path) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        memory.write_text(_name(descriptor))
    finally:
        os.close(descriptor)


def _name(descriptor: int) -> str:
    status = os.fstat(descriptor)
    return f"{status.st_dev}:{status.st_ino}"


def _call(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
