"""A client's view of istio.mixer.v1: attributes as people write them, and the answer as people read it.

The `meshwright` command mounts it as `mixer check`, `quota` and `report`; it needs neither the servers nor the native
module.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core.errors import ConfigError
from meshwright.mixer.cexl.durations import parse_duration
from meshwright.mixer.client import encoding
from meshwright.mixer.client.encoding import Attributes, AttributeValue

TYPES = ("string", "int64", "double", "bool", "bytes", "timestamp", "duration", "string_map", "ip")


def parse_attribute(text: str, kind: str | None = None) -> tuple[str, AttributeValue]:
    """Read `name=value`; without a kind the type is guessed from how the value looks.

    Guesses: true and false, whole numbers, numbers, RFC 3339 moments, durations ("1.5s"), addresses, maps
    ("a:1,b:2" is not guessed: say string_map), and text for all else.
    """
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ConfigError(f"{text!r} isn't name=value", field="attribute", remedy="write for example request.path=/")
    return name, _guess(value) if kind is None else _typed(name, value, kind)


def parse_quota(text: str) -> tuple[str, int]:
    """Read `name=amount`; without an amount it is 1."""
    name, separator, amount = text.partition("=")
    if not name or (separator and not re.fullmatch(r"-?\d+", amount)):
        raise ConfigError(f"{text!r} isn't name=amount", field="quota", remedy="write for example requestcount=1")
    return name, int(amount) if separator else 1


def request(
    attributes: Mapping[str, AttributeValue],
    quotas: Mapping[str, int] | None = None,
    *,
    best_effort: bool = False,
    deduplication_id: str | None = None,
) -> mixer_pb2.CheckRequest:
    """A Check with every word in the message's own list, so that it fits any version of the global dictionary.

    Without a deduplication id it gets one of its own: Mixer takes the empty one for an id like any other, and answers a
    second call with the first one's grant.
    """
    words = encoding.Words()
    compressed = encoding.compress(attributes, words)
    compressed.words.extend(words)
    message = mixer_pb2.CheckRequest(attributes=compressed, deduplication_id=deduplication_id or uuid.uuid4().hex)
    for name, amount in (quotas or {}).items():
        message.quotas[name].amount = amount
        message.quotas[name].best_effort = best_effort
    return message


async def check(channel: Any, message: mixer_pb2.CheckRequest, timeout: float = 5.0) -> mixer_pb2.CheckResponse:
    """Send a Check over a channel of meshwright.core.grpc."""
    from meshwright.api.istio.mixer.v1 import mixer_pb2_grpc

    response: mixer_pb2.CheckResponse = await mixer_pb2_grpc.MixerStub(channel).Check(message, timeout=timeout)
    return response


def report_request(attributes: Attributes, records: int = 1) -> mixer_pb2.ReportRequest:
    """A Report of so many equal records, every word in the message's own list."""
    words = encoding.Words()
    record = encoding.compress(attributes, words)
    message = mixer_pb2.ReportRequest(
        attributes=records * [record],
        repeated_attributes_semantics=mixer_pb2.ReportRequest.INDEPENDENT_ENCODING,
    )
    message.default_words.extend(words)
    return message


async def report(channel: Any, message: mixer_pb2.ReportRequest, timeout: float = 5.0) -> None:
    """Send a Report over a channel of meshwright.core.grpc."""
    from meshwright.api.istio.mixer.v1 import mixer_pb2_grpc

    await mixer_pb2_grpc.MixerStub(channel).Report(message, timeout=timeout)


def describe(response: mixer_pb2.CheckResponse) -> dict[str, Any]:
    """The answer as plain data: status, validity, referenced attributes and quotas."""
    precondition = response.precondition
    quotas = {
        name: {
            "granted": result.granted_amount,
            "valid": result.valid_duration.ToTimedelta().total_seconds(),
            **({"error": result.status.message or str(result.status.code)} if result.status.code else {}),
        }
        for name, result in sorted(response.quotas.items())
    }
    return {
        "code": precondition.status.code,
        "message": precondition.status.message,
        "valid_seconds": precondition.valid_duration.ToTimedelta().total_seconds(),
        "valid_uses": precondition.valid_use_count,
        "referenced": [*_references(precondition.referenced_attributes)],
        "quotas": quotas,
    }


def _references(referenced: mixer_pb2.ReferencedAttributes) -> Iterable[dict[str, str]]:
    """Every word is in the message: a caller that claims to know no global words gets none."""

    def word(index: int) -> str:
        position = -index - 1
        return referenced.words[position] if 0 <= position < len(referenced.words) else f"word {index}"

    conditions = mixer_pb2.ReferencedAttributes.Condition
    for match in sorted(referenced.attribute_matches, key=lambda each: (word(each.name), each.map_key)):
        key = f'["{word(match.map_key)}"]' if match.map_key else ""
        yield {"attribute": f"{word(match.name)}{key}", "condition": conditions.Name(match.condition).lower()}


def _guess(value: str) -> AttributeValue:
    if value in ("true", "false"):
        return value == "true"
    if re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    if re.fullmatch(r"-?\d+\.\d+", value):
        return float(value)
    if re.fullmatch(r"\d{4}-\d\d-\d\dT.*", value):
        return _moment(value) or value
    if (nanoseconds := parse_duration(value)) is not None:
        return timedelta(microseconds=nanoseconds / 1000)
    try:
        return ip_address(value).packed
    except ValueError:
        return value


def _typed(name: str, value: str, kind: str) -> AttributeValue:
    try:
        match kind:
            case "string":
                return value
            case "int64":
                return int(value)
            case "double":
                return float(value)
            case "bool" if value in ("true", "false"):
                return value == "true"
            case "bytes":
                return base64.b64decode(value, validate=True)
            case "timestamp" if (moment := _moment(value)) is not None:
                return moment
            case "duration" if (nanoseconds := parse_duration(value)) is not None:
                return timedelta(microseconds=nanoseconds / 1000)
            case "string_map":
                return dict(_pair(each) for each in value.split(",") if each)
            case "ip":
                return ip_address(value).packed
    except ValueError:
        pass
    raise ConfigError(f"{value!r} is no {kind}", field=name, remedy=f"types are {', '.join(TYPES)}; bytes are base64")


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition(":")
    if not separator:
        raise ValueError(text)
    return key, value


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
