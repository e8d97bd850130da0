"""apiextensions.k8s.io/v1 ConversionReview: from a request to its response. Pure.

One decision to know: all objects of a request are converted or none is, as the API server wants it; its answer names
the first that can't be.
"""

from __future__ import annotations

from typing import Any

from meshwright.core import errors
from meshwright.manager.smi import conversion

VERSION = "apiextensions.k8s.io/v1"


def answer(review: Any) -> dict[str, Any]:
    """Return the ConversionReview that answers one; raise ConfigError for what is none."""
    if not isinstance(review, dict) or (review.get("apiVersion"), review.get("kind")) != (VERSION, "ConversionReview"):
        raise errors.ConfigError("isn't a ConversionReview", remedy=f"send apiVersion {VERSION}")
    request = review.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str) or len(request["uid"]) > 256:
        raise errors.ConfigError("the review has no request with a uid", field="request")
    wanted, objects = request.get("desiredAPIVersion"), request.get("objects")
    if not isinstance(wanted, str) or not isinstance(objects, list):
        raise errors.ConfigError("the request has no desiredAPIVersion, or no objects", field="request")
    return {
        "apiVersion": VERSION,
        "kind": "ConversionReview",
        "response": {"uid": request["uid"], **_converted(objects, wanted)},
    }


def _converted(objects: list[Any], wanted: str) -> dict[str, Any]:
    made = []
    for found in objects:
        if not isinstance(found, dict):
            return _failure("one of the objects isn't a map")
        try:
            made.append(found if found.get("apiVersion") == wanted else conversion.convert(found, wanted))
        except errors.ConfigError as error:
            return _failure(f"{_name(found)}: {error}")
    return {"result": {"status": "Success"}, "convertedObjects": made}


def _name(found: dict[str, Any]) -> str:
    metadata = found.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    return f"{found.get('kind')} {known.get('namespace')}/{known.get('name')}"[:300]


def _failure(message: str) -> dict[str, Any]:
    return {"result": {"status": "Failed", "message": message}}
