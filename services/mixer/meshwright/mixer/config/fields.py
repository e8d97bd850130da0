"""Field types that several models share: durations, expressions and the base of all models of configuration."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from meshwright.mixer.cexl.durations import parse_duration


class Model(BaseModel):
    """Part of a document: fields in camelCase as Istio writes them, nothing unknown, nothing converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True)


def _duration(value: Any) -> int:
    nanoseconds = parse_duration(value) if isinstance(value, str) else None
    if nanoseconds is None or nanoseconds < 0:
        raise ValueError('not a duration: write for example "5s" or "250ms"')
    return nanoseconds


def _expression(value: Any) -> Any:
    """YAML reads `value: 1` as a number and `value: true` as a truth value; both are CEXL literals as well."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _some_text(value: str) -> str:
    if not value.strip():
        raise ValueError("empty: write an expression, or leave the field out")
    return value


def _text_or_none(value: Any) -> Any:
    value = _expression(value)
    return None if isinstance(value, str) and not value.strip() else value


Nanoseconds = Annotated[int, BeforeValidator(_duration)]
"""A duration, written as "5s"; kept in nanoseconds."""

ExpressionText = Annotated[str, BeforeValidator(_expression), AfterValidator(_some_text)]
"""An expression of CEXL as it was written; it is compiled with the rest of the policy."""

OptionalExpression = Annotated[str | None, BeforeValidator(_text_or_none)]
"""As before, but empty text counts as left out: so it does in the original."""

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
