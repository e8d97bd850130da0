"""Turns typed expressions into the node list of a compiled policy: equal parts become one node, operands come first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.cexl.typed import Apply, Attribute, Constant, Expression, Lookup, Output
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
    "cel&&": pb.CEL_AND,
    "cel||": pb.CEL_OR,
    "has": pb.HAS,
    "default": pb.OTHERWISE,
    "in": pb.IN,
    "contains": pb.CONTAINS,
    "checked+": pb.CHECKED_ADD,
    "-": pb.SUBTRACT,
    "*": pb.MULTIPLY,
    "/": pb.DIVIDE,
    "%": pb.MODULO,
    "negate": pb.NEGATE,
    "length": pb.LENGTH,
    "int": pb.TO_INT64,
    "double": pb.TO_DOUBLE,
    "string": pb.TO_STRING,
    "duration": pb.TO_DURATION,
    "lowerAscii": pb.LOWER_ASCII,
    "within": pb.WITHIN,
}
FORMAT = 1
"""Of compiled policies."""
_CHAINS = frozenset({"&&", "||", "|", "+", "cel&&", "cel||"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAR = timedelta(days=106_000)  # what nanoseconds in 64 bits reach; moments beyond are read from text


class Nodes:
    """The tables of a policy that grow while expressions are added to it: words, attributes and nodes.

    They may outlive a policy: what is in them keeps its index, and what no expression uses any more does no harm.
    """

    def __init__(self) -> None:
        self._tables = pb.Policy()
        self._words: dict[str, int] = {}
        self._attributes: dict[str, int] = {}
        self._outputs: dict[Output, int] = {}
        self._nodes: dict[bytes, int] = {}
        self._expressions: dict[int, tuple[Expression, int]] = {}  # by identity: hashing a tree would walk it
        self._serialized = b""
        self.arguments: list[Sequence[int]] = []

    def __len__(self) -> int:
        """How much is kept: nodes, and expressions that were added."""
        return len(self.arguments) + len(self._expressions)

    def serialize(self) -> bytes:
        """The tables as the beginning of a serialized policy: what follows is added to them."""
        if not self._serialized:
            self._serialized = self._tables.SerializeToString()
        return self._serialized

    def patterns(self) -> Iterator[tuple[int, bytes]]:
        """Every regular expression's node, with a policy that holds it alone, as its second node."""
        for index, node in enumerate(self._tables.nodes):
            if node.operation == pb.MATCHES:
                pattern = self._tables.nodes[node.arguments[0]].constant.word
                alone = pb.Policy(format=FORMAT, words=[self._tables.words[pattern]])
                alone.nodes.add(operation=pb.CONSTANT, constant=pb.Constant(word=0))
                alone.nodes.add(operation=pb.MATCHES, arguments=[0, 0])
                yield index, alone.SerializeToString()

    def word(self, text: str) -> int:
        """Index of `text` in words."""
        index = self._words.setdefault(text, len(self._words))
        if index == len(self._tables.words):
            self._tables.words.append(text)
            self._serialized = b""
        return index

    def attribute(self, attribute: Attribute) -> int:
        """Index of the attribute."""
        index = self._attributes.setdefault(attribute.name, len(self._attributes))
        if index == len(self._tables.attributes):
            self._tables.attributes.add(name=self.word(attribute.name), type=attribute.type.value)
            self._serialized = b""
        return index

    def output(self, output: Output) -> int:
        """Index of the output."""
        index = self._outputs.setdefault(output, len(self._outputs))
        if index == len(self._tables.outputs):
            self._tables.outputs.add(field=output.field, type=output.type.value)
            self._serialized = b""
        return index

    def add(self, expression: Expression) -> int:
        """Index of the node that yields the expression's value."""
        known = self._expressions.get(id(expression))
        if known is None:
            known = self._expressions[id(expression)] = (expression, self._add(expression))
        return known[1]

    def _add(self, expression: Expression) -> int:
        match expression:
            case Constant(value=datetime() as moment) if not -_FAR < moment - _EPOCH < _FAR:
                text = Constant(ValueType.STRING, moment.isoformat())
                return self._node(pb.Node(operation=pb.TO_TIMESTAMP, arguments=[self._add(text)]))
            case Constant():
                return self._node(pb.Node(operation=pb.CONSTANT, constant=self._constant(expression)))
            case Attribute():
                return self._node(pb.Node(operation=pb.ATTRIBUTE, attribute=self.attribute(expression)))
            case Output():
                return self._node(pb.Node(operation=pb.OUTPUT, output=self.output(expression)))
            case Lookup():
                arguments = [self._add(expression.map), self._add(expression.key)]
                return self._node(pb.Node(operation=pb.INDEX, arguments=arguments))
            case Apply():
                operation = _OPERATIONS[expression.function]
                arguments = [self._add(argument) for argument in expression.arguments]
                if expression.function in _CHAINS:
                    if expression.type is ValueType.DOUBLE and operation == pb.ADD:
                        return self._left(operation, arguments)
                    return self._chain(operation, arguments)
                return self._node(pb.Node(operation=operation, arguments=arguments))

    def _chain(self, operation: pb.Operation, arguments: Sequence[int]) -> int:
        """Pair up a chain as a balanced tree: same result and same order of reading, but a depth that stays small."""
        if len(arguments) == 1:
            return arguments[0]
        half = (len(arguments) + 1) // 2
        pair = [self._chain(operation, arguments[:half]), self._chain(operation, arguments[half:])]
        return self._node(pb.Node(operation=operation, arguments=pair))

    def _left(self, operation: pb.Operation, arguments: Sequence[int]) -> int:
        """Pair up a chain from the left, as rounding makes another sum of another order."""
        result = arguments[0]
        for argument in arguments[1:]:
            result = self._node(pb.Node(operation=operation, arguments=[result, argument]))
        return result

    def _node(self, node: pb.Node) -> int:
        key = node.SerializeToString(deterministic=True)
        index = self._nodes.setdefault(key, len(self._nodes))
        if index == len(self.arguments):
            self._tables.nodes.append(node)
            self.arguments.append(tuple(node.arguments))
            self._serialized = b""
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
