"""What a template is: the fields that an instance fills with expressions, and what adapters may answer.

One decision to know: fields are declared once, under the original's names in snake case; the model of an
instance's `params`, the flat names that the engine and adapters use (`subject.properties.KEY`), and the SDK's classes
all follow from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, create_model
from pydantic.alias_generators import to_camel

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.config.fields import ExpressionText, Model, OptionalExpression


class Variety(Enum):
    """When instances are evaluated, and what becomes of the adapter's answer."""

    CHECK = "check"  # before the request: it may deny
    QUOTA = "quota"  # before the request, for the quotas that the caller asks for
    REPORT = "report"  # afterwards, with the record
    ATTRIBUTE_GENERATOR = "attribute generator"  # before everything else: its output becomes attributes
    CHECK_WITH_OUTPUT = "check with output"  # as check; the output can be used in header operations


SCALAR = frozenset(ValueType) - {ValueType.STRING_MAP}
ANY = frozenset(ValueType)

_MAX_ENTRIES = 256


@dataclass(frozen=True, slots=True)
class FieldType:
    """One field of a template; `name` is the proto field's, with dots for fields of nested messages.

    A `many` field is a map whose keys the instance chooses: each entry is handed out as `name.KEY`. The types are those
    that the expression may yield; where there is one only, adapters get that type, else a value of any.
    """

    name: str
    types: frozenset[ValueType]
    many: bool = False
    required: bool = False

    @property
    def path(self) -> tuple[str, ...]:
        """Where the field stands in `params`, as people write it."""
        return tuple(to_camel(part) for part in self.name.split("."))


def one(name: str, *types: ValueType, required: bool = False) -> FieldType:
    """A field with one expression of one of `types`; none given: of any type."""
    return FieldType(name, frozenset(types) or ANY, required=required)


def text(*names: str) -> tuple[FieldType, ...]:
    """Fields of type STRING."""
    return tuple(one(name, ValueType.STRING) for name in names)


def many(name: str, types: frozenset[ValueType] = ANY) -> FieldType:
    """A map from names to expressions."""
    return FieldType(name, types, many=True)


@dataclass(frozen=True, slots=True)
class TemplateField:
    """One expression of an instance: `name` as the engine and adapters know it, `path` where it stands in `params`."""

    name: str
    path: tuple[str | int, ...]
    source: str
    types: frozenset[ValueType]


@dataclass(frozen=True)
class Template:
    """`name` is what instances give as `compiledTemplate`, `schema` its fields in the proto's order.

    `outputs` are the fields of what an adapter answers beside its verdict (attribute generators, checks with output).
    """

    name: str
    variety: Variety
    schema: tuple[FieldType, ...] = ()
    outputs: Mapping[str, ValueType] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def parameters(self) -> type[Model]:
        """The model of an instance's `params`."""
        return _model(to_camel(self.name).title(), self.schema)

    def fields(self, parameters: Model) -> list[TemplateField]:
        """The expressions of parameters that `parameters` has accepted, in the order of the schema and of map keys."""
        return list(self._fields(parameters))

    def _fields(self, parameters: Model) -> Iterator[TemplateField]:
        for each in self.schema:
            found: Any = parameters
            for part in each.name.split("."):
                found = getattr(found, part, None)
            if found is None:
                continue
            if not each.many:
                yield TemplateField(each.name, each.path, found, each.types)
                continue
            for key in sorted(found):
                yield TemplateField(f"{each.name}.{key}", (*each.path, key), found[key], each.types)


def _model(name: str, schema: tuple[FieldType, ...]) -> type[Model]:
    """Build the model of a message; fields with a dot belong to nested ones."""
    members: dict[str, Any] = {}
    for each in schema:
        head, dot, _ = each.name.partition(".")
        if dot:
            inner = tuple(
                FieldType(other.name.removeprefix(f"{head}."), other.types, other.many, other.required)
                for other in schema
                if other.name.startswith(f"{head}.")
            )
            model = _model(f"{name}{head.title()}", inner)
            members[head] = (model, Field(default_factory=model))
        elif each.many:
            entries = Annotated[dict[str, ExpressionText], Field(max_length=_MAX_ENTRIES)]
            members[head] = (entries, Field(default_factory=dict))
        elif each.required:
            members[head] = (ExpressionText, ...)
        else:
            members[head] = (OptionalExpression, None)
    return create_model(name, __base__=Model, **members)
