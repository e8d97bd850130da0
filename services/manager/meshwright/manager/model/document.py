"""What every kind's schema is built from: strict objects, names, labels, and the document around a spec.

One decision to know: unknown fields are refused everywhere and nothing is converted silently (`"80"` isn't 80), because
a misspelt or mistyped field of a mesh's configuration is found by its author now or by its users later.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

DEFAULT_NAMESPACE = "default"
MAX_LABELS = 64
MAX_ANNOTATION_BYTES = 256 * 1024


def dns_label(text: str) -> str:
    """Accept an RFC 1123 label: what names of objects, namespaces and service accounts must be."""
    if not _LABEL.fullmatch(text):
        raise ValueError(
            f"{text!r} isn't a valid name: use lower-case letters, digits and '-', 63 characters at most, "
            "beginning and ending with a letter or digit"
        )
    return text


def ip_address(text: str) -> str:
    """Accept the address of one machine, in its shortest spelling."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} isn't an IP address: write one such as 10.0.0.7 or fd00::7") from None
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{text} names no single machine: write the workload's own address")
    return str(address)


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise ValueError(f"{len(labels)} labels: at most {MAX_LABELS} are taken")
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"{key!r} isn't a valid label name: use letters, digits, '-', '_' and '.', with at most one '/'"
            )
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{value!r} isn't a valid label value: use up to 63 letters, digits, '-', '_' and '.'")
    return labels


def _annotations(annotations: dict[str, str]) -> dict[str, str]:
    size = sum(len(key) + len(value) for key, value in annotations.items())
    if size > MAX_ANNOTATION_BYTES:
        raise ValueError(f"{size} characters of annotations: at most {MAX_ANNOTATION_BYTES} are taken")
    for key in annotations:
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"{key!r} isn't a valid annotation name: use letters, digits, '-', '_', '.', with at most one '/'"
            )
    return annotations


Name = Annotated[str, AfterValidator(dns_label)]
Labels = Annotated[dict[str, str], AfterValidator(_labels)]
Annotations = Annotated[dict[str, str], AfterValidator(_annotations)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


class FieldError(ValueError):
    """A fault that a whole object shows, in a field that it can name."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


class Strict(BaseModel):
    """An object whose fields are all known and of exactly their types; YAML's camelCase becomes snake_case here."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=to_camel, populate_by_name=False
    )


class Metadata(Strict):
    """The part of an object's metadata that a person writes."""

    name: Name
    namespace: Name | None = None
    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)


class Document(Strict):
    """An object whose content isn't described further here; the schemas of kinds add `spec`."""

    api_version: str
    kind: str
    metadata: Metadata
