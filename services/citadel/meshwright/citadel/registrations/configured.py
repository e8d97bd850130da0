"""Registrations from a folder of YAML, for a citadel that runs without the rest of the platform.

    apiVersion: citadel.meshwright.io/v1alpha1
    kind: WorkloadRegistration
    metadata: {name: web, namespace: shop}
    spec:
      spiffeId: spiffe://mesh.local/ns/shop/sa/web
      selectors: [{type: "unix:uid", value: "1000"}]
      ttlSeconds: 3600            # optional, as are dnsNames and node

One decision to know: they are judged as a whole and stand beside those of the store, under ids that begin with
`config.`, which can't be registered; kinds of other API groups in the folder are other services' business.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pydantic
import structlog

from meshwright.citadel.registrations import model
from meshwright.citadel.registrations.model import Registration, Selector
from meshwright.citadel.registrations.registry import CONFIGURED, Registry
from meshwright.core import config, errors
from meshwright.core.health import Health

API_VERSION = "citadel.meshwright.io/v1alpha1"
KIND = "WorkloadRegistration"
PART = "configured-registrations"  # in health

_log = structlog.get_logger(__name__)


class _Selector(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    type: str
    value: str


class _Spec(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    spiffe_id: str = pydantic.Field(alias="spiffeId")
    selectors: list[_Selector]
    ttl_seconds: float | None = pydantic.Field(None, alias="ttlSeconds", gt=0, lt=1e9)
    dns_names: list[str] = pydantic.Field(default_factory=list, alias="dnsNames")
    node: str = ""


def read(objects: Iterable[config.Object], trust_domain: str, max_ttl: timedelta) -> list[Registration]:
    """Return the registrations among `objects`; raise DocumentError naming file, document and field of a fault."""
    return [
        _one(object_, trust_domain, max_ttl)
        for object_ in objects
        if object_.key.group == API_VERSION.partition("/")[0]
    ]


async def follow(
    source: config.Source, registry: Registry, trust_domain: str, max_ttl: timedelta, health: Health
) -> None:
    """Keep `registry` at what the source says, until cancelled; what can't be accepted keeps the last good set."""
    async for snapshot in source.changes():
        try:
            found = read(snapshot.objects.values(), trust_domain, max_ttl)
        except errors.ConfigError as error:
            health.degrade(PART, f"the last good registrations are served on: {error}")
            continue
        registry.configure(found)
        health.set(PART, True)
        _log.info("registrations_configured", registrations=len(found), revision=snapshot.revision)


def _one(object_: config.Object, trust_domain: str, max_ttl: timedelta) -> Registration:
    if (object_.api_version, object_.kind) != (API_VERSION, KIND):
        raise config.DocumentError(
            f"{object_.api_version} {object_.kind} isn't known",
            source=object_.source,
            field="kind",
            remedy=f"write {API_VERSION} and {KIND}",
        )
    try:
        spec = _Spec.model_validate(dict(object_.spec))
        registration = Registration(
            id=f"{CONFIGURED}{object_.namespace or 'default'}.{object_.name}",
            spiffe_id=spec.spiffe_id,
            selectors=tuple(Selector(selector.type, selector.value) for selector in spec.selectors),
            ttl=None if spec.ttl_seconds is None else timedelta(seconds=spec.ttl_seconds),
            dns_names=tuple(spec.dns_names),
            node=spec.node,
        )
        model.check(registration, trust_domain, max_ttl)
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
        raise config.DocumentError(fault["msg"], source=object_.source, field=f"spec{path}") from error
    except errors.ConfigError as error:
        field = f"spec.{error.field}"
        raise config.DocumentError(error.message, source=object_.source, field=field, remedy=error.remedy) from error
    return registration
