"""config.istio.io/v1alpha2 EgressRule: a host outside of the mesh that workloads may call.

One decision to know: an `https` port is called in plain HTTP (``http://host:443``), and the proxy makes it HTTPS; that
is what the word meant in 2017. `use_egress_proxy`, announced then, sends the requests through the proxies labelled
``istio: egress``.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from meshwright.manager.classic.message import Message
from meshwright.manager.model.document import Document, FieldError, PortNumber
from meshwright.manager.model.domain import service_of

_DOMAIN = re.compile(r"\*|(\*[-.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class EgressDestination(Message):
    """`service` is a domain: ``api.example.com``, ``*.example.com``, ``*-eu.example.com`` or ``*``."""

    service: Annotated[str, Field(max_length=253)]

    @model_validator(mode="after")
    def _domain(self) -> Self:
        text = self.service
        if not _DOMAIN.fullmatch(text):
            raise ValueError(
                f"service {text!r} isn't a domain: write one such as api.example.com, *.example.com or *-eu.example.com"
            )
        if service_of(text):
            raise ValueError(f"service {text} is one of the mesh, which needs no rule to be called")
        return self


class EgressPort(Message):
    """A port of the host, and what it speaks."""

    port: PortNumber
    protocol: Literal["http", "https", "http2", "grpc"]


class EgressRuleSpec(Message):
    """The host and its ports."""

    destination: EgressDestination
    ports: Annotated[list[EgressPort], Field(min_length=1, max_length=64)]
    use_egress_proxy: bool = False


class EgressRule(Document):
    """A host outside of the mesh."""

    spec: EgressRuleSpec

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        numbers = [port.port for port in self.spec.ports]
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        if twice:
            raise FieldError("spec.ports", f"port {twice[0]} is there twice: give it one protocol")
        return self
