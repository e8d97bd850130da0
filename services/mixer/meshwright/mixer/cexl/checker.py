"""Type-checks a syntax tree against the vocabulary and resolves every name.

One decision to know: a literal takes the type that its place asks for (text beside a DURATION is read as a duration,
a whole number beside a DOUBLE as a number), so `"1s"` is text everywhere else, unlike in the original Mixer.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from meshwright.mixer.cexl import syntax
from meshwright.mixer.cexl.conversions import CONVERSIONS, KEPT
from meshwright.mixer.cexl.durations import parse_duration
from meshwright.mixer.cexl.errors import ExpressionError
from meshwright.mixer.cexl.functions import FUNCTIONS, Signature
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Expression, Lookup
from meshwright.mixer.cexl.types import ADDABLE, ORDERED, ValueType

_COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}


def check(
    source: str, node: syntax.Node, vocabulary: Mapping[str, ValueType], expected: ValueType | None = None
) -> Expression:
    """The typed tree of `node`; ExpressionError when it isn't well-typed or doesn't yield `expected`."""
    return _Checker(source, vocabulary).check(node, expected)


class _Checker:
    def __init__(self, source: str, vocabulary: Mapping[str, ValueType]) -> None:
        self.source = source
        self.vocabulary = vocabulary

    def error(self, node: syntax.Node, reason: str, remedy: str) -> ExpressionError:
        return ExpressionError(self.source, node.position, reason, remedy)

    def check(self, node: syntax.Node, expected: ValueType | None) -> Expression:
        match node:
            case syntax.Literal():
                result: Expression = self.literal(node, expected)
            case syntax.Name():
                result = self.attribute(node)
            case syntax.Index():
                key = self.check(node.key, ValueType.STRING)
                result = Lookup(ValueType.STRING, self.check(node.target, ValueType.STRING_MAP), key)
            case syntax.Operation():
                result = self.operation(node, expected)
            case syntax.Call():
                result = self.call(node, expected)
        if expected is not None and result.type is not expected:
            raise self.error(node, f"{result.type.name} where {expected.name} is needed", _conversion(expected))
        return result

    def literal(self, node: syntax.Literal, expected: ValueType | None) -> Constant:
        match node.value:
            case bool():
                return Constant(ValueType.BOOL, node.value)
            case int() if expected is ValueType.DOUBLE:
                return Constant(ValueType.DOUBLE, float(node.value))
            case int():
                return Constant(ValueType.INT64, node.value)
            case float():
                return Constant(ValueType.DOUBLE, node.value)
            case str() if expected is ValueType.DURATION:
                nanoseconds = parse_duration(node.value)
                if nanoseconds is None:
                    raise self.error(node, f'"{node.value[:40]}" is not a duration', 'write for example "250ms"')
                return Constant(ValueType.DURATION, nanoseconds)
            case str():
                return Constant(ValueType.STRING, node.value)

    def attribute(self, node: syntax.Name) -> Attribute:
        value_type = self.vocabulary.get(node.name)
        if value_type is None:
            close = difflib.get_close_matches(node.name, self.vocabulary, n=1)
            remedy = (
                f"did you mean `{close[0]}`?" if close else "use an attribute of the vocabulary; quote literal text"
            )
            raise self.error(node, f"unknown attribute `{node.name}`", remedy)
        return Attribute(value_type, node.name)

    def operation(self, node: syntax.Operation, expected: ValueType | None) -> Apply:
        operator, operands = node.operator, node.operands
        if operator in ("&&", "||", "!"):
            return Apply(ValueType.BOOL, operator, tuple(self.check(each, ValueType.BOOL) for each in operands))
        arguments = self.alike(operands, expected if operator not in _COMPARISONS else None)
        kind = arguments[0].type
        if operator == "|":
            return Apply(kind, operator, arguments)
        if operator == "+":
            if kind not in ADDABLE:
                raise self.error(node, f"`+` can't add {kind.name}", "add INT64, DOUBLE, DURATION or STRING")
            return Apply(kind, operator, arguments)
        if operator in ("==", "!="):
            if kind is ValueType.STRING_MAP:
                raise self.error(node, "maps can't be compared", 'compare single keys: map["key"] == "value"')
        elif kind not in ORDERED:
            ordered = ", ".join(sorted(each.name for each in ORDERED))
            raise self.error(node, f"`{operator}` can't order {kind.name}", f"it orders {ordered}")
        return Apply(ValueType.BOOL, operator, arguments)

    def alike(self, nodes: tuple[syntax.Node, ...], expected: ValueType | None) -> tuple[Expression, ...]:
        """Check operands that must share one type: the expected one, or that of the first which isn't a literal."""
        lead = next((node for node in nodes if not isinstance(node, syntax.Literal)), nodes[0])
        leader = self.check(lead, expected)
        return tuple(leader if node is lead else self.check(node, leader.type) for node in nodes)

    def call(self, node: syntax.Call, expected: ValueType | None) -> Expression:
        signature = FUNCTIONS.get(node.function)
        if signature is None:
            close = difflib.get_close_matches(node.function, FUNCTIONS, n=1)
            remedy = f"did you mean `{FUNCTIONS[close[0]].usage}`?" if close else f"there are {', '.join(FUNCTIONS)}"
            raise self.error(node, f"unknown function `{node.function}`", remedy)
        if (node.receiver is not None) != signature.method:
            raise self.error(node, f"`{node.function}` is called another way", f"write {signature.usage}")
        nodes = node.arguments if node.receiver is None else (node.receiver, *node.arguments)
        if len(nodes) != len(signature.parameters):
            raise self.error(
                node, f"`{node.function}` with {len(node.arguments)} arguments", f"write {signature.usage}"
            )
        arguments = self.parameters(nodes, signature, expected)
        if signature.constant is not None and not isinstance(arguments[signature.constant], Constant):
            raise self.error(nodes[signature.constant], "this part must be a literal", f"write {signature.usage}")
        kind = signature.result or arguments[-1].type
        return self.fold(node, kind, arguments[0]) if len(arguments) == 1 else Apply(kind, node.function, arguments)

    def parameters(
        self, nodes: tuple[syntax.Node, ...], signature: Signature, expected: ValueType | None
    ) -> tuple[Expression, ...]:
        shared = tuple(node for node, kind in zip(nodes, signature.parameters, strict=True) if kind is None)
        common = iter(self.alike(shared, expected) if shared else ())
        return tuple(
            next(common) if kind is None else self.check(node, kind)
            for node, kind in zip(nodes, signature.parameters, strict=True)
        )

    def fold(self, node: syntax.Call, kind: ValueType, argument: Expression) -> Expression:
        """Judge conversions of literals, so that a bad one is an error now and not at request time.

        What can be a constant becomes one.
        """
        if not isinstance(argument, Constant) or node.function not in CONVERSIONS:
            return Apply(kind, node.function, (argument,))
        text = str(argument.value)
        result = CONVERSIONS[node.function](text)
        if result is None:
            raise self.error(node, f"`{text[:40]}` can't be read", f"write {FUNCTIONS[node.function].usage}")
        return Apply(kind, node.function, (argument,)) if result is KEPT else Constant(kind, result)


def _conversion(expected: ValueType) -> str:
    usage = {
        ValueType.IP_ADDRESS: 'convert text with ip("…")',
        ValueType.TIMESTAMP: 'convert text with timestamp("…")',
        ValueType.DNS_NAME: 'convert text with dnsName("…")',
        ValueType.EMAIL_ADDRESS: 'convert text with email("…")',
        ValueType.URI: 'convert text with uri("…")',
        ValueType.DURATION: 'write a duration as text, for example "250ms"',
        ValueType.STRING: "quote literal text",
        ValueType.BOOL: "write a condition, for example with `==`",
    }
    return usage.get(expected, f"use an attribute of type {expected.name}")
