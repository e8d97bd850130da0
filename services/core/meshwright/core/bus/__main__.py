"""`python -m meshwright.core.bus`: writes the NATS server's configuration, where nothing of ours starts the server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from meshwright.core.bus.server_config import Cluster, server_config
from meshwright.core.settings import is_local


def main() -> int:
    """Write the file and return 0; wrong arguments end the process with a line that says so."""
    parser = argparse.ArgumentParser(prog="python -m meshwright.core.bus", description=__doc__)
    parser.add_argument("--listen", required=True, help="host:port for clients, mutual TLS")
    parser.add_argument("--tls", required=True, type=Path, help="folder with cert.pem, key.pem and ca.pem")
    parser.add_argument("--store", required=True, type=Path, help="folder in which streams are kept")
    parser.add_argument("--monitor", help="loopback host:port of the server's health in plain text (default: none)")
    parser.add_argument("--name", help="this server's name in a cluster (default: it is alone)")
    parser.add_argument("--cluster-listen", help="host:port for the cluster's other servers, mutual TLS")
    parser.add_argument("--route", action="append", default=[], help="host:port of a server of the cluster, for each")
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    chosen = parser.parse_args()
    if chosen.monitor and not is_local(chosen.monitor):
        parser.error(f"--monitor: {chosen.monitor} can be reached from other machines, in plain text")
    given = chosen.name, chosen.cluster_listen, chosen.route
    if any(given) and not all(given):
        parser.error("--name, --cluster-listen and --route go together: a server is alone, or one of a cluster")
    text = server_config(
        listen=chosen.listen,
        tls=chosen.tls,
        store=chosen.store,
        monitor=chosen.monitor,
        cluster=Cluster(*given) if all(given) else None,
    )
    chosen.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
