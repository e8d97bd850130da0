"""Type-checks CEL against the vocabulary and writes it in the typed form that CEXL compiles to.

One decision to know: a path is the longest attribute name it begins with, and one key if that is a map; so
`request.headers.host` and `request.headers["host"]` are the same, and `request` alone is nothing.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Mapping
from datetime import datetime

from meshwright.mixer.cel import syntax
from meshwright.mixer.cel.functions import FUNCTIONS, MACROS, SAME, SPECIAL, TEXTS, Signature
from meshwright.mixer.cexl.durations import parse_duration
from meshwright.mixer.cexl.errors import ExpressionError
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Expression, Lookup
from meshwright.mixer.cexl.types import ORDERED, ValueType

_BOOL, _STRING = ValueType.BOOL, ValueType.STRING
_INT64, _DOUBLE = ValueType.INT64, ValueType.DOUBLE
_TIME, _DURATION = ValueType.TIMESTAMP, ValueType.DURATION

# What the arithmetic operators take and yield, beside CEL's rule that both sides are alike.
_ARITHMETIC = {
    "+": {
        (_STRING, _STRING): _STRING,
        (_INT64, _INT64): _INT64,
        (_DOUBLE, _DOUBLE): _DOUBLE,
        (_DURATION, _DURATION): _DURATION,
        (_TIME, _DURATION): _TIME,
        (_DURATION, _TIME): _TIME,
    },
    "-": {
        (_INT64, _INT64): _INT64,
        (_DOUBLE, _DOUBLE): _DOUBLE,
        (_DURATION, _DURATION): _DURATION,
        (_TIME, _TIME): _DURATION,
        (_TIME, _DURATION): _TIME,
    },
    "*": {(_INT64, _INT64): _INT64, (_DOUBLE, _DOUBLE): _DOUBLE},
    "/": {(_INT64, _INT64): _INT64, (_DOUBLE, _DOUBLE): _DOUBLE},
    "%": {(_INT64, _INT64): _INT64},
}
# Names in the typed tree, where they differ from CEXL's operators of the same spelling.
_APPLIED = {"&&": "cel&&", "||": "cel||", "+": "checked+"}


def check(
    source: str, node: syntax.Node, vocabulary: Mapping[str, ValueType], expected: ValueType | None = None
) -> Expression:
    """The typed tree of `node`; ExpressionError when it isn't well-typed or doesn't yield `expected`."""
    checker = _Checker(source, vocabulary)
    result = checker.check(node)
    if expected is _STRING:
        result = _text(result)
    if expected is not None and result.type is not expected:
        raise checker.error(node, f"{_name(result.type)} where {_name(expected)} is needed", _conversion(expected))
    return result


class _Checker:
    def __init__(self, source: str, vocabulary: Mapping[str, ValueType]) -> None:
        self.source = source
        self.vocabulary = vocabulary

    def error(self, node: syntax.Node, reason: str, remedy: str) -> ExpressionError:
        return ExpressionError(self.source, node.position, reason, remedy)

    def check(self, node: syntax.Node) -> Expression:
        match node:
            case syntax.Literal(value=bool() as value):
                return Constant(_BOOL, value)
            case syntax.Literal(value=int() as value):
                return Constant(_INT64, value)
            case syntax.Literal(value=float() as value):
                return Constant(_DOUBLE, value)
            case syntax.Literal(value=value):
                return Constant(_STRING, value)
            case syntax.Identifier() | syntax.Select():
                return self.path(node)
            case syntax.Index():
                return self.index(node)
            case syntax.Operation():
                return self.operation(node)
            case syntax.Call():
                return self.call(node)
            case syntax.ListLiteral():
                raise self.error(node, "a list where a value is needed", "lists stand after `in` only")

    def path(self, node: syntax.Identifier | syntax.Select) -> Expression:
        names: list[str] = []
        inner: syntax.Node = node
        while isinstance(inner, syntax.Select):
            names.append(inner.field)
            inner = inner.target
        if not isinstance(inner, syntax.Identifier):
            target = self.check(inner)
            raise self.error(node, f"{_name(target.type)} has no field `{names[-1]}`", "only maps have fields")
        names.append(inner.name)
        names.reverse()
        for length in range(len(names), 0, -1):
            name = ".".join(names[:length])
            kind = self.vocabulary.get(name)
            if kind is None:
                continue
            attribute, keys = Attribute(kind, name), names[length:]
            if not keys:
                return attribute
            if kind is ValueType.STRING_MAP and len(keys) == 1:
                return Lookup(_STRING, attribute, Constant(_STRING, keys[0]))
            if kind is ValueType.STRING_MAP:
                raise self.error(node, f"`{name}` has keys of one part", f'write {name}["{".".join(keys)}"]')
            raise self.error(node, f"`{name}` is {_name(kind)} and has no field `{keys[0]}`", "only maps have fields")
        wanted = ".".join(names)
        close = difflib.get_close_matches(wanted, self.vocabulary, n=1)
        below = next((known for known in sorted(self.vocabulary) if known.startswith(f"{wanted}.")), None)
        remedy = (
            f"it is the beginning of names such as `{below}`" if below
            else f"did you mean `{close[0]}`?" if close
            else "use an attribute of the vocabulary; quote literal text"
        )  # fmt: skip
        raise self.error(inner, f"unknown attribute `{wanted}`", remedy)

    def index(self, node: syntax.Index) -> Lookup:
        target = self.check(node.target)
        if target.type is not ValueType.STRING_MAP:
            raise self.error(node, f"{_name(target.type)} has no keys", "only maps have keys")
        return Lookup(_STRING, target, self.text(node.key, "a key"))

    def text(self, node: syntax.Node, what: str) -> Expression:
        result = _text(self.check(node))
        if result.type is not _STRING:
            raise self.error(node, f"{what} must be text, not {_name(result.type)}", "convert it with string(…)")
        return result

    def truth(self, node: syntax.Node, operator: str) -> Expression:
        result = self.check(node)
        if result.type is not _BOOL:
            raise self.error(node, f"`{operator}` of {_name(result.type)}", "write a condition, for example with `==`")
        return result

    def operation(self, node: syntax.Operation) -> Expression:
        operator, operands = node.operator, node.operands
        if operator in ("&&", "||", "!"):
            truths = tuple(self.truth(each, operator) for each in operands)
            return Apply(_BOOL, _APPLIED.get(operator, operator), truths)
        if operator == "?:":
            condition = self.truth(operands[0], operator)
            yes, no = self.alike(node, self.check(operands[1]), self.check(operands[2]))
            if yes.type is ValueType.STRING_MAP:
                raise self.error(node, "`?:` of maps", "choose between single keys")
            return Apply(yes.type, "conditional", (condition, yes, no))
        if operator == "in":
            return self.membership(node)
        if len(operands) == 1:
            return self.negation(node)
        left, right = self.check(operands[0]), self.check(operands[1])
        if operator in _ARITHMETIC:
            left, right = _text(left), _text(right)
            kind = _ARITHMETIC[operator].get((left.type, right.type))
            if kind is None:
                raise self.mismatch(node, left, right)
            return Apply(kind, _APPLIED.get(operator, operator), (left, right))
        left, right = self.alike(node, left, right)
        if operator in ("==", "!="):
            if left.type is ValueType.STRING_MAP:
                raise self.error(node, "maps can't be compared", 'compare single keys: map["key"] == "value"')
        elif left.type is _BOOL or left.type not in ORDERED:
            raise self.error(node, f"`{operator}` can't order {_name(left.type)}", "it orders numbers, text and times")
        return Apply(_BOOL, operator, (left, right))

    def alike(self, node: syntax.Operation, left: Expression, right: Expression) -> tuple[Expression, Expression]:
        """Both sides with one type; special kinds of text become plain text beside it."""
        if left.type is not right.type:
            left, right = _text(left), _text(right)
        if left.type is not right.type:
            raise self.mismatch(node, left, right)
        return left, right

    def mismatch(self, node: syntax.Operation, left: Expression, right: Expression) -> ExpressionError:
        kinds = {left.type, right.type}
        remedy = (
            "write the whole number with a point, or convert with double(…) or int(…)" if kinds == {_INT64, _DOUBLE}
            else 'write duration("…")' if kinds == {_STRING, _DURATION}
            else 'write timestamp("…")' if kinds == {_STRING, _TIME}
            else 'write ip("…")' if kinds == {_STRING, ValueType.IP_ADDRESS}
            else "convert one side, for example with string(…) or int(…)"
        )  # fmt: skip
        return self.error(node, f"`{node.operator}` between {_name(left.type)} and {_name(right.type)}", remedy)

    def negation(self, node: syntax.Operation) -> Expression:
        operand = self.check(node.operands[0])
        if operand.type not in (_INT64, _DOUBLE):
            raise self.error(node, f"`-` before {_name(operand.type)}", "only numbers have a negative")
        return Apply(operand.type, "negate", (operand,))

    def membership(self, node: syntax.Operation) -> Expression:
        value, holder = node.operands
        if not isinstance(holder, syntax.ListLiteral):
            where = self.check(holder)
            if where.type is not ValueType.STRING_MAP:
                raise self.error(holder, f"`in` {_name(where.type)}", "write a list, or a map attribute")
            return Apply(_BOOL, "has", (Lookup(_STRING, where, self.text(value, "a key")),))
        wanted = self.check(value)
        if wanted.type is ValueType.STRING_MAP:
            raise self.error(value, "a map in a list", "ask for a single key")
        elements = []
        for each in holder.elements:
            element = self.check(each)
            if not isinstance(element, Constant):
                raise self.error(each, "a list of something else than literals", "compare with `==`, joined by `||`")
            wanted, matched = self.alike(node, wanted, element)
            elements.append(matched)
        if not elements:
            raise self.error(holder, "an empty list", "write what it may be")
        return Apply(_BOOL, "in", (wanted, *elements))

    def call(self, node: syntax.Call) -> Expression:
        name = node.function
        if name == "has" and node.receiver is None:
            return self.presence(node)
        if name == "default" and node.receiver is None:
            return self.otherwise(node)
        if name == "containsIP":
            return self.within(node)
        if name in MACROS and node.receiver is not None:
            raise self.error(
                node, f"`{name}` goes through lists", "attributes have none: compare single values or keys"
            )
        signature = FUNCTIONS.get(name)
        if signature is None or name in SPECIAL:
            close = difflib.get_close_matches(name, [*FUNCTIONS, *SPECIAL], n=1)
            usage = FUNCTIONS[close[0]].usage if close and close[0] in FUNCTIONS else SPECIAL[close[0]] if close else ""
            remedy = f"did you mean `{usage}`?" if usage else f"there are {', '.join([*FUNCTIONS, *SPECIAL])}"
            raise self.error(node, f"unknown function `{name}`", remedy)
        if (node.receiver is not None) != signature.method and not signature.either:
            raise self.error(node, f"`{name}` is called another way", f"write {signature.usage}")
        nodes = node.arguments if node.receiver is None else (node.receiver, *node.arguments)
        if len(nodes) != len(signature.parameters):
            raise self.error(node, f"`{name}` with {len(node.arguments)} arguments", f"write {signature.usage}")
        arguments = [self.parameter(node, signature, number, each) for number, each in enumerate(nodes)]
        if name == "matches":
            arguments.reverse()  # as CEXL has it: pattern, text
        return self.converted(node, signature, arguments)

    def parameter(self, call: syntax.Call, signature: Signature, number: int, node: syntax.Node) -> Expression:
        argument = self.check(node)
        kinds = signature.parameters[number]
        if argument.type not in kinds and argument.type in TEXTS:
            argument = _text(argument)
        if argument.type not in kinds:
            wanted = " or ".join(sorted(map(_name, kinds)))
            raise self.error(
                node, f"`{call.function}` of {_name(argument.type)}", f"it takes {wanted}: {signature.usage}"
            )
        if signature.constant == number and not isinstance(argument, Constant):
            raise self.error(node, "this part must be a literal", f"write {signature.usage}")
        return argument

    def presence(self, node: syntax.Call) -> Expression:
        if len(node.arguments) != 1 or not isinstance(node.arguments[0], syntax.Identifier | syntax.Select):
            remedy = 'has(source.principal), has(request.headers.host), or "x-tier" in request.headers'
            raise self.error(node, "`has` of something else than an attribute or a field", f"write {remedy}")
        asked = self.path(node.arguments[0])
        if asked.type is ValueType.STRING_MAP:
            raise self.error(node, "`has` of a whole map", 'ask for a key: "x-tier" in request.headers')
        return Apply(_BOOL, "has", (asked,))

    def otherwise(self, node: syntax.Call) -> Expression:
        if len(node.arguments) != 2:
            raise self.error(node, f"`default` with {len(node.arguments)} arguments", f"write {SPECIAL['default']}")
        value, fallback = (self.check(each) for each in node.arguments)
        if value.type is not fallback.type:
            value, fallback = _text(value), _text(fallback)
        if value.type is not fallback.type or value.type is ValueType.STRING_MAP:
            kinds = f"{_name(value.type)} and {_name(fallback.type)}"
            raise self.error(node, f"`default` of {kinds}", "both sides must have one type, and not be maps")
        return Apply(value.type, "default", (value, fallback))

    def within(self, node: syntax.Call) -> Expression:
        usage = SPECIAL["cidr"]
        match node.receiver, node.arguments:
            case syntax.Call("cidr", (syntax.Literal(value=str() as text) as block,), None), (address,):
                pass
            case _:
                raise self.error(node, "`containsIP` is called another way", f"write {usage}")
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise self.error(block, f"`{text[:40]}` is no block of addresses", f"write {usage}") from None
        within = self.parameter(node, FUNCTIONS["containsIP"], 1, address)
        return Apply(_BOOL, "within", (Constant(_STRING, str(network)), within))

    def converted(self, node: syntax.Call, signature: Signature, arguments: list[Expression]) -> Expression:
        """Leave out conversions that change nothing, and make constants of literals, so that a bad one is told now."""
        argument = arguments[0]
        if node.function in SAME and argument.type is signature.result:
            return argument
        if node.function == "string" and argument.type in TEXTS:
            return _text(argument)
        text = argument.value if isinstance(argument, Constant) and argument.type is _STRING else None
        if not isinstance(text, str) or node.function not in ("timestamp", "duration", "ip"):
            return Apply(signature.result, signature.applied, tuple(arguments))
        value = _read(signature.result, text)
        if value is None:
            raise self.error(node, f"`{text[:40]}` can't be read", f"write {signature.usage}")
        return value


def _read(kind: ValueType, text: str) -> Constant | None:
    try:
        match kind:
            case ValueType.IP_ADDRESS:
                return Constant(kind, ipaddress.ip_address(text))
            case ValueType.TIMESTAMP:
                moment = datetime.fromisoformat(text)
                return Constant(kind, moment) if moment.tzinfo is not None else None
    except ValueError:
        return None
    nanoseconds = parse_duration(text)
    return None if nanoseconds is None else Constant(kind, nanoseconds)


def _text(expression: Expression) -> Expression:
    """Special kinds of text (DNS names, addresses of e-mail, URIs) as plain text; anything else as it is."""
    return Apply(_STRING, "string", (expression,)) if expression.type in TEXTS else expression


_NAMES = {
    ValueType.STRING: "string",
    ValueType.INT64: "int",
    ValueType.DOUBLE: "double",
    ValueType.BOOL: "bool",
    ValueType.TIMESTAMP: "timestamp",
    ValueType.DURATION: "duration",
    ValueType.STRING_MAP: "map",
    ValueType.IP_ADDRESS: "ip",
}


def _name(kind: ValueType) -> str:
    return _NAMES.get(kind, kind.name)


def _conversion(expected: ValueType) -> str:
    usage = {
        ValueType.STRING: "convert it with string(…); quote literal text",
        ValueType.BOOL: "write a condition, for example with `==`",
        ValueType.INT64: "convert it with int(…)",
        ValueType.DOUBLE: "convert it with double(…)",
        ValueType.TIMESTAMP: 'write timestamp("…")',
        ValueType.DURATION: 'write duration("…")',
        ValueType.IP_ADDRESS: 'write ip("…")',
    }
    return usage.get(expected, f"use an attribute of type {expected.name}")
