"""`meshwright-citadel bootstrap --kubernetes`: what must exist before etcd, NATS and citadel can start, as Secrets.

    meshwright-infrastructure-ca               the infrastructure CA with its key: only the Job's account may read it
    meshwright-etcd-tls, meshwright-nats-tls   server certificates (etcd's for its peers too)
    meshwright-<service>-infrastructure        a client of etcd and NATS; common name = service = etcd user
    meshwright-citadel-login, meshwright-login the two sides of citadel's login port (ADR 29)
    meshwright-seal-key                        the 32 bytes that seal the mesh CA in etcd, made once

One decision to know: a Secret is made by `create` and changed only at the revision that was read, so of two Jobs at
once one makes it and the other finds it. Helm doesn't own them: they outlive an uninstall, as etcd's volume does, which
is worthless without the seal key.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meshwright.citadel.ca import seal
from meshwright.citadel.infrastructure import bootstrap, certificates
from meshwright.citadel.infrastructure.certificates import Pair, Wanted
from meshwright.core import errors
from meshwright.core.identity import LOGIN_CLIENT, LOGIN_SERVER
from meshwright.core.kubernetes import Api

_CA = "meshwright-infrastructure-ca"
_SEAL = "meshwright-seal-key"
_SEAL_ENTRY = "seal.key"
_TRIES = 5  # another Job may be at it, not many
_LABELS = {"app.kubernetes.io/name": "meshwright", "app.kubernetes.io/managed-by": "meshwright-citadel"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make in `namespace`; the extra names are beside those of the Services."""

    namespace: str
    etcd_names: tuple[str, ...] = ()
    nats_names: tuple[str, ...] = ()
    force: bool = False

    def wanted(self) -> Iterator[tuple[str, Wanted]]:
        """Yield each Secret with the certificate that belongs into it."""
        etcd, nats = self._names("meshwright-etcd"), self._names("meshwright-nats")
        yield "meshwright-etcd-tls", Wanted("etcd", (*etcd, *self.etcd_names), also_client=True)
        yield "meshwright-nats-tls", Wanted("nats", (*nats, *self.nats_names))
        yield "meshwright-citadel-login", Wanted("login", self._names("meshwright-citadel"), uri=LOGIN_SERVER)
        yield "meshwright-login", Wanted("login", uri=LOGIN_CLIENT)
        for client in bootstrap.CLIENTS:
            yield f"meshwright-{client}-infrastructure", Wanted(client)

    def _names(self, service: str) -> tuple[str, ...]:
        """Return the names of a Service, of the pods of a StatefulSet behind it, and of this machine."""
        own = f"{service}.{self.namespace}"
        whole = (f"{own}.svc", f"{own}.svc.cluster.local")
        return service, own, *whole, *(f"*.{name}" for name in whole), *bootstrap.LOCAL_NAMES


async def run(api: Api, plan: Plan, now: datetime) -> list[str]:
    """Bring the namespace to what the plan says; return one line for each thing that was made or renewed."""
    bootstrap.check_names(plan.etcd_names, plan.nats_names)
    shelf = _Shelf(api, plan.namespace)
    done = await _seal_key(shelf)
    ca, made = await _authority(shelf, now)
    done += made
    for name, wanted in plan.wanted():
        done += await _leaf(shelf, name, wanted, ca, now, force=plan.force)
    return done


async def remove(api: Api, namespace: str) -> list[str]:
    """Remove all of it, for good: what the mesh CA has signed ends, and etcd's data can't be opened any more."""
    names = [_CA, *(name for name, _ in Plan(namespace).wanted()), _SEAL]
    return [f"removed: Secret {name}" for name in names if await _Shelf(api, namespace).remove(name)]


