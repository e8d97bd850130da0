"""YAML as configuration needs it: a stream of documents whose values are what JSON can carry.

One decision to know: values are built from the parser's events, without recursion and while size, depth and aliases are
counted, so that no input costs more than its limits allow. Plain scalars follow YAML 1.2's core schema (`yes` and
`12:30` are text), and what people misread (`0644`, merge keys, tags) is refused instead of guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from meshwright.core.config.errors import DocumentError
from meshwright.core.config.json_text import MAX_INTEGER, MIN_INTEGER
from meshwright.core.config.limits import Limits, size

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML can be built without libyaml

_BOUNDARY = re.compile(rb"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)  # nothing else may begin a line so
_CONTENT = re.compile(rb"^[ \t]*(?!\.\.\.|[#%\s])\S", re.MULTILINE)  # more than comments and directives
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_JSON = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TAG = "tag:yaml.org,2002:"


@dataclass(slots=True)
class _Open:
    """A collection that isn't closed yet, and where the weight of its document stood when it began."""

    value: Any
    anchor: str | None
    nodes: int
    characters: int
    key: str | None = None
    height: int = 1  # levels of collections in it, itself included


@dataclass(slots=True)
class _Document:
    """The state of one document while its events come."""

    source: str
    limits: Limits
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int, int, int]] = field(default_factory=dict)  # value, nodes, characters, height
    nodes: int = 0
    characters: int = 0
    root: Any = None


def parse(data: bytes, name: str, limits: Limits) -> Iterator[tuple[str, int, Any]]:
    """Yield (source, line, value) of each document in `data`; empty documents are counted but not yielded.

    DocumentError is the only exception, whatever the bytes are.
    """
    _check_sizes(data, name, limits)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError("not UTF-8 text", source=name, line=line, remedy="save the file as UTF-8") from error
    number, document, begun = 0, _Document(name, limits), 1
    try:
        events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        for event in events:
            match event:
                case yaml.DocumentStartEvent():
                    number += 1
                    if number > limits.documents:
                        raise DocumentError(f"more than {limits.documents} documents", source=name, remedy="split it")
                    document, begun = _Document(f"{name}#{number}", limits), 0
                case yaml.DocumentEndEvent():
                    if document.root is not None:
                        yield document.source, begun, document.root
                case yaml.StreamStartEvent() | yaml.StreamEndEvent():
                    pass
                case _:
                    begun = begun or event.start_mark.line + 1
                    _take(document, event)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, f"{name}#{max(number, 1)}") from error


def _check_sizes(data: bytes, name: str, limits: Limits) -> None:
    begin, number = 0, 1
    for end in [*(match.start() for match in _BOUNDARY.finditer(data)), len(data)]:
        if end - begin > limits.document_bytes:
            raise DocumentError(
                f"the document has {size(end - begin)}; at most {size(limits.document_bytes)} are taken",
                source=f"{name}#{number}",
                line=data.count(b"\n", 0, begin) + 1,
                remedy="split it into several documents",
            )
        number += data.startswith(b"---", begin) or bool(_CONTENT.search(data, begin, end))
        begin = end


def _syntax_error(error: yaml.YAMLError, text: str, source: str) -> DocumentError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    # A character that YAML doesn't allow comes without a mark: only its position is known.
    line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0) or 0) + 1
    parts = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    reason = ", ".join(str(part) for part in parts if part) or "can't be read"
    return DocumentError(f"not YAML: {reason}", source=source, line=min(line, text.count("\n") + 1))


def _take(document: _Document, event: Any) -> None:
    line = event.start_mark.line + 1
    match event:
        case yaml.ScalarEvent():
            in_map = document.stack and isinstance(document.stack[-1].value, dict)
            if in_map and document.stack[-1].key is None:
                _weigh(document, 0, len(event.value), line)
                _take_key(document, event, line)
                return
            _weigh(document, 1, len(event.value), line)
            value = _scalar(document, event, line)
            if event.anchor:
                document.anchors[event.anchor] = (value, 1, len(event.value), 0)
            _place(document, value, 0)
        case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
            is_map = isinstance(event, yaml.MappingStartEvent)
            _check_tag(document, event, "map" if is_map else "seq", line)
            _weigh(document, 1, 0, line)
            _deepen(document, 1, line)
            _refuse_as_key(document, line)
            document.anchors.pop(
                event.anchor or "", None
            )  # an anchor that is used again means its new value from here on
            document.stack.append(_Open({} if is_map else [], event.anchor, document.nodes, document.characters))
        case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
            closed = document.stack.pop()
            if closed.anchor:
                document.anchors[closed.anchor] = (
                    closed.value,
                    document.nodes - closed.nodes + 1,
                    document.characters - closed.characters,
                    closed.height,
                )
            _place(document, closed.value, closed.height)
        case yaml.AliasEvent():
            _refuse_as_key(document, line)
            anchor = event.anchor or ""
            if anchor not in document.anchors:
                raise _fault(document, f"*{anchor[:100]} refers to nothing before it", line)
            value, nodes, characters, height = document.anchors[anchor]
            _weigh(document, nodes, characters, line)
            _deepen(document, height, line)
            _place(document, value, height)


