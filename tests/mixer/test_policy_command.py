"""`meshwright policy`: what people see of their policies before anybody serves them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import policy_test_files
import pytest
import yaml
from typer.testing import CliRunner

from meshwright.mixer.authoring.cli import app

POLICY = policy_test_files.POLICY


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.stdout, result.stderr


def test_compile_shows_what_a_policy_becomes(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(POLICY)
    status, out, err = run("compile", str(tmp_path / "shop.yaml"))
    assert (status, err) == (0, "")
    documents = [*yaml.safe_load_all(out)]
    assert {(each["kind"], each["metadata"]["name"]) for each in documents} == {
        ("handler", "shop/otherwise"),
        ("instance", "shop/nothing"),
        ("rule", "shop/otherwise"),
        ("instance", "shop/each"),
        ("rule", "shop/limit-each"),
        ("handler", "shop/limits"),
    }
    rule = next(each for each in documents if each["metadata"]["name"] == "shop/otherwise" and each["kind"] == "rule")
    assert rule["spec"]["match"] == (
        'destination.service.name == "shop" && !(default(source.principal.endsWith("/sa/front") '
        '&& request.method == "GET" && request.url_path.startsWith("/items/"), false))'
    )


def test_compile_tells_faults_by_file_and_field(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(POLICY.replace("request", "x").replace("source.principal", "source.prinzipal"))
    status, _, err = run("compile", str(tmp_path))
    assert status == 78
    assert "shop.yaml#1: Policy shop.demo: spec.limits[0].by[0]: unknown attribute `source.prinzipal`" in err


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("apiVersion: [")
    status, _, err = run("compile", str(tmp_path))
    assert status == 78
    assert "shop.yaml" in err


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(policy_test_files.POLICY)
    (tmp_path / "tests.yaml").write_text(policy_test_files.TESTS)
    return tmp_path


def change(folder: Path, before: str, after: str, name: str = "tests.yaml") -> None:
    text = (folder / name).read_text()
    assert before in text
    (folder / name).write_text(text.replace(before, after))


def test_a_policy_that_does_what_it_should_passes(shop: Path) -> None:
    status, out, err = run("test", str(shop), "--min-coverage", "100")
    assert (status, err) == (0, ""), out
    assert "ok      shop: three a minute" in out
    assert "4 of 4 cases passed, 100 % of the rules matched" in out


@pytest.mark.parametrize(
    ("before", "after", "what", "expected", "found"),
    [
        ("expect: allow\n    - name: nobody", "expect: deny\n    - name: nobody", "decision", "deny", "allow"),
        ("code: PERMISSION_DENIED", "code: NOT_FOUND", "code", "NOT_FOUND", "PERMISSION_DENIED"),
        ("rule: shop/otherwise", "rule: shop/deny-1", "rule", "shop/deny-1", "shop/otherwise.demo"),
        ("allows no such", "is sure of no such", "message", "is sure of no such", "allows no such"),
        (
            "{repeat: 3, expect",
            "{repeat: 4, expect",
            "step 1, request 4: decision",
            "allow",
            "deny (RESOURCE_EXHAUSTED",
        ),
        ("at: 67s", "at: 59s", "step 3, request 1: decision", "allow", "deny"),
        ("{quotas: {shop/each: 0}}", "{quotas: {shop/each: 1}}", "quota shop/each", "1 granted", "0 granted"),
        ("{quotas: {other: 5}}", "{dryRuns: [x]}", "dryRuns", "x", "(none)"),
        ("expect: {quotas: {other: 5}}", "expect: {requestHeaders: {x-a: b}}", "requestHeaders x-a", "b", "None"),
        ("expect: {quotas: {other: 5}}", "expect: {httpStatus: 404}", "httpStatus", "404", "the proxy's own"),
    ],
)
def test_a_difference_fails_and_is_shown(
    shop: Path, before: str, after: str, what: str, expected: str, found: str
) -> None:
    change(shop, before, after)
    status, out, _ = run("test", str(shop))
    assert status == 1
    lines = out.splitlines()
    place = next(number for number, line in enumerate(lines) if what in line and "  " in line)
    assert expected in lines[place + 1]
    assert found in lines[place + 2]
    assert "rule shop/" in out, "what was tried is told"
    assert "3 of 4 cases passed" in out


def test_rules_that_never_match_are_named_and_may_fail_the_run(shop: Path) -> None:
    change(shop, "  limits:", "  deny: [{paths: [/never]}]\n  limits:", "shop.yaml")
    assert run("test", str(shop))[0] == 0
    status, out, err = run("test", str(shop), "--min-coverage", "90")
    assert status == 1
    assert "never matched: shop/deny-1.demo" in out
    assert "coverage 67 % is below 90 %" in err


def test_results_as_json_and_junit(shop: Path) -> None:
    change(shop, "code: PERMISSION_DENIED", "code: NOT_FOUND")
    status, out, _ = run("test", str(shop), "-o", "json")
    told = json.loads(out)
    assert status == 1
    assert told["failed"] == 1
    assert [each["passed"] for each in told["cases"]] == [True, False, True, True]
    assert told["cases"][1]["mismatches"][0]["found"] == "PERMISSION_DENIED"
    assert told["coverage"]["percent"] == 100
    suites = ElementTree.fromstring(run("test", str(shop), "-o", "junit")[1])
    assert suites.get("failures") == "1"
    assert len(suites.findall("./testsuite/testcase")) == 4
    failure = suites.find("./testsuite/testcase/failure")
    assert failure is not None
    assert "PERMISSION_DENIED" in (failure.text or "")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("source.principal: spiffe", "source.prinzipal: spiffe", "did you mean source.principal?"),
        ("request.method: GET", "request.method: 7", "7 is no STRING"),
        (
            "expect: allow",
            "expect: perhaps",
            "spec.cases[0].expect.decision: unknown value: use one of 'allow' or 'deny'",
        ),
        ("at: 67s", "at: soon", "not a duration"),
        ("{repeat: 3, expect", "{at: 70s, repeat: 3, expect", "`at` goes back"),
        ("code: PERMISSION_DENIED", "code: DENIED", "use one of OK"),
        ("spec:\n", "spec:\n  policies: [nowhere.yaml]\n", "nowhere.yaml"),
        ("kind: PolicyTest", "kind: PolicyTests", "no document of kind PolicyTest"),
    ],
)
def test_what_is_wrong_with_a_test_is_no_failed_case(shop: Path, before: str, after: str, told: str) -> None:
    change(shop, before, after)
    status, _, err = run("test", str(shop))
    assert status == 78
    assert told in err


def test_a_policy_at_fault_fails_before_its_cases(shop: Path) -> None:
    change(shop, "source.principal", "source.prinzipal", "shop.yaml")
    status, _, err = run("test", str(shop))
    assert status == 78
    assert "spec.limits[0].by[0]" in err


def test_a_test_may_name_its_policies(shop: Path) -> None:
    (shop / "tests").mkdir()
    (shop / "tests.yaml").rename(shop / "tests" / "shop.yaml")
    text = (shop / "tests" / "shop.yaml").read_text().replace("spec:\n", "spec:\n  policies: [../shop.yaml]\n", 1)
    (shop / "tests" / "shop.yaml").write_text(text)
    assert run("test", str(shop / "tests"))[0] == 0


def test_mixer_passes_tests_over(shop: Path) -> None:
    """They may lie in the folder that it serves."""
    assert run("compile", str(shop))[0] == 0
