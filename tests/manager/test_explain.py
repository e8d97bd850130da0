"""Why a request goes where it goes: which route takes it, and which condition kept the others from it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managers import client, objects, running
from meshes import SHOP, SPLIT, World
from test_cli import Shell

from meshwright.core import errors
from meshwright.manager.explain import regular
from meshwright.manager.explain.request import Request, failing
from meshwright.manager.explain.route import Explanation, explain
from meshwright.manager.model.routing import HttpMatch, Text, TextMatch
from pki import Pki

VIRTUAL = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: catalog}
spec:
  hosts: [catalog]
  http:
  - name: testers
    match: [{headers: {x-tester: {exact: "yes"}}, uri: {prefix: /api}}, {uri: {regex: "/try/[0-9]+"}}]
    route: [{destination: {host: catalog-v2}}]
  - name: others-callers
    match: [{sourceLabels: {app: depot}}]
    route: [{destination: {host: catalog-v2}}]
  - name: old
    match: [{uri: {exact: /old}}]
    redirect: {uri: /new}
  - name: rest
    match: [{uri: {prefix: /}}]
    route: [{destination: {host: catalog-v1}, weight: 75}, {destination: {host: catalog-v9}, weight: 25}]
"""


def told(text: str, path: str, host: str = "catalog", **arguments: str) -> Explanation:
    method, headers = arguments.pop("method", "GET"), arguments
    return explain(World(text).mesh, Request(host, path, method, headers), "default", "shop-0")


def test_without_routes_the_service_itself_answers() -> None:
    found = told(SHOP, "/")
    assert (found.host, found.port) == ("catalog.default.svc.cluster.local", 80)
    assert [(step.route, step.taken) for step in found.steps] == [("Service default/catalog", True)]
    assert [(share.host, share.port, share.percent, share.detail) for share in found.shares] == [
        ("catalog.default.svc.cluster.local", 80, 100.0, "2 endpoints")
    ]


def test_each_route_before_the_one_that_takes_it_says_what_kept_it() -> None:
    found = told(SHOP + "---" + VIRTUAL, "/api/list?x=1", **{"x-tester": "no"})
    assert [(step.route.rpartition(" ")[2], step.taken) for step in found.steps] == [
        ("testers", False),
        ("others-callers", False),
        ("old", False),
        ("rest", True),
    ]
    testers, callers, old, _ = found.steps
    assert testers.reasons == (
        "header x-tester is 'no', not 'yes'",
        "path is '/api/list', not what fits '/try/[0-9]+'",
    )
    assert callers.reasons == ("the caller isn't one with labels app=depot",)
    assert old.reasons == ("path is '/api/list', not '/old'",)
    assert found.answer == "it is sent on"
    first, second = found.shares
    assert (first.percent, first.detail) == (75, "1 endpoint")
    assert (second.percent, second.detail) == (25, "it doesn't exist: these requests fail")


def test_the_route_that_fits_takes_it() -> None:
    text = SHOP + "---" + VIRTUAL
    for path, headers in (("/api", {"x-tester": "yes"}), ("/try/17", {})):
        found = told(text, path, **headers)
        assert found.steps[-1].route == "VirtualService default/catalog route testers"
        assert found.shares[0].host == "catalog-v2.default.svc.cluster.local"
    assert told(text, "/old").answer == "it is redirected with 301"
    assert told(text, "/try/17x").steps[-1].route.endswith("rest")


def test_whose_word_holds_is_said() -> None:
    found = told(SHOP + "---" + SPLIT + "---" + VIRTUAL, "/")
    assert found.steps[0].route == "TrafficSplit default/catalog"
    assert found.steps[0].reasons == ("has no effect for this caller: VirtualService default/catalog comes first",)
    assert found.steps[-1].route.startswith("VirtualService default/catalog")


