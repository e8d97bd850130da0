"""Compiles all of mixer's documents into one policy for the Rust engine.

One decision to know: a document with a fault is left out with what needs it, and `Compiled.dropped` says why;
all else is in force. What the engine alone can judge (regular expressions, addresses in lists) it checks when it loads
the policy: meshwright.mixer.config.loader leaves out what it refuses, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.core.config.objects import Object
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.config import defaults, documents
from meshwright.mixer.config.compilation import Compilation
from meshwright.mixer.config.compiled import Compiled, Lists
from meshwright.mixer.config.documents import Readings
from meshwright.mixer.config.expressions import Expressions
from meshwright.mixer.config.nodes import FORMAT, Nodes
from meshwright.mixer.config.rule_parts import RuleParts
from meshwright.mixer.config.service_specs import service_specs
from meshwright.mixer.config.violation import Violation

GLOBAL_NAMESPACE = "meshwright-system"
_SPARE = 10_000  # nodes and expressions that nothing uses any more


class PolicyCompiler:
    """Compiles one configuration after the other; what didn't change between two isn't compiled again.

    `export` adds the default rule that sends every record to OpenTelemetry; rules of `namespace` apply everywhere;
    answers may be kept for `max_validity` seconds at most (0: as long as handlers say).
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        *,
        export: bool = False,
        namespace: str = GLOBAL_NAMESPACE,
        max_validity: float = 0,
    ) -> None:
        self._adapters, self._export, self._namespace = adapters, export, namespace
        self._max_validity = round(max_validity * 1e9)
        self._readings = Readings()
        self._expressions = Expressions({})
        self._nodes = Nodes()
        self._parts = RuleParts()
        self._needed = (0, 0)  # what was kept of a policy when its tables were new: of nodes, and of texts

    def compile(
        self,
        given: Iterable[Object],
        *,
        revision: str = "",
        refused: Iterable[Violation] = (),
        lists: Lists = MappingProxyType({}),
    ) -> Compiled:
        """Compile documents; those that the engine `refused` are left out with the others that have a fault."""
        given, refused = [*given], [*refused]
        everything = [*given]
        if self._export:
            everything += defaults.documents(everything, self._namespace)
        found = documents.read(everything, self._readings)
        for violation in refused:
            found.refuse(violation.object, violation.field, violation.message)
        documents.add_policies(found, self._namespace)
        specs = service_specs(found)
        if found.vocabulary != self._expressions.vocabulary or specs != self._expressions.specs:
            self._expressions = Expressions(found.vocabulary, specs)
            self._nodes = Nodes()
        is_new = not self._nodes or self._is_stale()
        if is_new:
            self._nodes = Nodes()
            self._expressions.forget()
        policy = pb.Policy(
            format=FORMAT,
            revision=revision,
            global_namespace=self._namespace,
            drop_unmatched_reports=True,
            max_validity_nanos=self._max_validity,
        )
        tables = self._expressions, self._nodes, self._parts
        compiled = Compilation(found, self._adapters, policy, *tables, lists).compile()
        if is_new:
            self._needed = len(self._nodes), len(self._expressions)
        if partly := documents.partly_dropped(found):
            return self.compile(given, revision=revision, refused=[*refused, *partly], lists=lists)
        return compiled

    def _is_stale(self) -> bool:
        """Whether most of what is kept is of no use any more."""
        nodes, expressions = self._needed
        return len(self._nodes) > 2 * nodes + _SPARE or len(self._expressions) > 2 * expressions + _SPARE

    def patterns(self) -> Iterator[tuple[int, bytes]]:
        """Every regular expression's node, with a policy that holds it alone."""
        return self._nodes.patterns()

    def forget_nodes(self) -> None:
        """Begin new tables: one of the nodes is of no use to the engine."""
        self._nodes = Nodes()


def compile_policy(
    given: Iterable[Object],
    adapters: Mapping[str, Adapter],
    *,
    revision: str = "",
    export: bool = False,
) -> Compiled:
    """Compile documents once."""
    return PolicyCompiler(adapters, export=export).compile(given, revision=revision)
