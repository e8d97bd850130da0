"""Sealing: keys rest in the store as AES-256-GCM ciphertext, under a key that is held outside the store.

One decision to know: what a ciphertext is for (trust domain, certificate) is its associated data, so that whoever can
write the store can't put one mesh's key beside another's certificate. The seal key's id is derived by HKDF and
published, so that a wrong key gets a clear error instead of "decryption failed".
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from meshwright.citadel.errors import NoAuthority
from meshwright.core.errors import ConfigError

KEY_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext with what is needed to open it, except the key."""

    key_id: str
    nonce: bytes
    ciphertext: bytes

    def record(self) -> dict[str, str]:
        """Return it as JSON takes it."""
        return {
            "cipher": "AES-256-GCM",
            "sealedBy": self.key_id,
            "nonce": base64.b64encode(self.nonce).decode(),
            "ciphertext": base64.b64encode(self.ciphertext).decode(),
        }

    @classmethod
    def of_record(cls, record: Mapping[str, str]) -> Self:
        """Read what `record` wrote; ValueError, KeyError or TypeError when it isn't that."""
        nonce, ciphertext = (base64.b64decode(record[name], validate=True) for name in ("nonce", "ciphertext"))
        return cls(record["sealedBy"], nonce, ciphertext)


class SealKey:
    """A 256-bit key that never leaves the process; `key_id` may be published."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigError(f"{len(key)} bytes", field="seal_key", remedy=f"a seal key has exactly {KEY_BYTES} bytes")
        self.key_id = _derive(key, b"meshwright citadel seal key id", 8).hex()
        self._cipher = AESGCM(_derive(key, b"meshwright citadel seal", KEY_BYTES))

    def __repr__(self) -> str:
        """Name the key without showing it."""
        return f"SealKey({self.key_id})"

    def seal(self, secret: bytes, purpose: bytes) -> Sealed:
        """Encrypt `secret` for `purpose`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return Sealed(self.key_id, nonce, self._cipher.encrypt(nonce, secret, purpose))

    def open(self, sealed: Sealed, purpose: bytes) -> bytes:
        """Decrypt what was sealed for `purpose`; raise NoAuthority naming both keys when it was another key."""
        if sealed.key_id != self.key_id:
            raise NoAuthority(
                f"sealed with key {sealed.key_id}, but the seal key given is {self.key_id} "
                "(start citadel with the seal key that this store was made with)"
            )
        try:
            return self._cipher.decrypt(sealed.nonce, sealed.ciphertext, purpose)
        except (InvalidTag, ValueError) as error:
            raise NoAuthority("the sealed key was changed in the store, or belongs to something else") from error


def random_key() -> SealKey:
    """Return a key for this process only, for a store that is in memory too."""
    return SealKey(secrets.token_bytes(KEY_BYTES))


def read_key(path: Path) -> SealKey:
    """Read a seal key file; raise ConfigError when it is missing, has another length, or others may read it."""
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"can't read {path}: {error.strerror}", field="seal_key", remedy="meshwright-citadel bootstrap makes one"
        ) from error
    # root's file for a group of ours is how Kubernetes gives a Secret to a process that isn't root (fsGroup).
    is_ours_by_group = about.st_uid == 0 and os.geteuid() != 0 and about.st_gid in (os.getegid(), *os.getgroups())
    if about.st_mode & (0o037 if is_ours_by_group else 0o077):
        raise ConfigError(f"{path} can be read by others", field="seal_key", remedy=f"chmod 600 {path}")
    return SealKey(key)


def _derive(key: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=purpose).derive(key)
