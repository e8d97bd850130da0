"""Whatever valid SMI objects there are, proxies take what they become; expressions that they refuse never get there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ads import free_port, located, manager
from envoys import proxy
from hypothesis import given, settings
from hypothesis import strategies as st
from meshes import SHOP
from smi_objects import CASES, objects

from meshwright.manager.model.parse import Parsed, parse
from meshwright.manager.model.pattern import regex
from meshwright.manager.smi import conversion
from pki import Pki

EXPRESSIONS = (
    "/a", "", "^$", "(?i)/API", "(?P<name>x)+", "[[:alpha:]]+", r"\d{1,9}\.\w*?", "(a|b|)(c)*", r"\x41\t", "é*[^é]?",
    r"\bx\B", ".{20}", "(?:[a-z]{3,9}/){4}", "a" * 850, "[^/]{40}", r"\Aa", r"[\w.-]+", "(?s:.)", r"\/\-\#\&\~",
)  # fmt: skip
REFUSED = ("(?=a)", "(?<!a)b", r"(a)\1", "(?P<n>a)(?P=n)", "a++", "(?>a)", "(", "[b-a]", "a{1001}", r"a\Z", r"\N{DASH}",
           chr(92) + "u0061", "(?x) a", "(?#c)a", ".{200}", "(a{30}){40}", "a" * 2000, "(" * 500 + ")" * 500,
           "*a")  # fmt: skip


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for the 107 bytes of a socket's path."""
    return tmp_path_factory.mktemp("p")


@pytest.mark.parametrize("text", REFUSED)
def test_expressions_that_proxies_lack_or_cant_hold_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RE2|too large|characters"):
        regex(text)


@given(st.text(max_size=30) | st.text("()[]{}*+?|\\^$.aZ09-,:=!<>P#", max_size=30))
def test_any_expression_is_taken_or_refused_with_a_sentence(text: str) -> None:
    try:
        assert regex(text) == text
    except ValueError as error:
        assert str(error)


def drawn() -> list[dict[str, Any]]:
    """Objects of every kind and version, about the catalog where they are about anybody."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    last: dict[int, dict[str, Any]] = {}

    @settings(max_examples=12, database=None)
    @given(st.tuples(*(objects(*case) for case in CASES)))
    def draw(made: tuple[dict[str, Any], ...]) -> None:
        for number, document in enumerate(made):
            document["metadata"]["namespace"] = "default"
            kind = document["kind"]
            if kind in ("TrafficTarget", "TrafficSplit"):  # all of them; of routes those that these name
                document["metadata"]["name"] = f"{kind.lower()}-{number}-{len(found)}"
            if kind == "TrafficTarget":
                body = document.get("spec", document)
                body["destination"] = {"kind": "ServiceAccount", "name": "catalog"}
            if kind == "TrafficSplit":
                document["spec"]["service"] = "catalog"
            found[kind, document["metadata"]["name"]] = last[number] = document

    draw()
    for number, document in last.items():  # one of each version stays, whatever names were drawn
        kept = {**document, "metadata": {**document["metadata"], "name": f"version-{number}"}}
        found[kept["kind"], f"version-{number}"] = kept
    return list(found.values())


async def test_a_proxy_takes_whatever_valid_objects_become(pki: Pki, short: Path) -> None:
    for name in ("shop", "catalog-v1"):
        (short / name).mkdir()
    documents = drawn()
    everything = [
        {"name": f"e{number}", "pathRegex": text, "headers": {"x-one": text}} for number, text in enumerate(EXPRESSIONS)
    ]
    documents.append({
        "apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup", "metadata": {"name": "expressions"},
        "spec": {"matches": everything},
    })  # fmt: skip
    documents.append({
        "apiVersion": "access.smi-spec.io/v1alpha4", "kind": "TrafficTarget", "metadata": {"name": "expressions"},
        "spec": {
            "destination": {"kind": "ServiceAccount", "name": "catalog"},
            "sources": [{"kind": "ServiceAccount", "name": "shop"}],
            "rules": [{"kind": "HTTPRouteGroup", "name": "expressions"}],
        },
    })  # fmt: skip
    documents.append({
        "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit", "metadata": {"name": "a-expressions"},
        "spec": {
            "service": "catalog", "backends": [{"service": "catalog-v1", "weight": 1}],
            "matches": [{"kind": "HTTPRouteGroup", "name": "expressions"}],
        },
    })  # fmt: skip
    assert len({(each["kind"], each["apiVersion"]) for each in documents}) == len(CASES)
    assert all(isinstance(parse(json.dumps(each)), Parsed) for each in documents)
    async with (
        manager(pki, located(SHOP, short, free_port(), free_port())) as made,
        proxy(short / "s", "shop-0", pki.workload("shop"), manager=made.address),
        proxy(short / "c", "catalog-v1-0", pki.workload("catalog"), manager=made.address),
    ):
        await made.settled("shop-0", "catalog-v1-0")
        made.apply("\n---\n".join(json.dumps(each) for each in documents))
        await made.settled("shop-0", "catalog-v1-0")
        complaints = [s.error for name in ("shop-0", "catalog-v1-0") for s in made.states(name).values() if s.error]
        assert not complaints
    assert conversion.HUB in {each["apiVersion"].rpartition("/")[2] for each in documents}
