"""The agent's certificates: ready before anybody asks, renewed at half of their life, kept while citadel is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from meshwright.citadel.agent.rotation import Rotation
from meshwright.citadel.agent.workloads import Svid, Workloads
from meshwright.citadel.ca import authority, request
from meshwright.citadel.ca.profile import Profile
from meshwright.citadel.registrations.model import Registration, Selector
from meshwright.core import clock as clocks
from meshwright.core import errors

WEB = Registration("web", "spiffe://mesh.local/ns/shop/sa/web", (Selector("unix:uid", "1000"),))
CALLER = frozenset(WEB.selectors) | {Selector("unix:gid", "7")}


class JumpingClock(clocks.ManualClock):
    """A clock whose wall time can be set, as by an administrator or a resume from suspend."""

    def jump(self, by: timedelta) -> None:
        self._now += by


class Ca:
    """Signs as citadel does; can be away."""

    def __init__(self, clock: clocks.Clock) -> None:
        self.clock, self.away, self.signed = clock, False, 0
        self.root = authority.new_root("mesh.local", clock.now())
        self.ids: dict[str, str] = {WEB.id: WEB.spiffe_id}
        self.ttl = 60

    async def sign(self, registration_id: str, csr: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        if self.away:
            raise errors.Unavailable("citadel is away")
        self.signed += 1
        profile = Profile(self.ids[registration_id], ttl=timedelta(seconds=self.ttl))
        issued = self.root.issue(request.from_der(csr), profile, now=self.clock.now())
        return (issued.certificate_der,), (self.root.certificate_der,)


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


async def settle(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_a_registration_has_a_certificate_before_anybody_asks(clock: JumpingClock) -> None:
    ca, workloads = Ca(clock), Workloads("mesh.local", clock)
    async with Rotation(workloads, ca, clock):
        workloads.put(WEB)
        await settle(lambda: workloads.svids(CALLER))
    (svid,) = workloads.svids(CALLER)
    leaf = x509.load_der_x509_certificate(svid.chain[0])
    key = serialization.load_der_private_key(svid.key, None)
    assert leaf.public_key() == key.public_key()
    assert workloads.bundle == (ca.root.certificate_der,)
    assert workloads.svids(frozenset({Selector("unix:uid", "1001")})) == []


async def test_renewal_comes_at_half_life_with_a_new_key(clock: JumpingClock) -> None:
    ca, workloads = Ca(clock), Workloads("mesh.local", clock)
    async with Rotation(workloads, ca, clock):
        workloads.put(WEB)
        await settle(lambda: ca.signed == 1)
        await settle(lambda: workloads.svids(CALLER))
        (first,) = workloads.svids(CALLER)
        await clock.advance(26)  # the earliest, by jitter, is 27 seconds
        assert workloads.svids(CALLER) == [first]
        await clock.advance(8)
        await settle(lambda: workloads.svids(CALLER) != [first])
        (second,) = workloads.svids(CALLER)
        assert second.key != first.key
        assert clock.now() < first.not_after  # the old one is still valid while the new one spreads


async def test_renewals_of_what_was_issued_together_are_spread(clock: JumpingClock) -> None:
    ca, workloads = Ca(clock), Workloads("mesh.local", clock)
    moments: set[int] = set()
    workloads.watch(lambda _: moments.add(int(clock.monotonic())))
    async with Rotation(workloads, ca, clock):
        for number in range(40):
            ca.ids[f"w{number}"] = f"spiffe://mesh.local/ns/shop/sa/w{number}"
            workloads.put(Registration(f"w{number}", ca.ids[f"w{number}"], WEB.selectors))
        await settle(lambda: ca.signed == 40)
        moments.clear()
        for _ in range(36):
            await clock.advance(1)
        await settle(lambda: ca.signed == 80)
    assert len(moments) >= 4


async def test_citadel_away_the_last_certificate_serves_on_and_renewal_recovers(clock: JumpingClock) -> None:
    ca, workloads = Ca(clock), Workloads("mesh.local", clock)
    async with Rotation(workloads, ca, clock):
        workloads.put(WEB)
        await settle(lambda: workloads.svids(CALLER))
        ca.away = True
        await clock.advance(50)
        assert len(workloads.svids(CALLER)) == 1
        ca.away = False
        before = ca.signed
        await clock.advance(16)  # the longest back-off is 15 seconds
        await settle(lambda: ca.signed > before)
        assert workloads.svids(CALLER)[0].not_after > clock.now() + timedelta(seconds=30)


async def test_an_ended_certificate_isnt_handed_out(clock: JumpingClock) -> None:
    ca, workloads = Ca(clock), Workloads("mesh.local", clock)
    async with Rotation(workloads, ca, clock):
        workloads.put(WEB)
        await settle(lambda: workloads.svids(CALLER))
        ca.away = True
        await clock.advance(61)
        assert workloads.svids(CALLER) == []


@pytest.mark.parametrize("jump", [timedelta(days=7), timedelta(days=-7)])
async def test_a_clock_that_jumps_brings_a_new_certificate_within_seconds(clock: JumpingClock, jump: timedelta) -> None:
    """A machine suspended for a week, or a clock set back: looked at, not slept through."""
    ca, workloads = Ca(clock), Workloads("mesh.local", clock)
    if jump < timedelta(0):
        clock.jump(timedelta(days=30))  # the CA is older than the jump
    async with Rotation(workloads, ca, clock):
        workloads.put(WEB)
        await settle(lambda: workloads.svids(CALLER))
        clock.jump(jump)
        await clock.advance(6)
        await settle(lambda: ca.signed == 2)
        await settle(
            lambda: any(svid.not_after - clock.now() <= timedelta(seconds=61) for svid in workloads.svids(CALLER))
        )


async def test_a_removed_registration_takes_its_key_along(clock: JumpingClock) -> None:
    ca, workloads = Ca(clock), Workloads("mesh.local", clock)
    async with Rotation(workloads, ca, clock):
        workloads.put(WEB)
        await settle(lambda: workloads.svids(CALLER))
        workloads.remove(WEB.id)
        assert workloads.svids(CALLER) == []
        assert workloads.svid(WEB.id) is None
        await clock.advance(120)
        assert ca.signed == 1


async def test_a_changed_registration_is_certified_again(clock: JumpingClock) -> None:
    """SPIRE's users waited a whole lifetime for changed DNS names."""
    ca, workloads = Ca(clock), Workloads("mesh.local", clock)
    async with Rotation(workloads, ca, clock):
        workloads.put(WEB)
        await settle(lambda: workloads.svids(CALLER))
        workloads.put(Registration(WEB.id, WEB.spiffe_id, WEB.selectors, dns_names=("web.shop.svc",)))
        await settle(lambda: ca.signed == 2)


