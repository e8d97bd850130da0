"""The commands that make what must exist before citadel: `bootstrap` and `etcd-users`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from meshwright.citadel.infrastructure import bootstrap, cluster
from meshwright.core import clock as clocks
from meshwright.core import errors, process, renewal
from meshwright.core.kubernetes import Api, in_cluster
from meshwright.core.store import etcd_auth

_ETCD_SECONDS = 300.0  # an etcd that is being installed together with citadel pulls its image first


def run(name: str, arguments: Sequence[str]) -> int:
    """Run the command `name`; return the exit code, and print what was done or one line of what is wrong."""
    try:
        done = COMMANDS[name](arguments)
    except errors.MeshwrightError as error:
        print(f"meshwright-citadel: {error}", file=sys.stderr)
        return process.EX_CONFIG if isinstance(error, errors.ConfigError) else process.EX_UNAVAILABLE
    for line in done:
        print(line)
    return process.EX_OK


def _bootstrap(arguments: Sequence[str]) -> list[str]:
    parser = argparse.ArgumentParser(
        prog="meshwright-citadel bootstrap",
        description="Make the infrastructure CA, certificates for etcd, NATS and their clients, and the seal key of "
        "the mesh CA; renew what is near its end. Safe to run at every start and at every upgrade.",
    )
    parser.add_argument(
        "folder", metavar="DIR", type=Path, nargs="?", help="folder for the CA and its certificates (not in Kubernetes)"
    )
    parser.add_argument(
        "--kubernetes", action="store_true", help="write Secrets of this pod's cluster instead of a folder"
    )
    parser.add_argument(
        "--namespace", default="meshwright-system", help="namespace of the Secrets (default: meshwright-system)"
    )
    parser.add_argument(
        "--seal-key", type=Path, help="file of the 32-byte key that seals the mesh CA in etcd (default: DIR/seal.key)"
    )
    parser.add_argument(
        "--etcd-name", action="append", default=[], help="further DNS name or address of etcd; repeat for several"
    )
    parser.add_argument(
        "--nats-name", action="append", default=[], help="further DNS name or address of NATS; repeat for several"
    )
    parser.add_argument(
        "--force", action="store_true", help="issue every certificate anew; the CA and the seal key stay as they are"
    )
    parser.add_argument(
        "--remove", action="store_true", help="with --kubernetes: remove those Secrets, for good, after an uninstall"
    )
    chosen = parser.parse_args(arguments)
    if chosen.remove and not chosen.kubernetes:
        parser.error("--remove is for --kubernetes")
    if chosen.kubernetes == (chosen.folder is not None) or (chosen.kubernetes and chosen.seal_key):
        parser.error("give either DIR, or --kubernetes (where the seal key is a Secret too)")
    etcd_names, nats_names = tuple(chosen.etcd_name), tuple(chosen.nats_name)
    if chosen.kubernetes:
        secrets = cluster.Plan(chosen.namespace, etcd_names, nats_names, chosen.force)
        return asyncio.run(_secrets(secrets, remove=chosen.remove))
    seal_key = chosen.seal_key or chosen.folder / "seal.key"
    plan = bootstrap.Plan(chosen.folder, seal_key, etcd_names, nats_names, chosen.force)
    return bootstrap.run(plan, datetime.now(UTC))


async def _secrets(plan: cluster.Plan, *, remove: bool) -> list[str]:
    async with Api(in_cluster()) as api:
        if remove:
            return await cluster.remove(api, plan.namespace)
        return await cluster.run(api, plan, datetime.now(UTC))


def _etcd_users(arguments: Sequence[str]) -> list[str]:
    parser = argparse.ArgumentParser(
        prog="meshwright-citadel etcd-users",
        description="Wait for etcd, make its users and roles (one for each service, on its own prefixes) and turn "
        "authentication on. Safe to run at every start.",
    )
    parser.add_argument("--etcd", required=True, help="etcd endpoints as host:port,host:port")
    parser.add_argument(
        "--etcd-tls", required=True, type=Path, help="folder with root's cert.pem, key.pem and ca.pem for etcd"
    )
    parser.add_argument(
        "--wait-seconds", type=float, default=_ETCD_SECONDS, help=f"how long to wait for etcd ({_ETCD_SECONDS:.0f})"
    )
    chosen = parser.parse_args(arguments)
    endpoints = [part.strip() for part in chosen.etcd.split(",") if part.strip()]
    asyncio.run(enable_users(endpoints, chosen.etcd_tls, chosen.wait_seconds, clocks.SystemClock()))
    return [f"etcd asks who is there: users {', '.join(etcd_auth.ROLES)}"]


async def enable_users(endpoints: Sequence[str], tls: Path, seconds: float, clock: clocks.Clock) -> None:
    """Make etcd's users as soon as it answers; Unavailable after `seconds`."""
    backoff, give_up = renewal.Backoff(first=0.5, cap=5.0), clock.monotonic() + seconds
    while True:
        try:
            return await etcd_auth.enable(endpoints, tls)
        # Conflict: another replica does the same at this moment.
        except (errors.Unavailable, errors.DeadlineExceeded, errors.Conflict):
            if clock.monotonic() >= give_up:
                raise
        await clock.sleep(backoff.delay())


COMMANDS: Mapping[str, Callable[[Sequence[str]], list[str]]] = {"bootstrap": _bootstrap, "etcd-users": _etcd_users}