def _weigh(document: _Document, nodes: int, characters: int, line: int) -> None:
    document.nodes += nodes
    document.characters += characters
    if document.nodes > document.limits.nodes:
        raise _fault(document, f"more than {document.limits.nodes} values", line, "split it into several documents")
    if document.characters > document.limits.document_bytes:
        raise _fault(
            document, f"aliases expand to more than {size(document.limits.document_bytes)}", line, "write less of it"
        )


def _deepen(document: _Document, levels: int, line: int) -> None:
    if len(document.stack) + levels > document.limits.depth:
        raise _fault(document, f"nested deeper than {document.limits.depth} levels", line)


def _check_tag(document: _Document, event: Any, standard: str, line: int) -> None:
    if event.tag not in (None, "!", f"{_TAG}{standard}"):
        raise _fault(document, f"the tag {event.tag[:100]} isn't taken", line, "leave it out")


def _refuse_as_key(document: _Document, line: int) -> None:
    if document.stack and isinstance(document.stack[-1].value, dict) and document.stack[-1].key is None:
        raise _fault(document, "a key must be plain text", line)


def _take_key(document: _Document, event: Any, line: int) -> None:
    key, above = event.value, document.stack[-1]
    if event.implicit[0] and key in _WORDS and _WORDS[key] is None:
        raise _fault(document, f"{key or 'nothing'} can't be a key", line, "put it in quotation marks")
    if key == "<<" and event.implicit[0]:
        raise _fault(document, "merge keys (<<) aren't taken", line, "write the fields out")
    _check_tag(document, event, "str", line)
    if key in above.value:
        raise _fault(
            document,
            f"the key {key[:100]!r} occurs twice in one map",
            line,
            "keep one",
            f"{_path(document)}{key[:100]}",
        )
    if event.anchor:
        document.anchors[event.anchor] = (key, 1, len(key), 1)
    above.key = key


def _place(document: _Document, value: Any, height: int) -> None:
    if not document.stack:
        document.root = value
        return
    above = document.stack[-1]
    above.height = max(above.height, height + 1)
    if isinstance(above.value, list):
        above.value.append(value)
        return
    assert above.key is not None
    above.value[above.key], above.key = value, None


def _path(document: _Document) -> str:
    path = ""
    for open_ in document.stack[:-1]:
        path += f"[{len(open_.value)}]" if isinstance(open_.value, list) else f".{(open_.key or '')[:100]}"
    path = path.lstrip(".")
    return f"{path}." if path else ""


def _scalar(document: _Document, event: Any, line: int) -> Any:
    text: str = event.value
    _check_tag(document, event, "str", line)
    if event.tag or not event.implicit[0]:  # said to be text, quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _DECIMAL.fullmatch(text):
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0":
            raise _fault(
                document, f"{text[:30]} can be read as octal or decimal", line, f'write "{text[:30]}" if it is text'
            )
        return _integer(document, text, 10, line)
    if _BASED.fullmatch(text):
        return _integer(document, text[2:], 8 if text[1] == "o" else 16, line)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise _fault(document, f"the number {text[:30]} is too large", line)
        return number
    if _NOT_JSON.fullmatch(text):
        raise _fault(document, f"{text} isn't a number that JSON knows", line, f'write "{text}" if it is text')
    return text


def _integer(document: _Document, digits: str, base: int, line: int) -> int:
    if len(digits) <= 32:
        number = int(digits, base)
        if MIN_INTEGER <= number <= MAX_INTEGER:
            return number
    raise _fault(document, f"the number {digits[:30]} doesn't fit 64 bits", line)


def _fault(document: _Document, message: str, line: int, remedy: str = "", path: str = "") -> DocumentError:
    return DocumentError(message, source=document.source, line=line, field=path, remedy=remedy)
