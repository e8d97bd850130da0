"""Reading requests: DiscoveryRequest and DeltaDiscoveryRequest of envoy.service.discovery.v3.

One decision to know: clients that were sent the same response acknowledge it with the same bytes, so what was read is
kept, names included. A thousand clients that subscribe to the same names hold one set of them.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from meshwright.core import errors
from meshwright.manager.xds.subscription import MAX_NAMES
from meshwright.manager.xds.typestate import DeltaRequest, Request

T = TypeVar("T")

_MAX_ERROR = 2_000  # characters of a client's complaint that are kept
_KEPT = 2_048
_KEPT_BYTES = 16 << 20  # of requests whose reading is kept
_COMMON_BYTES = 1 << 20  # a larger one isn't kept


class Requests:
    """Reads the requests of all streams of a server."""

    def __init__(self) -> None:
        self._known: dict[tuple[bool, bytes], Request | DeltaRequest] = {}
        self._bytes = 0
        self._names: dict[frozenset[str], frozenset[str]] = {}

    def first(self, raw: bytes, *, delta: bool) -> tuple[Any, bytes]:
        """Read the first request of a stream; return its node, and the rest as bytes for `read`."""
        message = _parsed(DeltaDiscoveryRequest() if delta else DiscoveryRequest(), raw)
        node = type(message.node)()
        node.CopyFrom(message.node)
        message.ClearField("node")
        return node, message.SerializeToString()

    def read(self, raw: bytes, *, delta: bool, only: str = "") -> Request | DeltaRequest:
        """Read a request; `only` is the type of a stream that has but one, and whose requests needn't name it.

        Raises ConfigError for bytes that are none, Exhausted for too many names.
        """
        found = self._known.get((delta, raw))
        if found is None:
            found = self._delta(raw) if delta else self._plain(raw)
            if len(raw) <= _COMMON_BYTES:
                self._keep(raw, found, delta=delta)
        if only and found.type_url != only:
            if found.type_url:
                raise errors.ConfigError(
                    f"a request for {found.type_url[:200]} on a stream of {only}",
                    field="type_url",
                    remedy="use the service of that type, or AggregatedDiscoveryService",
                )
            found = _typed(found, only)
        return found

    def _keep(self, raw: bytes, read: Request | DeltaRequest, *, delta: bool) -> None:
        self._bytes += len(raw)
        if self._bytes > _KEPT_BYTES or len(self._known) >= _KEPT:
            self._known.clear()
            self._names.clear()
            self._bytes = len(raw)
        self._known[delta, raw] = read

    def _plain(self, raw: bytes) -> Request:
        message = _parsed(DiscoveryRequest(), raw)
        return Request(
            message.type_url,
            self._set(message.resource_names),
            message.version_info,
            message.response_nonce,
            _refusal(message),
        )

    def _delta(self, raw: bytes) -> DeltaRequest:
        message = _parsed(DeltaDiscoveryRequest(), raw)
        if len(message.initial_resource_versions) > MAX_NAMES:
            raise _too_many(len(message.initial_resource_versions))
        return DeltaRequest(
            message.type_url,
            self._set(message.resource_names_subscribe),
            self._set(message.resource_names_unsubscribe),
            dict(message.initial_resource_versions),
            message.response_nonce,
            _refusal(message),
        )

    def _set(self, names: Any) -> frozenset[str]:
        if len(names) > MAX_NAMES:
            raise _too_many(len(names))
        found = frozenset(names)
        return self._names.setdefault(found, found)


def _parsed(message: T, raw: bytes) -> T:
    try:
        message.MergeFromString(raw)  # type: ignore[attr-defined]
    except DecodeError as error:
        raise errors.ConfigError(
            f"a request can't be read: {error}", remedy="send xDS v3 discovery requests"
        ) from error
    return message


def _typed(request: Request | DeltaRequest, type_url: str) -> Request | DeltaRequest:
    if isinstance(request, Request):
        return Request(type_url, request.names, request.version, request.nonce, request.error)
    return DeltaRequest(
        type_url, request.subscribe, request.unsubscribe, request.versions, request.nonce, request.error
    )


def _refusal(message: Any) -> str:
    if not message.HasField("error_detail"):
        return ""
    return message.error_detail.message[:_MAX_ERROR] or "refused without a reason"


def _too_many(count: int) -> errors.Exhausted:
    return errors.Exhausted(f"{count} resource names in one request: {MAX_NAMES} are taken")