def test_hosts_are_found_by_every_name_and_what_is_none_is_said() -> None:
    for name in (
        "catalog",
        "catalog.default",
        "catalog.default.svc",
        "catalog.default.svc.cluster.local",
        "CATALOG:80",
    ):
        assert told(SHOP, "/", name).host == "catalog.default.svc.cluster.local"
    assert "no service of the mesh is called nobody" in told(SHOP, "/", "nobody").answer
    assert "has no such port for requests (it has 80)" in told(SHOP, "/", "catalog:81").answer
    narrow = SHOP.replace('mesh.sock"}]', 'mesh.sock", hosts: ["./catalog-v1.default.svc.cluster.local"]}]')
    assert narrow != SHOP
    assert "doesn't let it see catalog.default" in told(narrow, "/").answer
    with pytest.raises(errors.NotFound, match="there is no workload nobody in namespace default"):
        explain(World(SHOP).mesh, Request("catalog", "/"), "default", "nobody")
    with pytest.raises(errors.ConfigError, match="path: is 'x' .begin it with /"):
        told(SHOP, "x")
    with pytest.raises(errors.Exhausted):
        told(SHOP, "/" + "x" * 5_000)


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        (HttpMatch(), ""),
        (HttpMatch(path=TextMatch(Text.SEGMENTS, "/shop/")), ""),
        (HttpMatch(path=TextMatch(Text.SEGMENTS, "/sho")), "path is '/shop/cart', not '/sho' or below it"),
        (HttpMatch(path=TextMatch(Text.EXACT, "/SHOP/cart", ignore_case=True)), ""),
        (HttpMatch(methods=("GET", "PUT")), "method POST isn't GET or PUT"),
        (HttpMatch(headers=(("a", TextMatch(Text.PRESENT)),)), ""),
        (HttpMatch(headers=(("b", TextMatch(Text.PRESENT)),)), "header b is missing, not there"),
        (HttpMatch(headers=(("b", TextMatch(Text.EXACT, "x", negated=True)),)), ""),
        (HttpMatch(headers=(("a", TextMatch(Text.PREFIX, "1", negated=True)),)), "header a is '1', which must not be"),
        (HttpMatch(query=(("q", TextMatch(Text.EXACT, "first")),)), ""),
        (HttpMatch(query=(("q", TextMatch(Text.SUFFIX, "x")),)), "something that ends with 'x'"),
        (HttpMatch(authority=TextMatch(Text.EXACT, "other")), "authority is 'catalog', not 'other'"),
        (HttpMatch(path=TextMatch(Text.REGEX, "/[a-z/]+")), ""),
    ],
)
def test_what_a_condition_says(match: HttpMatch, reason: str) -> None:
    found = failing(match, Request("catalog", "/shop/cart?q=first&q=second", "POST", {"a": "1"}))
    assert reason in found
    assert bool(reason) is bool(found)


EXPRESSIONS = (
    *("a|b", "[a-c]*d?", "(ab)+", "a{2,3}b", "[^a]b", r"\d+x", r"\w*", "^a.b$", "(?i)AB", "(?:a|ab)(?:c|bcd)d*"),
    *("", ".*", r"\bab\b", "a(?i:B)c", r"[\d-]+", "(a*)*b", r"\Babc?", "x?y?z?"),
)


@given(st.sampled_from(EXPRESSIONS), st.text("abcdxyz AB019\n-", max_size=8))
def test_expressions_fit_as_they_do_in_python(expression: str, text: str) -> None:
    wanted = re.compile(expression, re.ASCII).fullmatch(text)
    if expression.endswith("$") and text.endswith("\n"):
        return  # Python's $ also fits before a last line feed, RE2's doesn't
    assert regular.fits(expression, text) is bool(wanted)


def test_no_expression_keeps_anybody_busy() -> None:
    for expression, text in (
        ("(a+)+b", "a" * 3_000),
        ("(a|a)*c", "a" * 3_000),
        ("(.*.*.*.*)*x", "y" * 2_000),
        ("((a{1000}){1000}){1000}", "a"),
        ("(((){1000}){1000}){1000}", ""),
        (r"(a)\1", "aa"),
        ("(", "a"),
    ):
        begin = time.process_time()
        regular.fits(expression, text)
        assert time.process_time() - begin < 10
    assert regular.fits("(a+)+b", "a" * 20) is False
    assert regular.fits(r"(a)\1", "aa") is None


async def test_from_the_command_line(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        shell = Shell(pki, tmp_path / "data", address)
        await admin.apply(objects(SHOP + "---" + VIRTUAL))
        printed = await shell("explain", "route", "catalog", "/api", "--from", "shop-0", "-H", "X-Tester: yes")
        assert "VirtualService default/catalog route testers takes it: all its conditions hold" in printed
        assert "100 % catalog-v2.default.svc.cluster.local:80 (1 endpoint)" in printed
        assert "not: header x-tester is missing" in await shell(
            *("explain", "route", "catalog", "/api", "--from", "default/shop-0")
        )
        assert "there is no workload ghost" in await shell("explain", "route", "catalog", "--from", "ghost", status=1)
        assert "write NAME: VALUE" in await shell(
            *("explain", "route", "catalog", "--from", "shop-0", "-H", "x"), status=64
        )
        assert '"percent": 100.0' in await shell(
            *("explain", "route", "catalog", "/try/1", "--from", "shop-0", "-o", "json")
        )
