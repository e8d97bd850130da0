"""What adapters put out, in expressions: `$out.field` in bindings, `action.output.field` in header operations.

One decision to know: to the languages an output is an attribute like others; only then is it told apart, because no
request carries it and nobody compares it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping

from meshwright.mixer.cexl.typed import Apply, Attribute, Expression, Lookup, Output
from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.config.expressions import Expressions

Outputs = Mapping[str, Output]
"""By the names under which expressions know them."""


def bound(outputs: Mapping[str, ValueType]) -> Outputs:
    """The outputs of an attribute generator, for its bindings."""
    return {f"$out.{field}": Output(kind, "$out", field) for field, kind in outputs.items()}


def of_action(rule: str, action: str, outputs: Mapping[str, ValueType]) -> Outputs:
    """The outputs of a named action, for its rule's header operations."""
    return {f"{action}.output.{field}": Output(kind, f"{rule}/{action}", field) for field, kind in outputs.items()}


def compile_with(
    outputs: Outputs, expressions: Expressions, source: str, expected: ValueType | None, language: str
) -> Expression:
    """Compile an expression that may read outputs; ExpressionError when it can't be used."""
    vocabulary = ChainMap({name: output.type for name, output in outputs.items()}, {**expressions.vocabulary})
    return _told_apart(Expressions(vocabulary, expressions.specs).compile(source, expected, language), outputs)


def read(expression: Expression) -> list[Output]:
    """The outputs that an expression reads, each once."""
    match expression:
        case Output():
            return [expression]
        case Lookup(map=inner, key=key):
            found = [*read(inner), *read(key)]
        case Apply(arguments=arguments):
            found = [output for argument in arguments for output in read(argument)]
        case _:
            found = []
    return list(dict.fromkeys(found))


def _told_apart(expression: Expression, outputs: Outputs) -> Expression:
    match expression:
        case Attribute(name=name) if name in outputs:
            return outputs[name]
        case Lookup(kind, inner, key):
            return Lookup(kind, _told_apart(inner, outputs), _told_apart(key, outputs))
        case Apply(kind, function, arguments):
            return Apply(kind, function, tuple(_told_apart(argument, outputs) for argument in arguments))
    return expression
