"""Which custom resources come into force, by what is there and nothing else; and one replica that says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Collection
from typing import Any

import pytest
from envoys import eventually
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core import errors
from meshwright.core.clock import ManualClock
from meshwright.core.config import Key
from meshwright.core.store import MemoryStore
from meshwright.manager.configapi.catalogue import State
from meshwright.manager.configapi.plan import Plan
from meshwright.manager.election import KEY, Election
from meshwright.manager.model import kinds
from meshwright.manager.model.fault import Fault, Findings
from meshwright.manager.sources.kubernetes import admission as admissions
from meshwright.manager.sources.kubernetes import candidate, status
from meshwright.manager.sources.kubernetes.admission import ACCEPTED, Admission, Admissions, Verdict
from meshwright.manager.sources.kubernetes.candidate import Candidate
from meshwright.manager.sources.kubernetes.mirror import difference

HANDLER = next(kind for kind in kinds.KINDS if kind.name == "handler")
Candidates = dict[Key, Candidate]


def read(kind: kinds.Kind, name: str, spec: Any, created: int = 0, **metadata: Any) -> Candidate:
    raw = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": f"2026-11-21T16:00:{created:02}Z",
            "managedFields": [{}],
            **metadata,
        },
        "spec": spec,
    }
    return candidate.read(raw, kind)


def split(name: str, root: str, created: int = 0, backend: str = "v1") -> Candidate:
    spec = {"service": root, "backends": [{"service": backend, "weight": 1}]}
    return read(kinds.TRAFFIC_SPLIT, name, spec, created)


def all_of(*found: Candidate) -> Candidates:
    return {each.key: each for each in found}


class Owner:
    """Refuses objects by name, one a round; or can't be asked at all."""

    def __init__(self, refused: Collection[str] = (), *, away: bool = False) -> None:
        self.refused, self.away, self.asked = refused, away, 0

    async def __call__(self, plan: Plan) -> Findings:
        self.asked += 1
        if self.away:
            raise errors.Unavailable("mixer can't be asked")
        bad = sorted(key for key in plan.put if key.name in self.refused)[:1]
        return Findings(violations=[Fault(key, "spec.params", "isn't taken") for key in bad])


async def admit(found: Candidates, owner: Owner | None = None) -> Admission:
    return await Admissions(owner or Owner()).admit(found)


def named(admission: Admission) -> dict[str, tuple[bool | None, str]]:
    return {key.name: (verdict.accepted, verdict.reason) for key, verdict in admission.verdicts.items()}


async def test_an_object_is_what_its_author_wrote_and_where_it_was_taken_from() -> None:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "shop"}
    found = read(kinds.TRAFFIC_SPLIT, "s", {"service": "a", "backends": []}, annotations=annotations)
    assert json.loads(found.text) == {
        "apiVersion": "split.smi-spec.io/v1alpha4",
        "kind": "TrafficSplit",
        "metadata": {
            "name": "s",
            "namespace": "shop",
            "annotations": {"meshwright.io/source": "kubernetes", "team": "shop"},
        },
        "spec": {"service": "a", "backends": []},
    }


async def test_each_object_is_judged_by_itself() -> None:
    owner = Owner({"bad-1", "bad-2"})
    handlers = [read(HANDLER, name, {"compiledAdapter": "denier"}) for name in ("bad-1", "bad-2", "good")]
    admission = await admit(all_of(*handlers, split("ok", "a"), split("itself", "a", backend="a")), owner)
    assert named(admission) == {
        "bad-1": (False, "Invalid"),
        "bad-2": (False, "Invalid"),
        "good": (True, "Accepted"),
        "ok": (True, "Accepted"),
        "itself": (False, "Invalid"),
    }
    assert {key.name for key in admission.objects} == {"good", "ok"}
    assert admission.verdicts[handlers[0].key].message == "spec.params: isn't taken"


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"a": "x" * (1 << 20)}, "at most 1.0 MiB"),
        ({"a": [0] * 200_000}, "more than"),
        (json.loads('{"a":' * 99 + "1" + "}" * 99), "nested deeper"),
    ],
)
async def test_an_object_that_no_reader_of_the_store_would_take_never_gets_there(params: Any, reason: str) -> None:
    """Else it would be missing there for ever, and be committed anew each time."""
    found = read(HANDLER, "large", {"compiledAdapter": "denier", "params": params})
    admission = await admit(all_of(found, split("ok", "a")))
    assert {key.name for key in admission.objects} == {"ok"}
    assert admission.verdicts[found.key].reason == "Invalid"
    assert reason in admission.verdicts[found.key].message


async def test_only_so_many_objects_are_taken_and_the_older_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admissions, "MAX_OBJECTS", 2)
    admission = await admit(all_of(split("c", "c", 2), split("a", "a", 3), split("b", "b", 1)))
    assert {key.name for key in admission.objects} == {"b", "c"}
    assert named(admission)["a"] == (False, "Invalid")


