"""Where committed configuration lies in the store.

    /meshwright/config/head                                      the newest revision
    /meshwright/config/floor                                     the oldest revision whose whole state is still kept
    /meshwright/config/commits/<revision>                        which attempt made it, who, when, how many entries
    /meshwright/config/revisions/<revision>-<attempt>/+/<object> the object's JSON
    /meshwright/config/revisions/<revision>-<attempt>/-/<object> the object was deleted (empty value)

Revisions have 16 digits, so that they sort. One decision to know: an attempt writes all its entries first, in as many
transactions as they need, and then one compare-and-set moves the head and names the attempt: until then nobody reads
them, and of two attempts at one revision one never counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote, unquote

from meshwright.core.config.objects import Key

PREFIX = "/meshwright/config/"
HEAD = f"{PREFIX}head"
FLOOR = f"{PREFIX}floor"
COMMITS = f"{PREFIX}commits/"
REVISIONS = f"{PREFIX}revisions/"


@dataclass(frozen=True, slots=True)
class Commit:
    """What the record of a committed revision says; `time` is when, as ISO 8601.

    `author` is the SPIFFE ID of who asked for it, ``cluster`` for what was mirrored; `message` is that one's own words.
    """

    revision: int
    attempt: str
    entries: int
    time: str
    author: str = ""
    message: str = ""

    def encode(self) -> bytes:
        """Return the record's value."""
        record = {"attempt": self.attempt, "entries": self.entries, "time": self.time}
        return json.dumps(record | {"author": self.author, "message": self.message}, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, path: str, value: bytes) -> Commit:
        """Read the record at `path`."""
        record = json.loads(value)
        number = int(path.removeprefix(COMMITS))
        who, words = record.get("author", ""), record.get("message", "")
        return cls(number, record["attempt"], record["entries"], record["time"], who, words)


@dataclass(frozen=True, slots=True)
class Place:
    """One entry: in which attempt at which revision an object is put or deleted."""

    revision: int
    attempt: str
    deleted: bool
    key: Key

    def path(self) -> str:
        """Return the key in the store."""
        parts = (self.key.api_version, self.key.kind, self.key.namespace, self.key.name)
        name = "/".join(quote(part, safe="") for part in parts)
        return f"{attempt_prefix(self.revision, self.attempt)}{'-' if self.deleted else '+'}/{name}"

    @classmethod
    def parse(cls, path: str) -> Place:
        """Read a key in the store."""
        attempt, operation, *name = path.removeprefix(REVISIONS).split("/")
        revision, _, token = attempt.partition("-")
        return cls(int(revision), token, operation == "-", Key(*map(unquote, name)))


def commit_path(revision: int) -> str:
    """Return the key of a revision's record."""
    return f"{COMMITS}{revision:016}"


def revision_prefix(revision: int) -> str:
    """Return the prefix of all attempts at a revision."""
    return f"{REVISIONS}{revision:016}-"


def attempt_prefix(revision: int, attempt: str) -> str:
    """Return the prefix of one attempt's entries."""
    return f"{revision_prefix(revision)}{attempt}/"


def head_value(revision: int) -> bytes:
    """Return the head's value."""
    return json.dumps({"revision": revision}).encode()


def head_revision(value: bytes | None) -> int:
    """Return the revision that the head's value names; 0 when there is none yet."""
    return int(json.loads(value)["revision"]) if value else 0
