"""`meshwright-citadel bootstrap DIR`: what must exist before etcd, NATS and citadel can start.

    DIR/ca.pem  DIR/ca-key.pem                    the infrastructure CA, made once
    DIR/etcd/{cert,key,ca}.pem                    etcd's server and peer certificate
    DIR/nats/{cert,key,ca}.pem                    NATS's server certificate
    DIR/clients/<service>/{cert,key,ca}.pem       a client of etcd and NATS; common name = service = etcd user
    SEAL_KEY                                      32 random bytes that seal the mesh CA in etcd, made once

One decision to know: running it again is always right. It repairs what is missing or damaged, renews what is near its
end (also after a year of standing still) and touches nothing else; only the seal key is never made anew by itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from meshwright.citadel.ca import seal
from meshwright.citadel.ca.profile import is_dns_name
from meshwright.citadel.infrastructure import certificates, files
from meshwright.citadel.infrastructure.certificates import Pair, Wanted
from meshwright.core import errors

CLIENTS = ("manager", "mixer", "citadel", "nsm-registry", "root")
LOCAL_NAMES = ("localhost", "127.0.0.1")
RENEW_LEAF_BELOW = 1 / 3  # of its life
RENEW_CA_BELOW = 1 / 10  # of its life: a year, so that leaves made now don't end with it unseen


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make: `folder` is DIR; the extra names are DNS names or addresses beside localhost."""

    folder: Path
    seal_key: Path
    etcd_names: tuple[str, ...] = ()
    nats_names: tuple[str, ...] = ()
    force: bool = False

    def wanted(self) -> Iterator[tuple[Path, Wanted]]:
        """Yield each folder with the certificate that belongs into it."""
        yield self.folder / "etcd", Wanted("etcd", (*LOCAL_NAMES, *self.etcd_names), also_client=True)
        yield self.folder / "nats", Wanted("nats", (*LOCAL_NAMES, *self.nats_names))
        for client in CLIENTS:
            yield self.folder / "clients" / client, Wanted(client)


def run(plan: Plan, now: datetime) -> list[str]:
    """Bring the folder to what the plan says; return one line for each thing that was made or renewed."""
    check_names(plan.etcd_names, plan.nats_names)
    files.directory(plan.folder)
    with files.locked(plan.folder):
        done = list(_seal_key(plan.seal_key))
        ca, made = _authority(plan.folder, now)
        done += made
        for folder, wanted in plan.wanted():
            done += _leaf(folder, wanted, ca, now, force=plan.force)
    return done


def check_names(etcd: Iterable[str], nats: Iterable[str]) -> None:
    """Raise ConfigError for a further name of a server that is none."""
    for option, names in (("etcd-name", etcd), ("nats-name", nats)):
        for name in names:
            if not is_dns_name(name) and not _is_address(name):
                raise errors.ConfigError(f"{name!r}", field=f"--{option}", remedy="give a DNS name or an IP address")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _seal_key(path: Path) -> Iterator[str]:
    if path.exists():
        seal.read_key(path)  # says what is wrong with it; replacing it would lose the mesh CA
        return
    files.write(path, secrets.token_bytes(seal.KEY_BYTES))
    yield f"seal key made: {path}"


def _authority(folder: Path, now: datetime) -> tuple[Pair, list[str]]:
    certificate, key = folder / "ca.pem", folder / "ca-key.pem"
    pair = _load(certificate, key)
    if pair and is_good_authority(pair, now, str(certificate)):
        return pair, []
    what = made_or_replaced(pair)
    pair = certificates.new_ca(now)
    files.write(key, pair.key_pem)
    files.write(certificate, pair.certificate_pem, 0o644)
    return pair, [f"{what}: {certificate}"]


def is_good_authority(pair: Pair, now: datetime, place: str) -> bool:
    """Return whether an infrastructure CA has enough of its life left; ConfigError when it isn't valid yet."""
    if now < pair.certificate.not_valid_before_utc:
        # Replacing it would cut off the servers that run with it, only because a clock is wrong.
        raise errors.ConfigError(f"{place} isn't valid yet", field="DIR", remedy="set this machine's clock")
    return pair.left(now) > RENEW_CA_BELOW


def is_good_leaf(pair: Pair | None, ca: Pair, wanted: Wanted, now: datetime) -> bool:
    """Return whether a certificate is what is wanted and has enough of its life left."""
    return pair is not None and certificates.fits(pair, ca, wanted) and pair.left(now) > RENEW_LEAF_BELOW


def made_or_replaced(before: Pair | None) -> str:
    """Say what became of the CA."""
    return "infrastructure CA made" if before is None else "infrastructure CA replaced, as it was near its end"


def _leaf(folder: Path, wanted: Wanted, ca: Pair, now: datetime, *, force: bool) -> Iterator[str]:
    paths = {name: folder / f"{name}.pem" for name in ("cert", "key", "ca")}
    pair = _load(paths["cert"], paths["key"])
    if force or not is_good_leaf(pair, ca, wanted, now):
        what = "made" if pair is None else "renewed"
        pair = certificates.issue(ca, wanted, now)
        # The key first: a crash between the two leaves a pair that doesn't fit, which the next run replaces.
        files.write(paths["key"], pair.key_pem)
        files.write(paths["cert"], pair.certificate_pem, 0o644)
        yield f"certificate {what}: {paths['cert']}"
    if _read(paths["ca"]) != ca.certificate_pem:
        files.write(paths["ca"], ca.certificate_pem, 0o644)


def _load(certificate: Path, key: Path) -> Pair | None:
    with contextlib.suppress(OSError):
        if os.stat(key).st_mode & 0o077:
            raise errors.ConfigError(f"{key} can be read by others", field="DIR", remedy=f"chmod 600 {key}")
    certificate_pem, key_pem = _read(certificate), _read(key)
    return Pair.load(certificate_pem, key_pem) if certificate_pem and key_pem else None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.ConfigError(f"can't read {path}: {error.strerror}", field="DIR") from error
