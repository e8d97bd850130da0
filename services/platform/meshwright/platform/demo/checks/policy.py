"""Check 3: rules and quotas decide in the sidecars' way, over all replicas, and a Check sent by hand says the same."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from meshwright.platform.demo import command_line
from meshwright.platform.demo.harness import Failure, Measurements
from meshwright.platform.demo.metrics import counters, reached
from meshwright.platform.demo.session import Caller, Session
from meshwright.platform.up.ports import mixer_name

QUOTA = 20  # requests a second
_BURST = 3 * QUOTA
_RULES_SECONDS = 15.0
_REVISION = "meshwright_mixer_policy_revision"
_REASON = "mallory may not administer the shop"


async def run(session: Session) -> Measurements:
    """Apply the rules, try them through the sidecars, and ask mixer directly."""
    began = time.monotonic()
    mallory = session.mallory.identity.current().spiffe_id
    revision = await session.apply("policy.yaml", quota=QUOTA, mallory=mallory)
    replicas = [session.platform.layout.health_socket(name) for name in _mixers(session)]
    await reached(replicas, _REVISION, revision, _RULES_SECONDS)
    measured: dict[str, object] = {"in_force_after_seconds": round(time.monotonic() - began, 2)}
    measured |= await _denial(session)
    checks = await _decisions_by_replica(session)
    measured |= await _quota(session)
    after = await _decisions_by_replica(session)
    asked = {name: round(after[name] - checks[name]) for name in after}
    measured["decisions_by_replica_during_quota"] = asked
    if min(asked.values()) == 0:
        raise Failure("one mixer replica decided nothing: the quota wasn't held across two", measured)
    measured |= await _by_hand(session)
    return measured


async def _denial(session: Session) -> Mapping[str, object]:
    denied = await session.get("/admin", session.mallory)
    reason = denied.body.decode(errors="replace")
    allowed = await session.get("/admin")
    elsewhere = await session.get("/", session.mallory)
    measured = {
        "mallory_on_admin": f"{denied.status} {reason.strip()}",
        "customer_on_admin": allowed.status,
        "mallory_elsewhere": elsewhere.status,
    }
    if denied.status != 403 or _REASON not in reason:
        raise Failure(f"mallory's call of /admin wasn't refused with 403 and the reason {_REASON!r}", measured)
    if (allowed.status, elsewhere.status) != (200, 200):
        raise Failure("the rule hits more than mallory's calls of /admin", measured)
    return measured


async def _quota(session: Session) -> Mapping[str, object]:
    """Send three times the quota at once, from a second without requests: exactly the quota may pass."""
    granted: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    await asyncio.sleep(1.1)  # whatever was granted before has left the window

    async def one() -> None:
        answer = await session.get("/limited")
        statuses[answer.status] += 1
        if answer.status == 200:
            granted[session.version(answer)] += 1

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(_BURST)))
    seconds = time.monotonic() - began
    # A window that begins during the burst grants its own quota: with one second's window that is 1 + whole seconds.
    most = QUOTA * (1 + int(seconds))
    measured = {
        "quota_a_second": QUOTA,
        "sent_at_once": _BURST,
        "within_seconds": round(seconds, 2),
        "granted": statuses[200],
        "granted_by_sidecar": dict(sorted(granted.items())),
        "refused_with_429": statuses[429],
    }
    if not QUOTA <= statuses[200] <= most or statuses[200] + statuses[429] != _BURST:
        raise Failure(f"{statuses[200]} requests passed a quota of {QUOTA} (answers: {dict(statuses)})", measured)
    if len(granted) < 2:
        raise Failure("only one of catalog's sidecars let requests pass: the quota wasn't held across two", measured)
    return measured


def _mixers(session: Session) -> list[str]:
    return [mixer_name(index) for index in range(session.platform.settings.mixers)]


async def _decisions_by_replica(session: Session) -> Mapping[str, float]:
    found = {}
    for name in _mixers(session):
        read = await counters(session.platform.layout.health_socket(name))
        found[name] = sum(value for metric, value in read.items() if metric.startswith("meshwright_mixer_checks"))
    return found


async def _by_hand(session: Session) -> Mapping[str, object]:
    """Ask with `meshwright mixer check`: the same attributes must get the same decision."""
    answers = await asyncio.gather(_ask(session, session.mallory), _ask(session, session.customer))
    denied, allowed = answers
    measured = {
        "mixer_check_of_mallory": f"code {denied['code']}, {denied['message']}",
        "mixer_check_of_customer": f"code {allowed['code']}",
    }
    if denied["code"] != 7 or _REASON not in denied["message"] or allowed["code"] != 0:
        raise Failure("an istio.mixer.v1 Check is decided otherwise than the sidecars' question", measured)
    return measured


async def _ask(session: Session, caller: Caller) -> Any:
    attributes = {
        "destination.service.name": "shop",
        "destination.service.namespace": "demo",
        "destination.namespace": "demo",
        "context.reporter.kind": "inbound",
        "request.url_path": "/admin",
        "source.principal": caller.identity.current().spiffe_id,
    }
    given = [word for name, value in attributes.items() for word in ("-s", f"{name}={value}")]
    # Status 1 is the answer "no".
    return await command_line.run_json(session.platform, "mixer", "check", *given, "-o", "json", allowed=(0, 1))
