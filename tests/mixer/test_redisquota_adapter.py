"""Adapter redisquota on a real Redis server, on a Unix socket of the test's own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from meshwright.mixer.adapter.v1 import Charge, Quota
from meshwright.mixer.adapters.redisquota import ADAPTER
from meshwright.mixer.plugintest import running, serving


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without persistence; its URL."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server isn't installed (Debian package redis-server)")
    folder: Path = tmp_path_factory.mktemp("redis")
    socket = folder / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 20
    while not socket.exists():
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.01)
    yield f"unix://{socket}"
    process.terminate()
    process.wait(20)


def parameters(url: str, **quota: Any) -> dict[str, Any]:
    """Ten in a window that outlasts the test, rolling unless it says otherwise."""
    rolling = {"rateLimitAlgorithm": "ROLLING_WINDOW", "bucketDuration": "1s"}
    named = {"name": "requests", "maxAmount": 10, "validDuration": "60s", **rolling}
    return {"redisServerUrl": url, "quotas": [{**named, **quota}]}


def instance(**dimensions: Any) -> Quota:
    return Quota(instance="requests.default", dimensions=dimensions)


def fresh() -> Quota:
    """A cell that no other test charges."""
    return instance(test=uuid.uuid4().hex)


async def granted(handler: Any, cell: Quota, amount: int, **more: Any) -> int:
    result: int = (await handler.quota(cell, Charge(amount=amount, **more))).granted
    return result


@pytest.mark.parametrize("algorithm", ["ROLLING_WINDOW", "FIXED_WINDOW"])
async def test_strict_best_effort_and_release(redis: str, algorithm: str) -> None:
    async with running(
        ADAPTER, parameters(redis, rateLimitAlgorithm=algorithm, validDuration="3000s", bucketDuration="60s")
    ) as handler:
        cell = fresh()
        assert await granted(handler, cell, 7) == 7
        assert await granted(handler, cell, 4) == 0
        assert await granted(handler, cell, 4, best_effort=True) == 3
        assert await granted(handler, cell, 4, best_effort=True) == 0
        assert await granted(handler, cell, -6) == 6
        assert await granted(handler, cell, 5) == 5
        assert await granted(handler, cell, -99) == 9
        assert await granted(handler, cell, 10) == 10


async def test_many_at_once_get_the_limit(redis: str) -> None:
    """Two mixers' handlers charge one cell."""
    async with running(ADAPTER, parameters(redis)) as one, running(ADAPTER, parameters(redis)) as two:
        cell = fresh()
        grants = await asyncio.gather(*(granted((one, two)[number % 2], cell, 1) for number in range(60)))
    assert sum(grants) == 10


async def test_a_repeated_id_gets_the_first_grant_again(redis: str) -> None:
    async with running(ADAPTER, parameters(redis)) as handler:
        cell = fresh()
        assert [await granted(handler, cell, amount, deduplication_id="a") for amount in (4, 9)] == [4, 4]
        assert await granted(handler, fresh(), 9, deduplication_id="a") == 9
        assert await granted(handler, cell, 6, deduplication_id="b") == 6
        assert await granted(handler, cell, 1, deduplication_id="c") == 0


async def test_a_rolling_window_forgets_late_rather_than_early(redis: str) -> None:
    """No window sees more than the limit, by the times at which the answers could have been given."""
    window = 0.3
    quota = {"validDuration": "0.3s", "bucketDuration": "0.05s", "maxAmount": 5}
    grants: list[tuple[float, float, int]] = []
    async with running(ADAPTER, parameters(redis, **quota)) as handler:
        cell, begin = fresh(), time.monotonic()
        while time.monotonic() < begin + 5 * window:
            asked = time.monotonic()
            grant = await granted(handler, cell, 2, best_effort=True)
            grants.append((asked, time.monotonic(), grant))
            await asyncio.sleep(0.002)
    for start, _, grant in grants:
        if grant:
            # Surely within one window: asked after the first was asked, answered before the window's end.
            assert sum(each for asked, answered, each in grants if start <= asked and answered < start + window) <= 5
    assert sum(grant for _, _, grant in grants) >= 10


