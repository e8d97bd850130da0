"""The engine without a network: loading, checking, counting."""

from __future__ import annotations

import pytest

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.dataplane.policy import Engine


def check(engine: Engine, **attributes: str) -> mixer_pb2.CheckResponse:
    """Ask with string attributes; `__` in a name stands for a dot."""
    request = mixer_pb2.CheckRequest(global_word_count=222)
    for position, (name, value) in enumerate(attributes.items()):
        request.attributes.words.extend([name.replace("__", "."), value])
        request.attributes.strings[-2 * position - 1] = -2 * position - 2
    return mixer_pb2.CheckResponse.FromString(engine.check(request.SerializeToString()))


def test_an_engine_without_a_policy_lets_everything_pass() -> None:
    """The empty policy answers OK."""
    assert check(Engine(), request__path="/admin/").precondition.status.code == 0


def test_a_loaded_policy_decides_at_once(policy) -> None:
    """Loading swaps the policy as a whole."""
    engine = Engine()
    engine.load(policy.bytes())
    denied = check(engine, request__url_path="/admin/x", source__principal="spiffe://mesh.local/ns/demo/sa/shop")
    assert denied.precondition.status.code == 7
    assert denied.precondition.status.message == "deny.mesh:admins only"
    assert (engine.revision, engine.stats()["rules"]) == ("1", 5)


def test_a_wrong_policy_is_refused_and_the_old_one_stays(engine, policy) -> None:
    """The reason names the place."""
    policy.message.rules[0].match = 999
    with pytest.raises(ValueError, match=r"rules\[0\] \(rule0\.mesh\)\.match: there is no node 999"):
        engine.load(policy.bytes())
    with pytest.raises(ValueError, match="compiled policy refused"):
        engine.load(b"\xff")
    assert engine.revision == "1"


def test_a_request_that_is_wrong_is_a_value_error(engine) -> None:
    """Bytes that aren't protobuf, and a dictionary longer than ours."""
    with pytest.raises(ValueError, match="malformed protobuf"):
        engine.check(b"\xff\xff")
    with pytest.raises(ValueError, match="mixer knows 222 words, caller knows 300"):
        engine.check(mixer_pb2.CheckRequest(global_word_count=300).SerializeToString())


def test_taking_waits_no_longer_than_told(engine) -> None:
    """And a way of records begins once."""
    assert engine.take_records(0.01) is None
    with pytest.raises(ValueError, match="started before"):
        engine.carry_records(None)
