"""Header changes, as Envoy states them. Values are plain text: what Envoy would put in for ``%…%`` is quoted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshwright.api.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from meshwright.manager.model.routing import HeaderChanges


def change(message: Any, request: HeaderChanges, response: HeaderChanges) -> None:
    """Let a route, or a weighted cluster, change headers. The authority is no header here (`authority`)."""
    for direction, changes in (("request", request), ("response", response)):
        getattr(message, f"{direction}_headers_to_add").extend(_added(changes))
        removed = [name for name in changes.remove if not _special(name)]
        getattr(message, f"{direction}_headers_to_remove").extend(removed)


def authority(changes: HeaderChanges) -> str:
    """Return the authority that changes set; empty: they don't."""
    return next((value for name, value in (*changes.set, *changes.add) if name.lower() in ("host", ":authority")), "")


def option(name: str, value: str, *, append: bool = False, keep: bool = True) -> HeaderValueOption:
    """Set a header, or append to it; `keep` False leaves out an empty value."""
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value),
        append_action=HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
        if append
        else HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        keep_empty_value=keep,
    )


def _added(changes: HeaderChanges) -> Iterator[HeaderValueOption]:
    for append, pairs in ((False, changes.set), (True, changes.add)):
        for name, value in pairs:
            if not _special(name):
                yield option(name, value.replace("%", "%%"), append=append)


def _special(name: str) -> bool:
    """Whether Envoy refuses to change a header so: it would change where the request goes."""
    return name.startswith(":") or name.lower() == "host"
