"""Envoy's rate limit service over the wire: quotas by the rules that match each descriptor."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import pytest

from meshwright.api.envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from meshwright.api.mixer.v1 import introspection_pb2
from meshwright.api.policy.v1 import policy_pb2 as pb

OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
UNIT = rls_pb2.RateLimitResponse.RateLimit
MINUTE = 60_000_000_000


@pytest.fixture
def policy(policy):
    """Domain edge: 5 a minute for each user, 100 an hour for each path; nothing else is limited."""
    edge = policy.equals("ratelimit.domain", "edge")
    policy.limit("peruser", edge, 5, MINUTE, user=policy.entry("ratelimit.descriptor", "user"))
    path = policy.entry("ratelimit.descriptor", "path")
    policy.limit("perpath", edge, 100, 60 * MINUTE, fixed=True, path=path)
    return policy


Stub = rls_pb2_grpc.RateLimitServiceStub


def request(*descriptors: Mapping[str, str], hits: int = 0, domain: str = "edge") -> rls_pb2.RateLimitRequest:
    """What Envoy sends for one request."""
    message = rls_pb2.RateLimitRequest(domain=domain, hits_addend=hits)
    for entries in descriptors:
        descriptor = message.descriptors.add()
        for key, value in entries.items():
            descriptor.entries.add(key=key, value=value)
    return message


async def test_each_descriptor_is_held_to_its_own_quota(engine, channel) -> None:
    """Five pass for a user and the sixth doesn't, and what is left is told."""
    stub = Stub(channel)
    ann = request({"user": "ann"}, {"path": "/a"}, {"country": "fr"})
    answers = [await stub.ShouldRateLimit(ann, timeout=5) for _ in range(6)]
    assert [answer.overall_code for answer in answers] == [OK] * 5 + [OVER]
    user, path, free = answers[-1].statuses
    assert (user.code, path.code, free.code) == (OVER, OK, OK)
    assert [answer.statuses[0].limit_remaining for answer in answers] == [4, 3, 2, 1, 0, 0]
    assert (user.current_limit.requests_per_unit, user.current_limit.unit) == (5, UNIT.MINUTE)
    assert user.current_limit.name == "peruser.mesh"
    assert 0 < user.duration_until_reset.seconds <= 66  # a rolling window forgets a tenth of its length late
    assert (path.current_limit.unit, path.limit_remaining) == (UNIT.HOUR, 94)
    assert not free.HasField("current_limit")
    assert list(answers[-1].dynamic_metadata["over_limit"]) == ["peruser.mesh"]
    assert not answers[-1].response_headers_to_add
    other = await stub.ShouldRateLimit(request({"user": "bob"}), timeout=5)
    elsewhere = await stub.ShouldRateLimit(request({"user": "ann"}, domain="other"), timeout=5)
    assert (other.overall_code, elsewhere.overall_code) == (OK, OK)
    assert engine.stats()["rate_limit_checks"] == 8


async def test_hits_are_the_descriptors_else_the_requests(channel) -> None:
    """What is more than is left takes the rest; nought only asks; negative ones give back."""
    stub = Stub(channel)

    async def status(hits: int = 0, own: int | None = None, *, negative: bool = False) -> tuple[int, int]:
        message = request({"user": "ann"}, hits=hits)
        if own is not None:
            message.descriptors[0].hits_addend.value = own
        if negative:  # is_negative_hits, which the stubs' Envoy doesn't have yet
            message.descriptors[0].MergeFromString(b"\x20\x01")
        [answer] = (await stub.ShouldRateLimit(message, timeout=5)).statuses
        return answer.code, answer.limit_remaining

    assert await status(3) == (OK, 2)
    assert await status(3) == (OVER, 0)
    assert await status(3, negative=True) == (OK, 3)
    assert await status() == (OK, 2)
    assert await status(1, own=2) == (OK, 0)
    assert await status(own=0) == (OVER, 0)


async def test_a_descriptor_may_bring_its_own_limit(channel) -> None:
    """In its own unit and cell; the rule's limit stays what it was."""
    stub = Stub(channel)
    message = request({"user": "ann"})
    message.descriptors[0].limit.requests_per_unit = 2
    message.descriptors[0].limit.unit = 4  # day
    answers = [(await stub.ShouldRateLimit(message, timeout=5)).statuses[0] for _ in range(3)]
    assert [answer.code for answer in answers] == [OK, OK, OVER]
    assert (answers[0].current_limit.requests_per_unit, answers[0].current_limit.unit) == (2, UNIT.DAY)
    assert (await stub.ShouldRateLimit(request({"user": "ann"}), timeout=5)).statuses[0].limit_remaining == 4


