"""Splits a rule's condition into the keys that the engine finds the rule by and what it evaluates afterwards.

One decision to know: a key may stand anywhere in a conjunction, since a false conjunct makes the whole false wherever
it stands. Leftmost keys come first, so that a condition which begins with its keys is read in its own order.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Expression, Lookup
from meshwright.mixer.cexl.types import ValueType

MAX_KEYS = 16  # of one rule, what the engine takes
MAX_PLACES = 256  # combinations of one rule's alternatives; the engine takes some more

# A rule asks only whether its condition is true: what an unknown operand makes of the others, in which CEXL and CEL
# differ, doesn't matter to that.
_AND = frozenset({"&&", "cel&&"})
_OR = frozenset({"||", "cel||"})


@dataclass(frozen=True, slots=True)
class Key:
    """Holds when `subject` is one of `equals` or begins with one of `prefixes`."""

    subject: Expression
    equals: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    @property
    def alternatives(self) -> int:
        """In how many places of the engine's tables it stands."""
        return len(self.equals) + len(self.prefixes)


@dataclass(frozen=True, slots=True)
class Split:
    """The condition is: all of `keys`, and `rest`, which implies that one of `either` holds if there are any."""

    keys: tuple[Key, ...] = ()
    either: tuple[Key, ...] = ()
    rest: Expression | None = None


def split(condition: Expression) -> Split:
    """Take the keys out of a condition of type BOOL."""
    keys: list[Key] = []
    rest: list[Expression] = []
    either: list[Key] = []
    places = 1
    for conjunct in _operands(_AND, condition):
        alternatives = [_key(each) for each in _operands(_OR, conjunct)]
        found = [each for each in alternatives if each is not None]
        if len(found) == len(alternatives) and len(keys) + len(either) < MAX_KEYS:
            merged = _merged(found)
            count = sum(each.alternatives for each in merged)
            if places * count <= MAX_PLACES and len(keys) + len(either) + len(merged) <= MAX_KEYS:
                if len(merged) == 1:
                    keys += merged
                    places *= count
                    continue
                # Alternatives over several attributes: only a first look, as reading order and what is absent count.
                if not either:
                    either = merged
                    places *= count
        if conjunct != Constant(ValueType.BOOL, True):
            rest.append(conjunct)
    if not rest:
        return Split(tuple(keys), (), None)
    whole = rest[0] if len(rest) == 1 else Apply(ValueType.BOOL, "&&", tuple(rest))
    return Split(tuple(keys), tuple(either), whole)


def _operands(functions: frozenset[str], expression: Expression) -> list[Expression]:
    if isinstance(expression, Apply) and expression.function in functions:
        return [operand for argument in expression.arguments for operand in _operands(functions, argument)]
    return [expression]


def _merged(keys: list[Key]) -> list[Key]:
    """One key for each subject, in order of appearance."""
    subjects: dict[Expression, tuple[dict[str, None], dict[str, None]]] = {}
    for key in keys:
        equals, prefixes = subjects.setdefault(key.subject, ({}, {}))
        equals.update(dict.fromkeys(key.equals))
        prefixes.update(dict.fromkeys(key.prefixes))
    return [Key(subject, tuple(equals), tuple(prefixes)) for subject, (equals, prefixes) in subjects.items()]


def _key(expression: Expression) -> Key | None:
    if not isinstance(expression, Apply):
        return None
    match expression.function, expression.arguments:
        case "==", (subject, Constant(value=str() as text)) if _is_subject(subject):
            return Key(subject, equals=(text,))
        case "==", (Constant(value=str() as text), subject) if _is_subject(subject):
            return Key(subject, equals=(text,))
        case "startsWith", (subject, Constant(value=str() as text)) if _is_subject(subject):
            return Key(subject, prefixes=(text,))
        case "in", (subject, *members) if _is_subject(subject):
            texts = [each.value for each in members if isinstance(each, Constant) and isinstance(each.value, str)]
            return Key(subject, equals=tuple(dict.fromkeys(texts))) if len(texts) == len(members) else None
        case "match", (subject, Constant(value=str() as pattern)) if _is_subject(subject):
            if "*" not in pattern:
                return Key(subject, equals=(pattern,))
            if pattern.index("*") == len(pattern) - 1:
                return Key(subject, prefixes=(pattern[:-1],))
    return None


def _is_subject(expression: Expression) -> bool:
    """A STRING attribute, or the entry of a map attribute under a constant key."""
    match expression:
        case Attribute(ValueType.STRING) | Lookup(_, Attribute(), Constant()):
            return True
    return False
