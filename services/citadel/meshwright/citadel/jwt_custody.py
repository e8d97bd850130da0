"""The keys of JWT-SVIDs in the store: shared by all replicas, and kept up by whichever looks first.

One decision to know: the whole set is one record, changed by compare-and-set, so that two replicas that find a
successor due together make one. With the store away the keys that are known sign on, and a successor waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshwright.citadel.ca.jwt_keys import JwtKey, JwtKeys, key_set
from meshwright.citadel.ca.seal import Sealed, SealKey
from meshwright.citadel.errors import NoAuthority
from meshwright.core import clock as clocks
from meshwright.core import errors, store
from meshwright.core.health import Health
from meshwright.core.store import Change, Entry, Store

KEY = "/meshwright/citadel/ca/jwt"
PART = "jwt keys"  # in health

_VERSION = 1
_AGAIN_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class JwtCustody:
    """The set as the store has it. `opened` before anything is signed; `run` keeps it up."""

    def __init__(
        self,
        facts: Store,
        seal_key: SealKey,
        trust_domain: str,
        lives: tuple[timedelta, timedelta],
        clock: clocks.Clock,
    ) -> None:
        """`lives` are how long a key signs and how long a token lives at most."""
        self._store, self._seal_key, self._trust_domain, self._clock = facts, seal_key, trust_domain, clock
        self._keys, self._revision = JwtKeys((), *lives), 0
        self._watchers: list[Callable[[], None]] = []

    @property
    def bundle(self) -> bytes:
        """The public keys as a JWK set."""
        return key_set(key.public for key in self._keys.keys)

    @property
    def revision(self) -> int:
        """The store's revision of the set: it grows with every change."""
        return self._revision

    def signing(self, now: datetime) -> JwtKey:
        """Return the key that signs now; NoAuthority when the last has ended and no new one could be stored."""
        key = self._keys.signing(now)
        if key is None:
            raise NoAuthority("the last key for JWT-SVIDs has ended, and the store doesn't take a new one")
        return key

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each change of the set; return the function that ends it."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    async def opened(self) -> None:
        """Read the set, or make the first; raise NoAuthority when it can't be opened."""
        entry = await self._store.get(KEY)
        if entry is not None:
            self._take(entry.value, entry.revision)
        await self._keep_up()

    async def run(self, health: Health) -> None:
        """Follow the store, and make what is due, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            following = store.follow(self._store, KEY, self._snapshot, self._change, health=health, part=PART)
            tasks.create_task(following, name="follow the keys of tokens")
            while True:
                wait = self._keys.due(self._clock.now()).total_seconds()
                await self._clock.sleep(min(wait, 3600.0))  # a wall clock may be set meanwhile
                try:
                    await self._keep_up()
                except errors.MeshwrightError as error:
                    _log.warning("jwt_key_not_made", error=str(error))
                    await self._clock.sleep(_AGAIN_SECONDS)

    async def _keep_up(self) -> None:
        wanted = self._keys.kept_up(self._clock.now())
        if wanted is self._keys:
            return
        try:
            revision = await self._store.put(KEY, self._encode(wanted), expect=self._revision)
        except errors.Conflict:
            entry = await self._store.get(KEY)  # another replica was first: its keys are the keys
            if entry is None:
                raise NoAuthority(f"{KEY} was removed from the store") from None
            self._take(entry.value, entry.revision)
            return
        known = {key.id for key in self._keys.keys}
        for key in wanted.keys:
            if key.id not in known:
                _log.info("jwt_key_made", kid=key.id, begins=key.begins.isoformat(), ends=key.ends.isoformat())
        self._replace(wanted, revision)

    def _snapshot(self, entries: Sequence[Entry], _revision: int) -> None:
        for entry in entries:
            self._taken_or_told(entry.value, entry.revision)

    def _change(self, change: Change) -> None:
        if change.value is not None:
            self._taken_or_told(change.value, change.revision)

    def _taken_or_told(self, value: bytes, revision: int) -> None:
        try:
            self._take(value, revision)
        except NoAuthority as error:
            _log.error("jwt_keys_unreadable", error=str(error))  # those that are known sign on

    def _take(self, value: bytes, revision: int) -> None:
        if revision > self._revision:
            self._replace(self._decode(value), revision)

    def _replace(self, keys: JwtKeys, revision: int) -> None:
        self._keys, self._revision = keys, revision
        for callback in list(self._watchers):
            callback()

    def _encode(self, keys: JwtKeys) -> bytes:
        records = []
        for key in keys.keys:
            private = key.private.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            moments = [moment.isoformat() for moment in (key.published, key.begins, key.ends, key.forgotten)]
            sealed = self._seal_key.seal(private, self._purpose(moments))
            records.append({"id": key.id, "moments": moments, "key": sealed.record()})
        record = {"version": _VERSION, "trustDomain": self._trust_domain, "keys": records}
        return json.dumps(record, indent=1).encode()

    def _decode(self, value: bytes) -> JwtKeys:
        try:
            record = json.loads(value)
            version = record["version"]
            keys = [
                (each["moments"], [datetime.fromisoformat(m) for m in each["moments"]], Sealed.of_record(each["key"]))
                for each in record["keys"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NoAuthority(f"the record at {KEY} is damaged: {error!r} (restore the store from a backup)") from error
        if version != _VERSION:
            raise NoAuthority(f"the record at {KEY} has version {version}, this citadel knows {_VERSION}")
        return JwtKeys(
            tuple(self._opened_key(texts, moments, sealed) for texts, moments, sealed in keys),
            self._keys.key_life,
            self._keys.token_life,
        )

    def _opened_key(self, texts: Sequence[str], moments: Sequence[datetime], sealed: Sealed) -> JwtKey:
        private = serialization.load_der_private_key(self._seal_key.open(sealed, self._purpose(texts)), password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey) or len(moments) != 4:
            raise NoAuthority(f"a key at {KEY} isn't an EC key with its four moments")
        return JwtKey(private, *moments)

    def _purpose(self, moments: Sequence[str]) -> bytes:
        return f"JWT-SVID key of {self._trust_domain}, {' '.join(moments)}".encode()