async def test_while_an_owner_is_away_nothing_of_its_kinds_changes() -> None:
    deny = read(HANDLER, "deny", {"compiledAdapter": "denier"})
    before = await admit(all_of(deny, read(HANDLER, "gone", {}), split("old", "a")))
    state = State(objects=before.objects)
    admission = await admit(all_of(deny, read(HANDLER, "new", {}), split("new", "b")), Owner(away=True))
    put, delete = difference(admission, state)
    assert [key.name for key in put] == ["new"]
    assert {(key.kind, key.name) for key in delete} == {("TrafficSplit", "old")}
    assert named(admission)["deny"] == (None, "Pending")
    put, delete = difference(await admit(all_of(deny, read(HANDLER, "new", {}), split("new", "b"))), state)
    assert {(key.kind, key.name) for key in put} == {("handler", "new"), ("TrafficSplit", "new")}
    assert {(key.kind, key.name) for key in delete} == {("handler", "gone"), ("TrafficSplit", "old")}


async def test_what_others_put_into_the_store_stays() -> None:
    own = await admit(all_of(split("ours", "a")))
    [parsed] = own.objects.values()
    assert parsed.mirrored
    _, delete = difference(Admission(), State(objects=own.objects))
    assert delete == own.objects.keys()
    text = parsed.text.replace('"meshwright.io/source":"kubernetes"', '"team":"shop"')
    theirs = await Admissions(Owner()).admit(all_of(Candidate(parsed.key, "", 1, "", text)))
    _, delete = difference(Admission(), State(objects=theirs.objects))
    assert not delete


async def test_splits_of_one_service_go_beside_each_other_while_their_matches_differ() -> None:
    def matched(name: str, created: int, *groups: str) -> Candidate:
        matches = [{"kind": "HTTPRouteGroup", "name": group} for group in groups]
        spec = {"service": "root", "backends": [{"service": "v1", "weight": 1}], "matches": matches}
        return read(kinds.TRAFFIC_SPLIT, name, spec, created)

    found = (matched("a", 2, "x", "y"), matched("b", 1, "y", "x"), matched("c", 3, "x"), split("all", "root", 4))
    assert named(await admit(all_of(*found))) == {
        "a": (False, "Conflicted"),
        "b": (True, "Accepted"),
        "c": (True, "Accepted"),
        "all": (True, "Accepted"),
    }


splits = st.builds(split, st.sampled_from("abcdef"), st.sampled_from(["one", "two", "v1"]), st.integers(0, 2))


@given(st.lists(splits, max_size=6, unique_by=lambda each: each.key.name), st.randoms())
def test_admission_depends_on_what_is_there_and_not_on_its_order(found: list[Candidate], random: Any) -> None:
    shuffled = found[:]
    random.shuffle(shuffled)

    async def both() -> None:
        one = await admit(all_of(*found))
        kept = Admissions(Owner())
        await kept.admit(all_of(*shuffled[:3]))  # what it knew before makes no difference either
        other = await kept.admit(all_of(*shuffled))
        assert named(one) == named(other)
        assert one.objects == other.objects
        roots = [parsed.document.model_dump()["spec"]["service"] for parsed in one.objects.values()]
        assert len(roots) == len(set(roots)), "one split a service"

    asyncio.run(both())


def test_a_conditions_time_is_that_of_its_last_change() -> None:
    found = split("s", "a")
    wanted = status.conditions(found, status.Standing(ACCEPTED), "2026-11-21T17:00:00Z")
    told = Candidate(found.key, found.uid, 2, found.created, found.text, {each["type"]: each for each in wanted})
    later = "2026-11-21T18:00:00Z"
    assert not status.differ(told, status.conditions(told, status.Standing(ACCEPTED), later))
    refused = status.conditions(told, status.Standing(Verdict(False, "Invalid", "no")), later)
    assert [(each["type"], each["status"], each["lastTransitionTime"]) for each in refused] == [
        ("Accepted", "False", later)
    ]
    foreign = {"type": "Synced", "status": "True"}
    with_foreign = Candidate(found.key, "", 2, "", found.text, {**told.conditions, "Synced": foreign})
    assert foreign in status.conditions(with_foreign, status.Standing(ACCEPTED), later)


async def test_one_replica_is_elected_and_another_when_it_goes() -> None:
    store, clock, leading = MemoryStore(), ManualClock(), list[str]()

    def elector(name: str) -> asyncio.Task[None]:
        async def work() -> None:
            leading.append(name)
            await asyncio.Event().wait()

        return asyncio.create_task(Election(store, name, clock).lead(work))

    first = elector("first")
    await eventually(lambda: leading == ["first"], "the first is elected")
    second = elector("second")
    for _ in range(5):
        await clock.advance(2)
    assert leading == ["first"]
    entry = await store.get(KEY)
    assert entry is not None
    assert entry.value == b"first"
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first

    async def taken() -> bool:
        await clock.advance(2)
        return leading == ["first", "second"]

    await eventually(taken, "the second is elected")
    second.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await second


async def test_work_that_fails_is_given_to_the_next_election() -> None:
    store, clock, begun = MemoryStore(), ManualClock(), list[int]()

    async def work() -> None:
        begun.append(1)
        raise errors.Unavailable("the store is away")

    task = asyncio.create_task(Election(store, "one", clock).lead(work))

    async def again() -> bool:
        await clock.advance(2)
        return len(begun) >= 2

    await eventually(again, "it works again")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
