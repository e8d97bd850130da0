"""A hand-written precedence parser, bounded in depth and number of nodes: expressions come from users.

Precedence is Go's: `||` < `&&` < comparisons < `|` and `+`; so `a | "x" == "y"` compares the default's result.
"""

from __future__ import annotations

from meshwright.mixer.cexl.cursor import MAX_DEPTH, Cursor
from meshwright.mixer.cexl.lexer import tokenize
from meshwright.mixer.cexl.syntax import Call, Index, Literal, Name, Node, Operation
from meshwright.mixer.cexl.tokens import Token

MAX_NODES = 1024

_PRECEDENCE = {"||": 1, "&&": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "|": 4, "+": 4}
_COMPARISON = 3
_INT64 = 2**63


def parse(source: str) -> Node:
    """The syntax tree of `source`, or ExpressionError."""
    parser = _Parser(source, tokenize(source), max_nodes=MAX_NODES, nests="brackets and calls")
    return parser.whole(parser.expression)


class _Parser(Cursor):
    def expression(self) -> Node:
        return self.binary(1)

    def binary(self, floor: int) -> Node:
        left = self.unary()
        compared = False
        while self.token.kind == "operator" and _PRECEDENCE.get(self.token.text, 0) >= floor:
            token = self.take()
            self.count(token)
            precedence = _PRECEDENCE[token.text]
            if precedence == _COMPARISON and compared and token.text not in ("==", "!="):
                raise self.error(token, "chained comparison", "join two comparisons with `&&`")
            compared = precedence == _COMPARISON
            right = self.binary(precedence + 1)
            if not compared and isinstance(left, Operation) and left.operator == token.text:
                left = Operation(token.text, (*left.operands, right), left.position)
            else:
                left = Operation(token.text, (left, right), token.position)
        return left

    def unary(self) -> Node:
        token = self.token
        if self.at("!"):
            self.take()
            self.count(token)
            with self.nested(token):
                return Operation("!", (self.unary(),), token.position)
        if self.at("-"):
            self.take()
            if self.token.kind != "number":
                raise self.error(token, "`-` before something that isn't a number", "CEXL has no subtraction")
            return self.number(token, self.take().text, negative=True)
        return self.postfix(self.primary())

    def primary(self) -> Node:
        token = self.take()
        self.count(token)
        match token.kind:
            case "text":
                return Literal(token.text, token.position)
            case "number":
                return self.number(token, token.text, negative=False)
            case "name" if token.text in ("true", "false"):
                return Literal(token.text == "true", token.position)
            case "name":
                return self.name_or_call(token)
            case "operator" if token.text == "(":
                with self.nested(token):
                    node = self.expression()
                self.expect(")", "the bracketed part")
                return node
            case "end":
                raise self.error(token, "the expression ends too early", "complete it")
            case _:
                raise self.error(token, f"unexpected `{token.text}`", "write an attribute, literal or function here")

    def number(self, token: Token, text: str, *, negative: bool) -> Literal:
        sign = -1 if negative else 1
        if not text.isdecimal():
            value = sign * float(text)
            if value in (float("inf"), float("-inf")):
                raise self.error(token, "number too large", "a DOUBLE reaches about 1.8e308")
            return Literal(value, token.position)
        if len(text) > 19 or not -_INT64 <= sign * int(text) < _INT64:
            raise self.error(token, "number too large", "an INT64 has 64 bits; write a DOUBLE as 1e20")
        return Literal(sign * int(text), token.position)

    def name_or_call(self, first: Token) -> Node:
        if self.at("("):
            return Call(first.text, self.arguments(first), None, first.position)
        parts = [first.text]
        while self.at("."):
            self.take()
            part = self.take()
            if part.kind != "name":
                raise self.error(part, "a name is missing after `.`", "write the attribute's full name")
            if self.at("("):
                receiver = Name(".".join(parts), first.position)
                return Call(part.text, self.arguments(part), receiver, part.position)
            parts.append(part.text)
        return Name(".".join(parts), first.position)

    def postfix(self, node: Node) -> Node:
        steps = 0
        while self.at("[") or self.at("."):
            token = self.take()
            self.count(token)
            steps += 1
            if steps > MAX_DEPTH:
                raise self.error(token, "calls chained too deep", f"chain {MAX_DEPTH} at most")
            if token.text == "[":
                with self.nested(token):
                    key = self.expression()
                self.expect("]", "the key")
                node = Index(node, key, token.position)
            else:
                function = self.take()
                if function.kind != "name" or not self.at("("):
                    raise self.error(function, "a function call is missing after `.`", "for example `.startsWith(…)`")
                node = Call(function.text, self.arguments(function), node, function.position)
        return node

    def arguments(self, function: Token) -> tuple[Node, ...]:
        self.expect("(", f"`{function.text}`")
        return self.listed(function, ")", self.expression)
