"""The injector: from a pod to the pod with its sidecar. Pure, and done again it changes nothing.

One decision to know: what was injected before is taken out first and put in anew, so that a pod that comes a second
time (the API server asks again when another webhook changed it) has what it would have had at once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from meshwright.core import errors
from meshwright.manager.inject import containers, probes, wishes
from meshwright.manager.inject.options import Options

INJECTED = "meshwright.io/injected"
MESH = "meshwright.io/mesh"
"""Label by which citadel finds the pods that have identities on their node's socket."""

_PROBE = "--probe="


def inject(pod: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Return the pod with what its annotations ask for; raise ConfigError when it can't have that."""
    made = copy.deepcopy(dict(pod))
    metadata, spec = _map(made, "metadata"), _map(made, "spec")
    asked = wishes.read(_texts(metadata, "annotations"))
    sidecar = asked.sidecar is not False
    if spec.get("hostNetwork"):
        _refuse_host(asked)
        sidecar = False
    again, before = _take_out(spec)
    if not sidecar and not asked.network_services:
        if not again:
            return dict(pod)  # its labels are its author's: an endpoint of network services has the mesh's too
        (metadata.get("annotations") or {}).pop(INJECTED, None)
        (metadata.get("labels") or {}).pop(MESH, None)
        return made
    added = []
    if sidecar:
        _refuse_user(spec)
        for container in _list(spec, "containers") + _list(spec, "initContainers"):
            before += probes.rewrite(container, asked.inbound_ports)
        added += [containers.redirect(asked, options), containers.proxy(asked, before, options)]
        metadata.setdefault("annotations", {})[INJECTED] = "redirect"
    else:
        (metadata.get("annotations") or {}).pop(INJECTED, None)
    if asked.network_services:
        added.append(containers.network_service(asked, options))
    metadata.setdefault("labels", {})[MESH] = "enabled"
    spec["initContainers"] = added + _list(spec, "initContainers")
    spec["volumes"] = _list(spec, "volumes") + containers.volumes(labels=sidecar)
    return made


def _take_out(spec: dict[str, Any]) -> tuple[bool, list[str]]:
    """Remove what was injected before; return whether there was anything, and the probes that were rewritten then."""
    kept: list[str] = []
    found = False
    for container in _list(spec, "initContainers"):
        found |= container.get("name") in containers.CONTAINERS
        if container.get("name") == containers.PROXY:
            arguments = [str(argument) for argument in container.get("args") or ()]
            kept += [a.removeprefix(_PROBE).replace("$$(", "$(") for a in arguments if a.startswith(_PROBE)]
    for field, names in (("initContainers", containers.CONTAINERS), ("volumes", containers.VOLUMES)):
        if field in spec:
            spec[field] = [item for item in _list(spec, field) if item.get("name") not in names]
    return found, kept


def _refuse_host(asked: wishes.Wishes) -> None:
    if asked.sidecar or asked.network_services:
        raise errors.ConfigError(
            "a pod on its node's network can't have a sidecar or a network service: its connections are the node's",
            field="spec.hostNetwork",
            remedy=f"give it a network of its own, or annotate {wishes.INJECT}: 'false'",
        )


def _refuse_user(spec: Mapping[str, Any]) -> None:
    """Connections of the proxy's user aren't redirected: no container of the application may be that user."""
    places = [("spec", spec)]
    for field in ("containers", "initContainers", "ephemeralContainers"):
        places += [(f"spec.{field}[{n}]", container) for n, container in enumerate(_list(spec, field))]
    for path, place in places:
        if (place.get("securityContext") or {}).get("runAsUser") == containers.USER:
            raise errors.ConfigError(
                f"user {containers.USER} is the proxy's, whose connections pass by the mesh",
                field=f"{path}.securityContext.runAsUser",
                remedy="run as another user",
            )


def _map(parent: dict[str, Any], field: str) -> dict[str, Any]:
    value = parent.setdefault(field, {})
    if not isinstance(value, dict):
        raise errors.ConfigError("isn't a map of fields", field=field, remedy="write a pod")
    return value


def _list(parent: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    value = parent.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise errors.ConfigError("isn't a list of maps", field=f"spec.{field}", remedy="write a pod")
    return value


def _texts(metadata: Mapping[str, Any], field: str) -> dict[str, str]:
    value = metadata.get(field) or {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise errors.ConfigError("isn't a map of texts", field=f"metadata.{field}", remedy="put values in quotes")
    return value
