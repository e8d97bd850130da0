"""What came of tests of policies, for people, for programs and for whoever reads JUnit's XML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from meshwright.mixer.authoring.testing import Outcome, Report
from meshwright.mixer.introspection_cli import explained


def text(report: Report) -> str:
    """One line a case, the differences of those that failed, and the rules that never matched."""
    lines = []
    for outcome in report.outcomes:
        lines.append(f"{'ok    ' if outcome.passed else 'FAILED'}  {outcome.test}: {outcome.case}")
        lines += [f"        {line}" for line in _differences(outcome)]
    passed = len(report.outcomes) - len(report.failed)
    lines.append(f"\n{passed} of {len(report.outcomes)} cases passed, {report.coverage:.0f} % of the rules matched")
    lines += [f"never matched: {rule}" for rule in sorted(report.rules - report.matched)]
    return "\n".join(lines)


def json_text(report: Report) -> str:
    """All of it as JSON."""
    cases: list[dict[str, Any]] = [
        {
            "test": each.test,
            "source": each.source,
            "case": each.case,
            "passed": each.passed,
            "mismatches": [
                {
                    "step": wrong.step,
                    "request": wrong.request,
                    "what": wrong.what,
                    "expected": wrong.expected,
                    "found": wrong.found,
                }
                for wrong in each.mismatches
            ],
        }
        for each in report.outcomes
    ]
    coverage = {
        "percent": report.coverage,
        "matched": sorted(report.matched & report.rules),
        "unmatched": sorted(report.rules - report.matched),
    }
    return json.dumps({"cases": cases, "failed": len(report.failed), "coverage": coverage}, indent=2)


def junit(report: Report) -> str:
    """JUnit's XML, one suite a test."""
    root = ElementTree.Element("testsuites", tests=str(len(report.outcomes)), failures=str(len(report.failed)))
    suites: dict[str, ElementTree.Element] = {}
    for outcome in report.outcomes:
        suite = suites.get(outcome.source)
        if suite is None:
            suite = suites[outcome.source] = ElementTree.SubElement(root, "testsuite", name=outcome.test)
        case = ElementTree.SubElement(suite, "testcase", classname=outcome.test, name=outcome.case)
        if not outcome.passed:
            failure = ElementTree.SubElement(case, "failure", message=f"{outcome.mismatches[0].what} differs")
            failure.text = "\n".join(_differences(outcome))
    for source, suite in suites.items():
        own = [each for each in report.outcomes if each.source == source]
        suite.set("tests", str(len(own)))
        suite.set("failures", str(sum(not each.passed for each in own)))
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _differences(outcome: Outcome) -> Iterator[str]:
    for wrong in outcome.mismatches:
        where = f"step {wrong.step}, request {wrong.request}: "
        yield f"{where}{wrong.what}"
        yield f"  expected  {wrong.expected}"
        yield f"  found     {wrong.found}"
    if outcome.explanation is not None:
        yield from explained(outcome.explanation).splitlines()
