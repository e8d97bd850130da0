"""Whose token it is: service accounts as the API server knows them (TokenReview).

One decision to know: the API server is asked each time, not the token's signature checked here. Only it knows whether
the pod that a token is bound to still exists, and parts log in so rarely that nothing has to be kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshwright.core import errors
from meshwright.core.kubernetes import Api

AUDIENCE = "meshwright-citadel"

_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_PREFIX = "authentication.kubernetes.io/"
_TOKEN = re.compile(r"[A-Za-z0-9._=-]{1,16384}")
_AT_ONCE = 8  # reviews under way: a cluster that starts as a whole must not throttle everybody's
_WAITING = 256


@dataclass(frozen=True, slots=True)
class Account:
    """A service account as which a pod runs."""

    namespace: str
    name: str
    pod: str
    pod_uid: str
    node: str

    def __str__(self) -> str:
        """Name it for the audit trail."""
        return f"k8s:{self.namespace}/{self.name} pod={self.pod} uid={self.pod_uid} node={self.node}"


class Accounts:
    """Asks the API server about tokens."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def of_token(self, token: str) -> Account:
        """Return whose token it is. Raise Unauthorized for one that isn't good, Unavailable when nobody can say."""
        if not _TOKEN.fullmatch(token):
            raise errors.Unauthorized("what was sent isn't a service account's token")
        if self._waiting >= _WAITING:
            raise errors.Exhausted(f"{_WAITING} tokens wait for the API server (try again)")
        self._waiting += 1
        try:
            async with self._slots:
                return await self._review(token)
        finally:
            self._waiting -= 1

    async def _review(self, token: str) -> Account:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        try:
            answer = await self._api.create(_PATH, review)
        except (errors.Unauthorized, errors.Forbidden, errors.ConfigError, errors.NotFound) as error:
            raise errors.Unavailable(f"citadel can't have tokens reviewed: {error}") from error
        status = _table(answer.get("status"))
        # An API server that knows no audiences says that the token is good, and no audience.
        if status.get("authenticated") is not True or AUDIENCE not in (status.get("audiences") or ()):
            raise errors.Unauthorized(
                f"the API server doesn't take this token for audience {AUDIENCE} (mount a projected "
                f"serviceAccountToken with that audience; it may also have ended, or its pod may be gone)"
            )
        user = _table(status.get("user"))
        match str(user.get("username", "")).split(":"):
            case ["system", "serviceaccount", namespace, name] if namespace and name:
                pass
            case _:
                raise errors.Unauthorized("the token isn't a service account's")
        extra = _table(user.get("extra"))
        pod, pod_uid = _first(extra, "pod-name"), _first(extra, "pod-uid")
        if not pod or not pod_uid:
            raise errors.Unauthorized("the token is bound to no pod (mount a projected serviceAccountToken)")
        node = _first(extra, "node-name") or await self._node(namespace, pod, pod_uid)
        return Account(namespace, name, pod, pod_uid, node)

    async def _node(self, namespace: str, pod: str, uid: str) -> str:
        """Return the node of a pod, for API servers before 1.30, which don't say it of a token."""
        try:
            found = await self._api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
        except errors.NotFound as error:
            raise errors.Unauthorized(f"pod {namespace}/{pod} of this token is gone") from error
        if _table(found.get("metadata")).get("uid") != uid:
            raise errors.Unauthorized(f"pod {namespace}/{pod} isn't the one of this token any more")
        return str(_table(found.get("spec")).get("nodeName") or "")


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(extra: Mapping[str, Any], name: str) -> str:
    values = extra.get(_PREFIX + name)
    return str(values[0]) if isinstance(values, list) and values else ""