async def test_a_fixed_window_begins_anew(redis: str) -> None:
    quota = {"validDuration": "0.2s", "rateLimitAlgorithm": "FIXED_WINDOW", "maxAmount": 3}
    async with running(ADAPTER, parameters(redis, **quota)) as handler:
        cell = fresh()
        result = await handler.quota(cell, Charge(amount=3))
        assert result.granted == 3
        assert 0 < result.valid_duration.total_seconds() <= 0.2
        async with asyncio.timeout(10):
            while not await granted(handler, cell, 3):
                await asyncio.sleep(0.01)


async def test_instances_are_named_in_full_or_not(redis: str) -> None:
    """As the original named them, too."""
    for name in ("requests.default", "requests.quota.default", "requests"):
        async with running(ADAPTER, parameters(redis, name=name)) as handler:
            assert await granted(handler, fresh(), 10) == 10
    async with running(ADAPTER, parameters(redis, name="other")) as handler:
        with pytest.raises(LookupError, match="requests.default"):
            await granted(handler, fresh(), 1)


async def test_overrides_and_dimensions(redis: str) -> None:
    """Each combination of values is a cell; the first override that fits replaces the limit."""
    overrides = [
        {"dimensions": {"user": "ann"}, "maxAmount": 2},
        {"dimensions": {"user": "ann", "vip": "true"}, "maxAmount": 9},
    ]
    async with running(ADAPTER, parameters(redis, overrides=overrides)) as handler:
        run = uuid.uuid4().hex
        for dimensions, limit in (({"user": "ann"}, 2), ({"user": "bob"}, 10), ({"user": "ann", "vip": True}, 2)):
            assert await granted(handler, instance(run=run, **dimensions), 99, best_effort=True) == limit


async def test_rules_charge_it_and_a_lost_server_fails_open(redis: str) -> None:
    def documents(url: str, policy: str) -> list[dict[str, Any]]:
        def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
            metadata = {"name": name, "namespace": "meshwright-system"}
            return {"apiVersion": "config.istio.io/v1alpha2", "kind": kind, "metadata": metadata, "spec": spec}

        given = parameters(url)
        given["quotas"][0]["name"] = "requests"
        dimensions = {"run": 'request.id | "none"'}
        return [
            document("handler", "redis", {"compiledAdapter": "redisquota", "failurePolicy": policy, "params": given}),
            document("instance", "requests", {"compiledTemplate": "quota", "params": {"dimensions": dimensions}}),
            document("rule", "limit", {"actions": [{"handler": "redis", "instances": ["requests"]}]}),
        ]

    attributes = {"request.id": uuid.uuid4().hex}
    async with serving(ADAPTER, documents(redis, "open")) as mixer:
        grants = [(await mixer.check(attributes, {"requests": 3})).granted["requests"] for _ in range(4)]
        assert grants == [3, 3, 3, 0]
    for policy, expected in (("open", 3), ("closed", 0)):
        async with serving(ADAPTER, documents("unix:///nowhere/redis.sock", policy)) as mixer:
            assert (await mixer.check(attributes, {"requests": 3})).granted["requests"] == expected


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"validDuration": "0s"}, "1ms or more"),
        ({"bucketDuration": "60s"}, "shorter than validDuration"),
        ({"bucketDuration": "1ms"}, "more than 1000 buckets"),
        ({"maxAmount": -1}, "greater than or equal"),
        ({"rateLimitAlgorithm": "SOME"}, "FIXED_WINDOW"),
    ],
)
def test_wrong_parameters_are_told(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ADAPTER.parameters.model_validate(parameters("127.0.0.1:6379", **wrong))


def test_configuration_keeps_no_password() -> None:
    with pytest.raises(ValidationError, match="passwordFile"):
        ADAPTER.parameters.model_validate(parameters("redis://:secret@127.0.0.1:6379"))
