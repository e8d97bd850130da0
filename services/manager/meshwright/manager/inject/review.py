"""admission.k8s.io/v1: from an AdmissionReview's request to its response. Pure.

One decision to know: what can't be injected is refused with the reason, never let through as it is: a pod without its
sidecar would be outside of the mesh and nobody would know.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from meshwright.core import errors
from meshwright.manager.inject.options import Options
from meshwright.manager.inject.patch import patch
from meshwright.manager.inject.pod import inject

VERSION = "admission.k8s.io/v1"


def answer(review: Any, options: Options) -> dict[str, Any]:
    """Return the AdmissionReview that answers one; raise ConfigError for what is none."""
    if not isinstance(review, dict) or review.get("apiVersion") != VERSION or review.get("kind") != "AdmissionReview":
        raise errors.ConfigError("isn't an AdmissionReview", remedy=f"send apiVersion {VERSION}")
    request = review.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str) or len(request["uid"]) > 256:
        raise errors.ConfigError("the review has no request with a uid", field="request")
    return {
        "apiVersion": VERSION,
        "kind": "AdmissionReview",
        "response": {"uid": request["uid"], **_judge(request, options)},
    }


def _judge(request: Mapping[str, Any], options: Options) -> dict[str, Any]:
    kind = (request.get("kind") or {}) if isinstance(request.get("kind"), dict) else {}
    pod = request.get("object")
    if (kind.get("group"), kind.get("kind")) != ("", "Pod") or request.get("operation") != "CREATE":
        return {"allowed": True}  # only new pods can have containers added
    if not isinstance(pod, dict):
        return _refusal("the request holds no pod")
    try:
        operations = list(patch(pod, inject(pod, options)))
    except errors.MeshwrightError as error:
        return _refusal(f"meshwright can't give this pod its sidecar: {error}")
    if not operations:
        return {"allowed": True}
    encoded = base64.b64encode(json.dumps(operations, separators=(",", ":")).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


def _refusal(message: str) -> dict[str, Any]:
    return {"allowed": False, "status": {"code": 400, "reason": "BadRequest", "message": message}}
