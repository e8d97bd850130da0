"""The expressions of documents: compiled to nodes of the policy, or a fault of the document and its field."""

from __future__ import annotations

from meshwright.mixer.cexl import ExpressionError, ValueType
from meshwright.mixer.cexl.typed import Expression
from meshwright.mixer.config import outputs
from meshwright.mixer.config.documents import Documents
from meshwright.mixer.config.expressions import Expressions
from meshwright.mixer.config.nodes import Nodes
from meshwright.mixer.config.places import Places
from meshwright.mixer.config.violation import Identity


class DocumentExpressions:
    """Compiles what stands at a field path of a document; where it can't be used the document is refused."""

    def __init__(self, found: Documents, expressions: Expressions, nodes: Nodes, places: Places) -> None:
        self._found, self._places = found, places
        self.expressions, self.nodes = expressions, nodes

    def value(self, identity: Identity, where: str, source: str, types: frozenset[ValueType]) -> int | None:
        """The node of an expression that yields one of the types, or None."""
        expression = self.typed(identity, where, source, types)
        return None if expression is None else self.node(identity, where, expression)

    def typed(self, identity: Identity, where: str, source: str, types: frozenset[ValueType]) -> Expression | None:
        """An expression that yields one of the types, or None."""
        expected = next(iter(types)) if len(types) == 1 else None
        expression = self.compile(identity, where, source, expected)
        if expression is None:
            return None
        if expression.type not in types:
            names = ", ".join(sorted(each.name for each in types))
            self._found.refuse(identity, where, f"the expression yields {expression.type.name}: it must yield {names}")
            return None
        return expression

    def compile(
        self,
        identity: Identity,
        where: str,
        source: str,
        expected: ValueType | None,
        available: outputs.Outputs | None = None,
    ) -> Expression | None:
        """The expression in the document's language, which may read outputs that are `available`, or None."""
        document = self._found.rules.get(identity) or self._found.instances.get(identity)
        language = "CEXL" if document is None else document.language
        try:
            if available:
                return outputs.compile_with(available, self.expressions, source, expected, language)
            return self.expressions.compile(source, expected, language)
        except ExpressionError as error:
            self._found.refuse(identity, where, str(error))
            return None

    def node(self, identity: Identity, where: str, expression: Expression) -> int:
        """The node of a whole expression, noted as the document's."""
        index = self.nodes.add(expression)
        self._places.roots.append((index, identity, where))
        return index