async def test_headers_are_sent_when_they_are_asked_for(engine, channel) -> None:
    """Those of the quota that is nearest to its end, with the policies of all."""
    engine.set_rate_limit_headers(True)
    answer = await Stub(channel).ShouldRateLimit(request({"user": "ann"}, {"path": "/"}), timeout=5)
    headers = {header.key: header.value for header in answer.response_headers_to_add}
    assert headers["RateLimit-Limit"] == "5, 5;w=60, 100;w=3600"
    assert headers["RateLimit-Remaining"] == "4"
    assert 60 <= int(headers["RateLimit-Reset"]) <= 66


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (request({"user": "ann"}, domain=""), "domain"),
        (request(), "descriptors"),
        (request(*({"n": str(n)} for n in range(65))), "descriptors"),
        (request({}), "descriptors[0].entries"),
        (request({str(n): "" for n in range(65)}), "descriptors[0].entries"),
        (request({"user": "x" * 5000}), "longer than"),
    ],
)
async def test_requests_are_bounded(channel, message, reason) -> None:
    """Whatever is too much is refused by name."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await Stub(channel).ShouldRateLimit(message, timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in str(refused.value.details())


async def test_entries_named_as_attributes_are_those(engine, policy, channel) -> None:
    """So a rule for checks holds for descriptors too."""
    namespace = policy.equals("source.namespace", "demo")
    size = policy.node(pb.GREATER, policy.read("request.size", pb.INT64), policy.integer(100))
    app = policy.node(pb.EQUAL, policy.entry("source.labels", "app"), policy.text("shop"))
    matches = policy.node(pb.AND, policy.node(pb.AND, namespace, size), app)
    policy.limit("none", matches, 0, MINUTE)
    engine.load(policy.bytes())
    stub = Stub(channel)
    given = {"source.namespace": "demo", "request.size": "101", "source.labels.app": "shop"}
    assert (await stub.ShouldRateLimit(request(given), timeout=5)).overall_code == OVER
    assert (await stub.ShouldRateLimit(request({**given, "request.size": "99"}), timeout=5)).overall_code == OK
    # Not a number: as if it weren't there.
    assert (await stub.ShouldRateLimit(request({**given, "request.size": "big"}), timeout=5)).overall_code == OK


async def test_what_was_decided_is_logged(engine, policy, channel) -> None:
    """One line a request: what was exhausted, by which attributes, and what dry runs would have refused."""
    policy.limit("tried", policy.equals("ratelimit.domain", "edge"), 0, MINUTE)
    policy.message.rules[-1].dry_run = True
    engine.load(policy.bytes())
    stub = Stub(channel)
    answers = [await stub.ShouldRateLimit(message, timeout=5) for message in (
        request({"user": "ann"}, {"path": "/a"}),
        request({"user": "ann"}, hits=9),
        request({"user": "ann"}, domain="elsewhere"),
    )]  # fmt: skip
    batch = introspection_pb2.DecisionBatch.FromString(engine.decisions(0))
    kinds = introspection_pb2.Decision
    assert [decision.api for decision in batch.decisions] == [kinds.RATE_LIMIT] * 3
    assert [decision.id for decision in batch.decisions] == [
        answer.dynamic_metadata["decision_id"] for answer in answers
    ]
    assert [(decision.code, decision.message, decision.quota) for decision in batch.decisions] == [
        (0, "", kinds.GRANTED),
        (8, "quota exhausted: peruser.mesh", kinds.REFUSED),
        (0, "", kinds.NONE),
    ]
    read = {(read.attribute, read.key) for read in batch.decisions[0].reads}
    assert {("ratelimit.domain", ""), ("ratelimit.descriptor", "user"), ("ratelimit.descriptor", "path")} <= read
    rule = f"{policy.message.rules[-1].name}.mesh"
    tried = [[(run.rule, run.code, run.message) for run in decision.dry_runs] for decision in batch.decisions]
    refused = (rule, 8, "quota exhausted")
    assert tried == [[refused, refused], [refused], []]
    assert dict(engine.trials()) == {rule: 3}
