"""Runs tests of policies without a server: mixer's own compiler and engine, a clock by hand.

One decision to know: a case has an engine of its own, so its limits begin unused, and the order of cases means nothing.
Requests without quotas of their own are charged one of every quota that limits them, as Envoy's are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic

from meshwright.api.mixer.v1 import introspection_pb2
from meshwright.api.policy.v1 import policy_pb2
from meshwright.core.config import objects
from meshwright.core.config.documents import read_documents
from meshwright.core.errors import ConfigError
from meshwright.dataplane.policy import Engine
from meshwright.mixer import check as checks
from meshwright.mixer.authoring import cases
from meshwright.mixer.authoring.cases import CODES, Case, Expected, PolicyTest, Step
from meshwright.mixer.authoring.checked import Checked, check
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.config import documents
from meshwright.mixer.config.violation import PolicyError, from_pydantic

_BEGIN = 10**15  # of every case's clock, in nanoseconds
_NAMES = {code: name for name, code in CODES.items()}


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that came out otherwise; `step` counts from 1, `request` from 1 within it."""

    step: int
    request: int
    what: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case and what is wrong with it; `explanation` is of the first request that went wrong."""

    test: str
    source: str
    case: str
    mismatches: Sequence[Mismatch]
    explanation: introspection_pb2.ExplainResponse | None

    @property
    def passed(self) -> bool:
        """Whether all came out as expected."""
        return not self.mismatches


@dataclass(slots=True)
class Report:
    """All outcomes, and which rules ever matched."""

    outcomes: list[Outcome] = field(default_factory=list)
    rules: set[str] = field(default_factory=set)
    matched: set[str] = field(default_factory=set)

    @property
    def failed(self) -> list[Outcome]:
        """The cases that failed."""
        return [each for each in self.outcomes if not each.passed]

    @property
    def coverage(self) -> float:
        """Per cent of the rules that matched once at least."""
        return 100 * len(self.matched & self.rules) / len(self.rules) if self.rules else 100.0


def run(files: Iterable[Path]) -> Report:
    """Run all tests in files and folders; ConfigError when something can't be read or isn't good."""
    given = [document for file in files for document in read_documents(file)]
    tests = [each for each in given if each.kind == cases.KIND]
    if not tests:
        raise ConfigError(f"no document of kind {cases.KIND}", remedy="write one beside the policy")
    policies = [each for each in given if each.kind != cases.KIND]
    report = Report()
    for document in tests:
        test = _read(document)
        under_test = [*_beside(document, test.policies)] if test.policies else policies
        _Run(document, test, under_test, report).all()
    return report


def _read(document: objects.Object) -> PolicyTest:
    try:
        return PolicyTest.model_validate(dict(document.spec))
    except pydantic.ValidationError as error:
        where, message = from_pydantic(error, "spec")[0]
        raise ConfigError(f"{document.source}: {where}: {message}") from error


def _beside(document: objects.Object, names: Iterable[str]) -> Iterator[objects.Object]:
    folder = Path(document.source.rpartition("#")[0]).parent
    for name in names:
        yield from (each for each in read_documents(folder / name) if each.kind != cases.KIND)


class _Run:
    def __init__(
        self, document: objects.Object, test: PolicyTest, policies: Sequence[objects.Object], report: Report
    ) -> None:
        self.document, self.test, self.report = document, test, report
        self.checked: Checked = check(policies)
        if self.checked.faults:
            raise PolicyError(self.checked.faults)
        self.vocabulary: Mapping[str, ValueType] = documents.read(policies).vocabulary
        self.common = {"context.reporter.kind": "inbound", "destination.namespace": document.namespace or "default"}
        report.rules |= _decisive(self.checked.compiled.policy)

    def all(self) -> None:
        for case in self.test.cases:
            self.report.outcomes.append(self.case(case))

    def case(self, case: Case) -> Outcome:
        engine = Engine()
        engine.load(self.checked.compiled.policy)
        mismatches: list[Mismatch] = []
        explanation = None
        now = 0
        for number, step in enumerate(case.all_steps, 1):
            if step.at is not None and step.at < now:
                raise ConfigError(f"{self.where(case)}: step {number}: `at` goes back: order the steps by time")
            now = now if step.at is None else step.at
            message = self.message(case, step)
            for repetition in range(1, step.repeat + 1):
                told = engine.explain(message(), at=_BEGIN + now, charge=True)
                answer = introspection_pb2.ExplainResponse.FromString(told)
                self.cover(answer)
                found = [*_differences(step, answer)]
                if found and explanation is None:
                    explanation = answer
                mismatches += [Mismatch(number, repetition, *each) for each in found]
                if found:
                    break
        return Outcome(self.document.name, self.document.source, case.name, mismatches, explanation)

    def message(self, case: Case, step: Step) -> Callable[[], bytes]:
        """Makes the request, each with a deduplication id of its own."""
        given = cases.derived(cases.merged(self.common, self.test.request, case.request, step.request))
        try:
            attributes = cases.typed(given, self.vocabulary)
        except ConfigError as error:
            raise ConfigError(f"{self.where(case)}: request: {error}") from error
        return lambda: checks.request(attributes, step.quotas, best_effort=step.best_effort).SerializeToString()

    def where(self, case: Case) -> str:
        return f"{self.document.source}: {case.name}"

    def cover(self, answer: introspection_pb2.ExplainResponse) -> None:
        verdicts = introspection_pb2.Tried.Verdict
        self.report.matched |= {
            each.rule for each in answer.rules if each.verdict in (verdicts.MATCHED, verdicts.UNSAMPLED)
        }


def _decisive(policy: bytes) -> set[str]:
    """Rules that take part in decisions; those that only report never match a request."""
    compiled = policy_pb2.Policy.FromString(policy)
    result = set()
    for rule in compiled.rules:
        instances = [compiled.instances[number] for action in rule.actions for number in action.instances]
        reports_only = all(each.variety == policy_pb2.REPORT for each in instances)
        if rule.request_headers or rule.response_headers or not reports_only:
            result.add(f"{rule.name}.{rule.namespace}")
    return result


def outcome_of(step: Step, answer: introspection_pb2.ExplainResponse) -> tuple[int, str]:
    """Code and message that a proxy gets: an exhausted quota denies, unless the step asks for quotas itself."""
    if answer.code or step.quotas:
        return answer.code, answer.message
    if answer.refused:
        return CODES["FAILED_PRECONDITION"], answer.refused
    exhausted = [each.quota for each in answer.charges if not each.dry_run and each.granted == 0]
    return (CODES["RESOURCE_EXHAUSTED"], f"quota exhausted: {', '.join(exhausted)}") if exhausted else (0, "")


def _differences(step: Step, answer: introspection_pb2.ExplainResponse) -> Iterator[tuple[str, str, str]]:
    """What, expected, found."""
    expected = step.expect
    code, message = outcome_of(step, answer)
    decision = "deny" if code else "allow"
    if expected.decision not in (None, decision):
        told = f" ({_NAMES.get(code, code)}: {message})" if code else ""
        yield "decision", str(expected.decision), decision + told
    if expected.code is not None and CODES[expected.code] != code:
        yield "code", expected.code, str(_NAMES.get(code, code))
    if expected.message is not None and expected.message not in message:
        yield "message", f"… {expected.message} …", message
    if expected.rule is not None and not _is_named(answer.rule, expected.rule):
        yield "rule", expected.rule, answer.rule or "(none)"
    if expected.http_status is not None and expected.http_status != answer.direct_code:
        yield "httpStatus", str(expected.http_status), str(answer.direct_code or "(the proxy's own)")
    if expected.body is not None and expected.body != answer.direct_body:
        yield "body", expected.body, answer.direct_body
    yield from _quotas(expected, step, answer)
    yield from _dry_runs(expected, answer)
    for name, wanted, operations in (
        ("requestHeaders", expected.request_headers, answer.request_headers),
        ("responseHeaders", expected.response_headers, answer.response_headers),
    ):
        yield from _headers(name, wanted, operations)


def _quotas(expected: Expected, step: Step, answer: Any) -> Iterator[tuple[str, str, str]]:
    for name, amount in expected.quotas.items():
        granted = [each.granted for each in answer.charges if not each.dry_run and _is_named(each.quota, name)]
        unlimited = 0 if answer.refused or answer.code else step.quotas.get(name, 0)
        found = min(granted) if granted else unlimited
        if found != amount:
            yield f"quota {name}", f"{amount} granted", f"{found} granted"


def _dry_runs(expected: Expected, answer: Any) -> Iterator[tuple[str, str, str]]:
    if expected.dry_runs is None:
        return
    found = [each.rule for each in answer.dry_runs]
    same = len(found) == len(expected.dry_runs) and all(map(_is_named, sorted(found), sorted(expected.dry_runs)))
    if not same:
        yield "dryRuns", ", ".join(expected.dry_runs) or "(none)", ", ".join(found) or "(none)"


def _headers(what: str, wanted: Mapping[str, str | None], operations: Any) -> Iterator[tuple[str, str, str]]:
    found: dict[str, str] = {}
    for each in operations:
        name = each.name.lower()
        if each.operation == 1:  # REMOVE
            found.pop(name, None)
        elif each.operation == 2 and name in found:  # APPEND
            found[name] += f",{each.value}"
        else:
            found[name] = each.value
    for header, value in wanted.items():
        if found.get(header.lower()) != value:
            yield f"{what} {header}", str(value), str(found.get(header.lower()))


def _is_named(found: str, wanted: str) -> bool:
    """Names may be given without their namespace."""
    return found.lower() == wanted.lower() or found.rpartition(".")[0].lower() == wanted.lower()
