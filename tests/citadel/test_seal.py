"""Keys at rest: only with the right key, for the right purpose, unchanged; and never in a representation."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.citadel.agent.workloads import Svid
from meshwright.citadel.ca import seal
from meshwright.citadel.errors import NoAuthority
from meshwright.citadel.tokens import Grant, Minted
from meshwright.core import errors

KEY = seal.SealKey(bytes(range(32)))


@given(st.binary(max_size=300), st.binary(max_size=30))
def test_what_is_sealed_opens_with_the_same_key_and_purpose(secret: bytes, purpose: bytes) -> None:
    assert KEY.open(KEY.seal(secret, purpose), purpose) == secret


def test_a_nonce_is_never_used_twice() -> None:
    assert len({KEY.seal(b"x", b"y").nonce for _ in range(1000)}) == 1000


def test_another_key_is_named_in_the_error() -> None:
    other = seal.SealKey(b"\1" * 32)
    with pytest.raises(NoAuthority, match=f"sealed with key {KEY.key_id}, but the seal key given is {other.key_id}"):
        other.open(KEY.seal(b"secret", b"a"), b"a")


def test_another_purpose_or_a_changed_byte_is_refused() -> None:
    """Whoever can write the store can't put one mesh's key beside another's certificate."""
    sealed = KEY.seal(b"secret", b"mesh.local")
    with pytest.raises(NoAuthority):
        KEY.open(sealed, b"other.domain")
    changed = bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:]
    with pytest.raises(NoAuthority):
        KEY.open(dataclasses.replace(sealed, ciphertext=changed), b"mesh.local")
    with pytest.raises(NoAuthority):
        KEY.open(dataclasses.replace(sealed, nonce=b""), b"mesh.local")


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    with pytest.raises(errors.ConfigError, match="bootstrap makes one"):
        seal.read_key(path)
    path.write_bytes(bytes(range(32)))
    path.chmod(0o644)
    with pytest.raises(errors.ConfigError, match="chmod 600"):
        seal.read_key(path)
    path.chmod(0o600)
    assert seal.read_key(path).key_id == KEY.key_id
    path.write_bytes(b"x" * 33)
    with pytest.raises(errors.ConfigError, match="exactly 32"):
        seal.read_key(path)


def test_secrets_dont_show_in_representations() -> None:
    """Representations end in logs and tracebacks."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    minted = Minted("TOKEN-TEXT", Grant("manager", "", now))
    svid = Svid("id", "spiffe://mesh.local/x", (b"CHAIN",), b"KEY-BYTES", now)
    for shown in (repr(KEY), repr(minted), repr(svid)):
        assert "TOKEN-TEXT" not in shown
        assert "KEY-BYTES" not in shown
        assert bytes(range(32)).hex() not in shown


@pytest.mark.parametrize(
    ("mode", "group", "answer"),
    [(0o440, 4711, "SealKey"), (0o440, 4712, "can't read"), (0o460, 4711, "can be read"), (0o444, 4711, "can be read")],
)
def test_a_secret_of_kubernetes_is_roots_for_a_group_of_ours(
    short_tmp: Path, mode: int, group: int, answer: str
) -> None:
    """fsGroup: the kubelet gives root's file to a group, for a process that isn't root; nobody else may read it."""
    if os.getuid() != 0:
        pytest.skip("needs root, to be somebody else")
    short_tmp.chmod(0o755)
    key = short_tmp / "seal.key"
    key.write_bytes(bytes(seal.KEY_BYTES))
    os.chown(key, 0, group)
    key.chmod(mode)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from meshwright.citadel.ca import seal\n"
        "from meshwright.core import errors\n"
        "os.setgroups([4711]), os.setgid(10001), os.setuid(10001)\n"
        "try:\n"
        "    print(seal.read_key(Path(sys.argv[1])))\n"
        "except errors.ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(key)], capture_output=True, text=True, check=True)
    assert answer in done.stdout
