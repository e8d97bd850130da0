"""What requests and answers look like: the OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic.alias_generators import to_camel

Document = dict[str, Any]
"""An object with apiVersion, kind, metadata and spec."""
Preview = Literal["none", "names", "text"]
Action = Literal["created", "changed", "unchanged", "deleted"]


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Key(_Model):
    """What an object is found by; in requests apiVersion may be left out, and namespace means default then."""

    api_version: str = ""
    kind: str
    namespace: str = ""
    name: str


class ExpectedObject(_Model):
    """Which revision changed an object last; 0: it doesn't exist."""

    object: Key
    revision: int = Field(ge=0)


class Terms(_Model):
    """On what terms a change is asked for."""

    dry_run: bool = Field(False, description="Judge it without doing it.")
    preview: Preview = Field("none", description="How much a dry run says of the resources that proxies would get.")
    message: str = Field("", max_length=1_000, description="Why; it is kept in the history.")
    accept_unvalidated: bool = Field(False, description="Go on although an owner can't be asked.")
    expected_revision: int | None = Field(None, ge=0, description="The newest revision, else 409 says who was faster.")
    expected_objects: list[ExpectedObject] = Field(default=[], max_length=10_000)


class Apply(Terms):
    """Objects to put, all or none."""

    objects: list[Document] = Field(min_length=1, max_length=10_000)


class Delete(Terms):
    """Objects to delete, all or none."""

    objects: list[Key] = Field(min_length=1, max_length=10_000)
    ignore_missing: bool = Field(False, description="What isn't there is no fault.")


class Rollback(Terms):
    """The state to make again."""

    revision: int = Field(ge=0)


class Result(_Model):
    """What happened to an object."""

    object: Key
    action: Action


class Warning(_Model):
    """Accepted, but probably not what was meant."""

    object: Key
    field: str
    message: str
    index: int


class Resource(_Model):
    """A resource that proxies would be sent, or told that it is gone."""

    type_url: str
    name: str
    action: Action
    proxies: int
    diff: str


class Outcome(_Model):
    """What a request did."""

    revision: int = Field(description="Holds the change; the newest where nothing was changed.")
    results: list[Result]
    warnings: list[Warning]
    resources: list[Resource] = Field(description="What a dry run's preview found.")
    resources_left_out: bool


class Item(_Model):
    """An object in force, and the revision that changed it last."""

    revision: int
    object: Document


class Items(_Model):
    """A page of objects; begin again when `revision` differs between two pages."""

    revision: int
    items: list[Item]
    next: str = Field(description="`after` of the next page; empty: this is the last.")


class Change(_Model):
    """What a revision did to an object."""

    object: Key
    action: Action


class Revision(_Model):
    """A revision of the history."""

    revision: int
    author: str
    time: str
    message: str
    changes: list[Change] = Field(description="1,000 at most.")
    changed: int


class History(_Model):
    """Revisions, the newest first."""

    revisions: list[Revision]
    floor: int = Field(description="The history goes back to the state of this revision.")
    head: int


class ObjectDiff(_Model):
    """How an object differs; null: it isn't there."""

    object: Key
    action: Action
    before: Document | None
    after: Document | None


class Diff(_Model):
    """How objects differ between two revisions."""

    older: int
    newer: int
    objects: list[ObjectDiff]
    next: Key | None = Field(description="The last object of this page, when there are more.")


class Proxy(_Model):
    """A connected proxy."""

    node_id: str
    spiffe_id: str
    acknowledged_revision: int
    error: str
    manager: str


class Proxies(_Model):
    """All connected proxies; those of managers that are `unreachable` are missing."""

    revision: int
    proxies: list[Proxy]
    unreachable: list[str]


class Condition(_Model):
    """One statement about an object."""

    type: str
    status: bool | None
    reason: str
    message: str


class Conditions(_Model):
    """What is in force of an object; `revision` changed it last (0: it doesn't exist)."""

    revision: int
    conditions: list[Condition]


class Problem(pydantic.BaseModel):
    """RFC 9457, with our members; `violations` are of objects that were judged and refused."""

    type: str
    title: str
    status: int
    detail: str
    field: str = ""
    remedy: str = ""
    violations: Annotated[list[Warning], Field(default=[])]
