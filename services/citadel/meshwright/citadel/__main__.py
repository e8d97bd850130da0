"""`meshwright-citadel`: the service, and `meshwright-citadel bootstrap DIR` for what must exist before it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from meshwright.citadel import app
from meshwright.citadel.infrastructure import bootstrap
from meshwright.citadel.settings import CitadelSettings
from meshwright.core import errors, process, settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["bootstrap"]:
        return _bootstrap(given[1:])
    chosen = settings.load(CitadelSettings, given)
    return process.run("meshwright-citadel", lambda stop: app.run(chosen, stop))


def _bootstrap(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="meshwright-citadel bootstrap",
        description="Make the infrastructure CA, certificates for etcd, NATS and their clients, and the seal key of "
        "the mesh CA; renew what is near its end. Safe to run at every start.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder for the CA and its certificates")
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
    chosen = parser.parse_args(arguments)
    plan = bootstrap.Plan(
        folder=chosen.folder,
        seal_key=chosen.seal_key or chosen.folder / "seal.key",
        etcd_names=tuple(chosen.etcd_name),
        nats_names=tuple(chosen.nats_name),
        force=chosen.force,
    )
    try:
        done = bootstrap.run(plan, datetime.now(UTC))
    except errors.ConfigError as error:
        print(f"meshwright-citadel: {error}", file=sys.stderr)
        return process.EX_CONFIG
    for line in done:
        print(line)
    return process.EX_OK


if __name__ == "__main__":
    sys.exit(main())
