"""`python -m meshwright.core.bus`: writes the NATS server's configuration, where nothing of ours starts the server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from meshwright.core.bus.server_config import server_config
from meshwright.core.settings import is_local


def main() -> int:
    """Write the file and return 0; wrong arguments end the process with a line that says so."""
    parser = argparse.ArgumentParser(prog="python -m meshwright.core.bus", description=__doc__)
    parser.add_argument("--listen", required=True, help="host:port for clients, mutual TLS")
    parser.add_argument("--tls", required=True, type=Path, help="folder with cert.pem, key.pem and ca.pem")
    parser.add_argument("--store", required=True, type=Path, help="folder in which streams are kept")
    parser.add_argument("--monitor", help="loopback host:port of the server's health in plain text (default: none)")
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    chosen = parser.parse_args()
    if chosen.monitor and not is_local(chosen.monitor):
        parser.error(f"--monitor: {chosen.monitor} can be reached from other machines, in plain text")
    text = server_config(listen=chosen.listen, tls=chosen.tls, store=chosen.store, monitor=chosen.monitor)
    chosen.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
