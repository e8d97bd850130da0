"""Which requests and connections a RouteRule or IngressRule is for (MatchCondition)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from meshwright.manager.classic.message import Caller, HttpHeaders, Message
from meshwright.manager.model.document import FieldError
from meshwright.manager.model.headers import header_name
from meshwright.manager.model.subnet import Subnet

PSEUDO = ("uri", "scheme", "method", "authority")
"""Names in `request.headers` that mean parts of the request line."""


Subnets = Annotated[list[Subnet], Field(max_length=64)]


class L4MatchAttributes(Message):
    """Conditions on a connection's two addresses, all that are given must fit, any entry of one."""

    source_subnet: Subnets = Field(default_factory=list)
    destination_subnet: Subnets = Field(default_factory=list)


class MatchRequest(Message):
    """Conditions on headers; ``uri``, ``scheme``, ``method`` and ``authority`` are parts of the first line."""

    headers: HttpHeaders = Field(default_factory=dict)

    @model_validator(mode="after")
    def _headers(self) -> MatchRequest:
        for name, match in self.headers.items():
            header_name(name)
            if name == "uri" and "" in (match.exact, match.prefix, match.regex):
                raise ValueError("headers.uri compares with nothing: write the path, at least '/'")
        return self


class MatchCondition(Message):
    """All that is given must fit."""

    source: Caller | None = None
    tcp: L4MatchAttributes | None = None
    udp: Any = None
    request: MatchRequest | None = None

    @model_validator(mode="after")
    def _protocols(self) -> MatchCondition:
        if self.udp is not None:
            raise ValueError(
                "udp can't be matched: proxies take TCP only, and UDP goes its way without them; remove it"
            )
        if self.tcp is not None and self.request is not None:
            raise ValueError("has tcp and request: connections have no headers, write one rule for each")
        return self


def no_labels(field: str, labels: dict[str, str]) -> None:
    """Raise FieldError when a rule's own destination has labels: its routes have them."""
    if labels:
        raise FieldError(field, "a rule is for the whole service: put the labels into its route's entries")
