"""JWT-SVIDs as values: what is signed, what is refused (a case for each sentence of the specification), keys' lives."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from meshwright.citadel import jwt_custody
from meshwright.citadel.ca import jwt_svid
from meshwright.citadel.ca.jwt_keys import JwtKey, JwtKeys
from meshwright.citadel.ca.seal import SealKey
from meshwright.citadel.errors import NoAuthority, TokenInvalid
from meshwright.citadel.jwt_custody import JwtCustody
from meshwright.core import errors
from meshwright.core.clock import ManualClock
from meshwright.core.health import Health
from meshwright.core.store import Entry, MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY, TOKEN = timedelta(days=1), timedelta(minutes=5)
WEB = "spiffe://mesh.local/ns/shop/sa/web"
SEAL = SealKey(b"k" * 32)
KEYS = JwtKeys((), DAY, TOKEN).kept_up(NOW)
(KEY,) = KEYS.keys


def bundles(*keys: JwtKey) -> dict[str, dict[str, jwt.PyJWK]]:
    return {"mesh.local": {key.id: jwt.PyJWK(key.public, "ES256") for key in keys}}


def token(audience: tuple[str, ...] = ("db",)) -> str:
    return jwt_svid.sign(KEY, WEB, audience, NOW, NOW + TOKEN, "").text


def forged(header: dict[str, Any] | None = None, key: JwtKey = KEY, **claims: Any) -> str:
    """A token with other headers and claims (None: without it), rightly signed."""
    all_claims = {"sub": WEB, "aud": ["db"], "exp": NOW.timestamp() + 60, "iat": NOW.timestamp(), **claims}
    kept = {name: value for name, value in all_claims.items() if value is not None}
    return jwt.PyJWS().encode(json.dumps(kept).encode(), key.private, "ES256", {"kid": key.id, **(header or {})})


def test_a_token_says_who_for_whom_and_until_when() -> None:
    """JWT-SVID sections 2 and 3; verified by PyJWT, which knows nothing of SPIFFE."""
    public = jwt.PyJWK(KEY.public, "ES256")
    decoded = jwt.decode_complete(token(), public, algorithms=["ES256"], audience="db", options={"verify_exp": False})
    assert decoded["header"] == {"alg": "ES256", "kid": KEY.id, "typ": "JWT"}
    moments = {"iat": int(NOW.timestamp()), "exp": int((NOW + TOKEN).timestamp())}
    assert decoded["payload"] == {"sub": WEB, "aud": ["db"], **moments}
    assert jwt_svid.verify(token(), "db", bundles(KEY), NOW) == decoded["payload"]


def test_keys_are_named_by_their_thumbprint() -> None:
    """RFC 7638 section 3.1's own way, by another implementation: PyJWT's reading of our members."""
    members = {name: KEY.public[name] for name in ("crv", "kty", "x", "y")}
    assert jwt.PyJWK(members, "ES256").key.public_numbers() == KEY.private.public_key().public_numbers()
    assert len(base64.urlsafe_b64decode(KEY.id + "=")) == 32


def hs256(secret: bytes) -> str:
    """A token "signed" with what everybody knows, our public key."""
    parts = ({"alg": "HS256", "kid": KEY.id}, {"sub": WEB, "aud": "db", "exp": 9e9})
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    signature = hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ("", "compact form"),
        ("a.b", "compact form"),
        ("..", "compact form"),
        ("a.b.c", "base64url of JSON"),
        ("x" * 20_000, "at most 16384"),
        (token().rsplit(".", 1)[0] + ".AAAA", "signature"),
        (forged({"typ": "foo"}), "typ 'foo'"),
        (forged({"jwk": KEY.public}), "'jwk'"),
        (forged({"jku": "https://evil.example/keys"}), "'jku'"),
        (forged({"x5u": "https://evil.example/chain"}), "'x5u'"),
        (forged({"crit": ["exp"]}), "'crit'"),
        (forged({"kid": "another"}), "no key 'another'"),
        (forged({"kid": ""}), "no key"),
        (forged(sub=None), "isn't a SPIFFE ID"),
        (forged(sub="web"), "isn't a SPIFFE ID"),
        (forged(sub=["spiffe://mesh.local/web"]), "isn't a SPIFFE ID"),
        (forged(sub="spiffe://elsewhere/web"), "no bundle of trust domain elsewhere"),
        (forged(exp=None), "has no exp"),
        (forged(exp="soon"), "exp isn't a number"),
        (forged(exp=True), "exp isn't a number"),
        (forged(exp=float("inf")), "no number of JSON's"),
        (forged(exp=10**400), "exp isn't a number"),
        (forged(exp=NOW.timestamp() - 70), "has expired"),
        (forged(nbf=NOW.timestamp() + 90), "its nbf lies in the future"),
        (forged(iat=NOW.timestamp() + 600), "its iat lies in the future"),
        (forged(aud=None), "audience"),
        (forged(aud=[]), "audience"),
        (forged(aud=["other"]), "audience"),
        (forged(aud={"db": 1}), "audience"),
        (jwt.encode({"sub": WEB, "aud": "db", "exp": 9e9}, None, "none"), "compact form"),
        (jwt.encode({"sub": WEB, "aud": "db", "exp": 9e9}, None, "none") + "AAAA", "algorithm 'none'"),
        (hs256(json.dumps(KEY.public).encode()), "algorithm 'HS256'"),
    ],
)
def test_what_is_refused(shown: str, reason: str) -> None:
    with pytest.raises(TokenInvalid, match=reason):
        jwt_svid.verify(shown, "db", bundles(KEY), NOW)


def test_a_name_that_occurs_twice_is_refused() -> None:
    """RFC 8725 section 2.5: two readers may take different ones."""
    claims = json.dumps({"sub": WEB, "aud": ["db"], "exp": NOW.timestamp() + 60})
    twice = claims[:-1] + ', "aud": ["other"]}'
    shown = jwt.PyJWS().encode(twice.encode(), KEY.private, "ES256", {"kid": KEY.id})
    with pytest.raises(TokenInvalid, match="occurs twice"):
        jwt_svid.verify(shown, "db", bundles(KEY), NOW)


@pytest.mark.parametrize(
    "claims", [{"exp": NOW.timestamp() - 30}, {"nbf": NOW.timestamp() + 30}, {"aud": "db"}, {"iat": None}]
)
def test_clocks_may_differ_by_a_minute_and_one_audience_needs_no_list(claims: dict[str, Any]) -> None:
    assert jwt_svid.verify(forged(**claims), "db", bundles(KEY), NOW)["sub"] == WEB


def test_another_keys_signature_under_a_known_name_is_refused() -> None:
    thief = JwtKey(ec.generate_private_key(ec.SECP256R1()), NOW, NOW, NOW + DAY, NOW + DAY)
    with pytest.raises(TokenInvalid, match="signature"):
        jwt_svid.verify(forged({"kid": KEY.id}, thief), "db", bundles(KEY), NOW)


@given(st.binary(max_size=200).flatmap(lambda raw: st.sampled_from([raw.decode("latin-1"), f"{raw.hex()}.e30.e30"])))
def test_nothing_that_is_shown_raises_anything_else(shown: str) -> None:
    with pytest.raises(TokenInvalid):
        jwt_svid.verify(shown, "db", bundles(KEY), NOW)


@given(st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=1)), min_size=1, max_size=4))
def test_no_change_of_a_token_is_accepted(changes: list[tuple[int, bytes]]) -> None:
    original = token()
    changed = bytearray(original.encode())
    for place, byte in changes:
        changed[place % len(changed)] = byte[0] & 0x7F
    if changed.decode() != original:
        with pytest.raises(TokenInvalid):
            verified = jwt_svid.verify(changed.decode(), "db", bundles(KEY), NOW)
            # The last character of a base64url text has bits that mean nothing.
            assert changed[:-1] == original.encode()[:-1], verified
            raise TokenInvalid("is the same token, spelt otherwise")


@pytest.mark.parametrize("asked", [[], [""], ["a", ""], ["a"] * 33, ["x" * 600]])
def test_audiences_that_are_refused(asked: list[str]) -> None:
    with pytest.raises(errors.ConfigError) as refused:
        jwt_svid.check_audience(asked)
    assert refused.value.field == "audience"


# --- keys


def test_a_successor_is_published_long_before_it_signs() -> None:
    keys, now = KEYS, NOW
    signers, step = [KEY.id], DAY / 16
    for _ in range(100):
        now += step
        keys = keys.kept_up(now)
        signer = keys.signing(now)
        assert signer is not None
        if signer.id != signers[-1]:
            signers.append(signer.id)
            assert now - signer.published >= DAY / 4
        # Whatever any key may have signed can still be verified.
        assert {key.id for key in keys.keys} >= {signer.id}
        assert all(key.forgotten - key.ends >= TOKEN for key in keys.keys)
        assert len(keys.keys) <= 3
    assert len(signers) > 5
    assert len(set(signers)) == len(signers)


@pytest.mark.parametrize("jump", [-DAY, -DAY * 30, DAY * 30])
def test_a_clock_that_jumps_leaves_a_key_that_signs(jump: timedelta) -> None:
    moved = KEYS.kept_up(NOW + jump)
    signer = moved.signing(NOW + jump)
    assert signer is not None
    assert signer in moved.keys


def test_due_comes_when_something_changes() -> None:
    later = NOW + KEYS.due(NOW)
    assert KEYS.kept_up(later - timedelta(seconds=1)) is KEYS
    assert KEYS.kept_up(later) is not KEYS


# --- custody


def custody(store: MemoryStore, clock: ManualClock, seal: SealKey = SEAL, domain: str = "mesh.local") -> JwtCustody:
    return JwtCustody(store, seal, domain, (DAY, TOKEN), clock)


class Meeting(MemoryStore):
    """A store in which two readers see the same state before either of them writes."""

    def __init__(self) -> None:
        super().__init__()
        self._barrier = asyncio.Barrier(2)

    async def get(self, key: str, *, timeout: float = 5.0) -> Entry | None:
        found = await super().get(key)
        if found is None:
            await self._barrier.wait()
        return found


async def test_replicas_that_start_together_have_the_same_key() -> None:
    store, clock = Meeting(), ManualClock()
    replicas = [custody(store, clock) for _ in range(2)]
    await asyncio.gather(*(replica.opened() for replica in replicas))
    assert replicas[0].bundle == replicas[1].bundle
    assert len(json.loads(replicas[0].bundle)["keys"]) == 1


async def test_keys_rest_sealed_and_are_opened_again() -> None:
    store, clock = MemoryStore(), ManualClock()
    first = custody(store, clock)
    await first.opened()
    entry = await store.get(jwt_custody.KEY)
    assert entry is not None
    secret = first.signing(clock.now()).private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert base64.b64encode(secret) not in entry.value
    again = custody(store, clock)
    await again.opened()
    assert again.bundle == first.bundle
    for other in (custody(store, clock, SealKey(b"x" * 32)), custody(store, clock, domain="other.local")):
        with pytest.raises(NoAuthority):
            await other.opened()


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"version": 2, "trustDomain": "mesh.local", "keys": []}'])
async def test_a_damaged_record_is_an_error_and_no_reason_for_new_keys(damage: bytes) -> None:
    store, clock = MemoryStore(), ManualClock()
    await store.put(jwt_custody.KEY, damage)
    with pytest.raises(NoAuthority):
        await custody(store, clock).opened()


async def test_every_replica_learns_of_a_successor_in_time() -> None:
    store, clock = MemoryStore(), ManualClock()
    replicas = [custody(store, clock) for _ in range(2)]
    told: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        running = []
        for number, replica in enumerate(replicas):
            await replica.opened()
            replica.watch(lambda number=number: told.append(number))
            running.append(tasks.create_task(replica.run(Health(jwt_custody.PART))))
        first = replicas[0].signing(clock.now()).id
        for _ in range(24):
            await clock.advance(3600)
            for _ in range(50):
                await asyncio.sleep(0)
            assert replicas[0].bundle == replicas[1].bundle
        for task in running:
            task.cancel()
    assert set(told) == {0, 1}
    signers = {replica.signing(clock.now()).id for replica in replicas}
    assert len(signers) == 1
    assert first not in signers


class Away(MemoryStore):
    """A store that takes nothing any more."""

    async def put(self, *args: Any, **options: Any) -> int:
        raise errors.Unavailable("etcd is away")


async def test_with_the_store_away_known_keys_sign_until_they_end() -> None:
    clock, store = ManualClock(), MemoryStore()
    replica = custody(store, clock)
    await replica.opened()
    store.__class__ = Away
    task = asyncio.create_task(replica.run(Health(jwt_custody.PART)))
    await clock.advance(DAY.total_seconds() * 0.9)
    assert replica.signing(clock.now())
    await clock.advance(DAY.total_seconds() * 0.2)
    with pytest.raises(NoAuthority):
        replica.signing(clock.now())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
