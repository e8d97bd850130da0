"""Turns typed expressions into the node list of a compiled policy: equal parts become one node, operands come first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Expression, Lookup
from meshwright.mixer.cexl.types import ValueType

_OPERATIONS = {
    "==": pb.EQUAL,
    "!=": pb.NOT_EQUAL,
    "<": pb.LESS,
    "<=": pb.LESS_EQUAL,
    ">": pb.GREATER,
    ">=": pb.GREATER_EQUAL,
    "&&": pb.AND,
    "||": pb.OR,
    "!": pb.NOT,
    "|": pb.DEFAULT,
    "+": pb.ADD,
    "conditional": pb.CONDITIONAL,
    "conditionalString": pb.CONDITIONAL,
    "size": pb.SIZE,
    "match": pb.MATCH,
    "matches": pb.MATCHES,
    "startsWith": pb.STARTS_WITH,
    "endsWith": pb.ENDS_WITH,
    "ip": pb.IP,
    "timestamp": pb.TO_TIMESTAMP,
    "dnsName": pb.TO_DNS_NAME,
    "email": pb.EMAIL,
    "uri": pb.TO_URI,
    "toLower": pb.TO_LOWER,
    "emptyStringMap": pb.EMPTY_STRING_MAP,
}
_CHAINS = frozenset({"&&", "||", "|", "+"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Nodes:
    """The tables of a policy that grow while expressions are added to it: words, attributes and nodes."""

    def __init__(self, policy: pb.Policy) -> None:
        self._policy = policy
        self._words: dict[str, int] = {}
        self._attributes: dict[str, int] = {}
        self._nodes: dict[bytes, int] = {}

    def word(self, text: str) -> int:
        """Index of `text` in words."""
        index = self._words.setdefault(text, len(self._words))
        if index == len(self._policy.words):
            self._policy.words.append(text)
        return index

    def attribute(self, attribute: Attribute) -> int:
        """Index of the attribute."""
        index = self._attributes.setdefault(attribute.name, len(self._attributes))
        if index == len(self._policy.attributes):
            self._policy.attributes.add(name=self.word(attribute.name), type=attribute.type.value)
        return index

    def add(self, expression: Expression) -> int:
        """Index of the node that yields the expression's value."""
        match expression:
            case Constant():
                return self._node(pb.Node(operation=pb.CONSTANT, constant=self._constant(expression)))
            case Attribute():
                return self._node(pb.Node(operation=pb.ATTRIBUTE, attribute=self.attribute(expression)))
            case Lookup():
                arguments = [self.add(expression.map), self.add(expression.key)]
                return self._node(pb.Node(operation=pb.INDEX, arguments=arguments))
            case Apply():
                operation = _OPERATIONS[expression.function]
                arguments = [self.add(argument) for argument in expression.arguments]
                if expression.function in _CHAINS:
                    return self._chain(operation, arguments)
                return self._node(pb.Node(operation=operation, arguments=arguments))

    def _chain(self, operation: pb.Operation, arguments: Sequence[int]) -> int:
        """Pair up a chain as a balanced tree: same result and same order of reading, but a depth that stays small."""
        if len(arguments) == 1:
            return arguments[0]
        half = (len(arguments) + 1) // 2
        pair = [self._chain(operation, arguments[:half]), self._chain(operation, arguments[half:])]
        return self._node(pb.Node(operation=operation, arguments=pair))

    def _node(self, node: pb.Node) -> int:
        key = node.SerializeToString(deterministic=True)
        index = self._nodes.setdefault(key, len(self._nodes))
        if index == len(self._policy.nodes):
            self._policy.nodes.append(node)
        return index

    def _constant(self, constant: Constant) -> pb.Constant:
        match constant.value:
            case bool() as value:
                return pb.Constant(bool_value=value)
            case int() as value if constant.type is ValueType.DURATION:
                return pb.Constant(duration_nanos=value)
            case int() as value:
                return pb.Constant(int64_value=value)
            case float() as value:
                return pb.Constant(double_value=value)
            case str() as value:
                return pb.Constant(word=self.word(value))
            case datetime() as value:
                return pb.Constant(timestamp_nanos=(value - _EPOCH) // timedelta(microseconds=1) * 1000)
            case IPv4Address() | IPv6Address() as value:
                return pb.Constant(ip_address=value.packed)
