"""A hand-written precedence parser for CEL, bounded in depth and number of nodes: expressions come from users.

From loosest to tightest: `?:`, `||`, `&&`, comparisons and `in`, `+ -`, `* / %`, `! -`, `. [] ()`.
"""

from __future__ import annotations

from meshwright.mixer.cel.lexer import RESERVED, tokenize
from meshwright.mixer.cel.syntax import Call, Identifier, Index, ListLiteral, Literal, Node, Operation, Select
from meshwright.mixer.cexl.cursor import MAX_DEPTH, Cursor
from meshwright.mixer.cexl.tokens import Token

MAX_NODES = 8192

_PRECEDENCE = {
    "||": 1, "&&": 2,
    "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3,
    "+": 4, "-": 4, "*": 5, "/": 5, "%": 5,
}  # fmt: skip
_FLAT = ("||", "&&")
_INT64 = 2**63


def parse(source: str) -> Node:
    """The syntax tree of `source`, or ExpressionError."""
    parser = _Parser(source, tokenize(source), max_nodes=MAX_NODES, nests="brackets, calls and conditions")
    return parser.whole(parser.expression)


class _Parser(Cursor):
    def expression(self) -> Node:
        condition = self.binary(1)
        if not self.at("?"):
            return condition
        token = self.take()
        self.count(token)
        with self.nested(token):
            yes = self.binary(1)
            self.expect(":", "what holds when the condition is true")
            no = self.expression()
        return Operation("?:", (condition, yes, no), token.position)

    def operator(self) -> str:
        """The binary operator that comes next, or nothing."""
        is_operator = self.token.kind == "operator" or (self.token.kind == "name" and self.token.text == "in")
        return self.token.text if is_operator and self.token.text in _PRECEDENCE else ""

    def binary(self, floor: int) -> Node:
        left = self.unary()
        chained = 0
        while (operator := self.operator()) and _PRECEDENCE[operator] >= floor:
            token = self.take()
            self.count(token)
            right = self.binary(_PRECEDENCE[operator] + 1)
            if operator in _FLAT and isinstance(left, Operation) and left.operator == operator and chained:
                left = Operation(operator, (*left.operands, right), left.position)
                continue
            chained += 1
            if chained > MAX_DEPTH:
                raise self.error(token, f"more than {MAX_DEPTH} operators in a row", "group them with brackets")
            left = Operation(operator, (left, right), token.position)
        return left

    def unary(self) -> Node:
        token = self.token
        if self.at("!") or self.at("-"):
            self.take()
            self.count(token)
            if token.text == "-" and self.token.kind == "number":
                return self.members(self.number(token, self.take().text, negative=True))
            with self.nested(token):
                return Operation(token.text, (self.unary(),), token.position)
        return self.members(self.primary())

    def primary(self) -> Node:
        token = self.take()
        self.count(token)
        match token.kind:
            case "text":
                return Literal(token.text, token.position)
            case "number":
                return self.number(token, token.text, negative=False)
            case "name":
                return self.named(token)
            case "operator" if token.text == "(":
                with self.nested(token):
                    node = self.expression()
                self.expect(")", "the bracketed part")
                return node
            case "operator" if token.text == "[":
                return ListLiteral(self.listed(token, "]", self.expression), token.position)
            case "end":
                raise self.error(token, "the expression ends too early", "complete it")
            case _:
                raise self.error(token, f"unexpected `{token.text}`", "write an attribute, literal or function here")

    def named(self, token: Token) -> Node:
        if token.text in ("true", "false"):
            return Literal(token.text == "true", token.position)
        if token.text == "null":
            raise self.error(token, "`null`", "no attribute is ever null: ask has(attribute)")
        if token.text == "in" or token.text in RESERVED:
            raise self.error(
                token, f"`{token.text}` is a reserved word", "write an attribute, literal or function here"
            )
        if self.at("("):
            self.take()
            return Call(token.text, self.listed(token, ")", self.expression), None, token.position)
        return Identifier(token.text, token.position)

    def number(self, token: Token, text: str, *, negative: bool) -> Literal:
        sign = -1 if negative else 1
        if text[-1] in "uU":
            raise self.error(token, "an unsigned number", f"write {text[:-1]}: no attribute is unsigned")
        if text[:2] in ("0x", "0X"):
            whole = sign * int(text, 16)
        elif text.isdecimal():
            whole = sign * int(text) if len(text) <= 40 else _INT64
        else:
            value = sign * float(text)
            if value in (float("inf"), float("-inf")):
                raise self.error(token, "number too large", "a double reaches about 1.8e308")
            return Literal(value, token.position)
        if not -_INT64 <= whole < _INT64:
            raise self.error(token, "number too large", "an int has 64 bits; write a double as 1e20")
        return Literal(whole, token.position)

    def members(self, node: Node) -> Node:
        steps = 0
        while self.at("[") or self.at("."):
            token = self.take()
            self.count(token)
            steps += 1
            if steps > MAX_DEPTH:
                raise self.error(token, "chained too deep", f"chain {MAX_DEPTH} members at most")
            if token.text == "[":
                with self.nested(token):
                    key = self.expression()
                self.expect("]", "the key")
                node = Index(node, key, token.position)
                continue
            member = self.take()
            if member.kind != "name":
                raise self.error(member, "a name is missing after `.`", "write the attribute's full name")
            if self.at("("):
                self.take()
                node = Call(member.text, self.listed(member, ")", self.expression), node, member.position)
            else:
                node = Select(node, member.text, member.position)
        return node