class _Shelf:
    """The Secrets of one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._path = api, f"/api/v1/namespaces/{namespace}/secrets"

    async def find(self, name: str) -> tuple[dict[str, bytes], dict[str, Any]] | None:
        """Return a Secret's content and the Secret; what can't be read of it is left out."""
        try:
            found = await self._api.get(f"{self._path}/{name}")
        except errors.NotFound:
            return None
        content: dict[str, bytes] = {}
        for key, value in (found.get("data") or {}).items():
            try:
                content[key] = base64.b64decode(value, validate=True)
            except (binascii.Error, TypeError, ValueError):
                continue
        return content, found

    async def keep(
        self, name: str, content: Mapping[str, bytes], before: Mapping[str, Any] | None, *, kind: str = "Opaque"
    ) -> bool:
        """Make a Secret or replace it as it was `before`; return False when somebody else was first."""
        data = {key: base64.b64encode(value).decode() for key, value in content.items()}
        metadata = {"name": name, "labels": _LABELS} if before is None else before["metadata"]
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}
        try:
            if before is None:
                await self._api.create(self._path, secret)
            else:
                await self._api.replace(f"{self._path}/{name}", {**secret, "type": before.get("type", kind)})
        except errors.Conflict:
            return False
        return True

    async def remove(self, name: str) -> bool:
        """Remove a Secret; return whether there was one."""
        try:
            await self._api.delete(f"{self._path}/{name}")
        except errors.NotFound:
            return False
        return True


async def _seal_key(shelf: _Shelf) -> list[str]:
    made = await shelf.find(_SEAL) is None and await shelf.keep(
        _SEAL, {_SEAL_ENTRY: secrets.token_bytes(seal.KEY_BYTES)}, None
    )
    found = await shelf.find(_SEAL)
    # Never replaced: that would lose the mesh CA. What is wrong with it is said instead.
    if found is None or len(found[0].get(_SEAL_ENTRY, b"")) != seal.KEY_BYTES:
        raise errors.ConfigError(
            f"Secret {_SEAL} has no {seal.KEY_BYTES} bytes in {_SEAL_ENTRY}",
            field="seal_key",
            remedy="restore it from a backup: it opens the mesh CA",
        )
    return [f"seal key made: Secret {_SEAL}"] if made else []


async def _authority(shelf: _Shelf, now: datetime) -> tuple[Pair, list[str]]:
    for _ in range(_TRIES):
        found = await shelf.find(_CA)
        pair = _pair(found[0]) if found else None
        if pair and bootstrap.is_good_authority(pair, now, f"Secret {_CA}"):
            return pair, []
        fresh = certificates.new_ca(now)
        if await shelf.keep(_CA, _content(fresh, fresh), found[1] if found else None, kind="kubernetes.io/tls"):
            return fresh, [f"{bootstrap.made_or_replaced(pair)}: Secret {_CA}"]
    raise _contended(_CA)


async def _leaf(shelf: _Shelf, name: str, wanted: Wanted, ca: Pair, now: datetime, *, force: bool) -> list[str]:
    for _ in range(_TRIES):
        found = await shelf.find(name)
        pair = _pair(found[0]) if found else None
        is_good = bootstrap.is_good_leaf(pair, ca, wanted, now)
        if is_good and not force and found and found[0].get("ca.crt") == ca.certificate_pem:
            return []
        fresh = certificates.issue(ca, wanted, now)
        if await shelf.keep(name, _content(fresh, ca), found[1] if found else None, kind="kubernetes.io/tls"):
            return [f"certificate {'made' if pair is None else 'renewed'}: Secret {name}"]
    raise _contended(name)


def _contended(name: str) -> errors.Unavailable:
    return errors.Unavailable(f"Secret {name} was changed by somebody else {_TRIES} times meanwhile (run it again)")


def _pair(content: Mapping[str, bytes]) -> Pair | None:
    certificate, key = content.get("tls.crt"), content.get("tls.key")
    return Pair.load(certificate, key) if certificate and key else None


def _content(pair: Pair, ca: Pair) -> dict[str, bytes]:
    return {"tls.crt": pair.certificate_pem, "tls.key": pair.key_pem, "ca.crt": ca.certificate_pem}
