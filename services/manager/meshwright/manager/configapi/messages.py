"""Between the API's messages and ours: protobuf stops at the servicer."""

from __future__ import annotations

from typing import Any

from meshwright.api.config.v1 import config_pb2
from meshwright.core.config import Key
from meshwright.manager.configapi.plan import Action
from meshwright.manager.model.fault import Fault
from meshwright.manager.model.parse import Parsed

_ACTIONS = {
    Action.CREATED: config_pb2.ApplyResponse.CREATED,
    Action.CHANGED: config_pb2.ApplyResponse.CHANGED,
    Action.UNCHANGED: config_pb2.ApplyResponse.UNCHANGED,
    Action.DELETED: config_pb2.ApplyResponse.DELETED,
}


def key(message: Any) -> Key:
    """Read a key."""
    return Key(message.api_version, message.kind, message.namespace, message.name)


def key_message(found: Key) -> Any:
    """Write a key."""
    return config_pb2.Key(api_version=found.api_version, kind=found.kind, namespace=found.namespace, name=found.name)


def object_message(parsed: Parsed, revision: int = 0) -> Any:
    """Write an object."""
    return config_pb2.Object(key=key_message(parsed.key), json=parsed.text, revision=revision)


def result_message(found: Key, action: Action) -> Any:
    """Write what happened to an object."""
    return config_pb2.ApplyResponse.Result(key=key_message(found), action=_ACTIONS[action])


def violation_message(fault: Fault) -> Any:
    """Write a fault."""
    return config_pb2.Violation(key=key_message(fault.key), field=fault.field, message=fault.message, index=fault.index)
