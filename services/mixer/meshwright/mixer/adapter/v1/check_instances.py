"""Instances that decide a request: the templates of varieties CHECK, QUOTA and ATTRIBUTE_GENERATOR, evaluated.

`instance` is the instance's name in configuration, `name.namespace`. Text that an instance doesn't set is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from meshwright.mixer.adapter.v1.values import Value

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckNothing:
    """Template checknothing: no data."""

    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEntry:
    """Template listentry: the value to be looked up."""

    instance: str
    value: str | Address = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who wants to act."""

    user: str = ""
    groups: str = ""
    properties: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What the subject wants to do."""

    namespace: str = ""
    service: str = ""
    method: str = ""
    path: str = ""
    properties: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Template authorization: may the subject do the action?"""

    instance: str
    subject: Subject = field(default_factory=Subject)
    action: Action = field(default_factory=Action)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """Template apikey: a caller's key for an operation of an API."""

    instance: str
    api: str = ""
    api_version: str = ""
    api_operation: str = ""
    api_key: str = field(default="", repr=False)
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Template quota: what is counted apart."""

    instance: str
    dimensions: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes:
    """Template kubernetes: the two ends of a connection whose pods are sought."""

    instance: str
    source_uid: str = ""
    source_ip: Address | None = None
    destination_uid: str = ""
    destination_ip: Address | None = None
    destination_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generic:
    """An instance of a template that was added by its descriptor; fields of messages and maps are `name.KEY`."""

    instance: str
    template: str
    fields: Mapping[str, Value] = field(default_factory=dict)