async def test_a_certificate_of_somebody_else_isnt_taken(clock: JumpingClock) -> None:
    """Citadel may be mistaken; the agent hands out what the registration says or nothing."""
    ca, workloads = Ca(clock), Workloads("mesh.local", clock)
    ca.ids[WEB.id] = "spiffe://mesh.local/ns/shop/sa/other"
    async with Rotation(workloads, ca, clock):
        workloads.put(WEB)
        await settle(lambda: ca.signed)
        await clock.advance(1)
        assert workloads.svids(CALLER) == []


def test_the_most_specific_registration_is_the_default(clock: JumpingClock) -> None:
    workloads = Workloads("mesh.local", clock)
    workloads.put(Registration("a", "spiffe://mesh.local/a", (Selector("unix:uid", "1000"),)))
    workloads.put(Registration("z", "spiffe://mesh.local/z", (Selector("unix:uid", "1000"), Selector("unix:gid", "7"))))
    ends = clock.now() + timedelta(minutes=1)
    for name in ("a", "z"):
        workloads.put_svid(Svid(name, f"spiffe://mesh.local/{name}", (b"",), b"", ends), ())
    assert [svid.spiffe_id for svid in workloads.svids(CALLER)] == ["spiffe://mesh.local/z", "spiffe://mesh.local/a"]
