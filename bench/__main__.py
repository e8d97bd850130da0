"""`python -m bench list` and `python -m bench run NAME [--json]`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from bench.result import Busy

NAMES = {
    "check": "a policy check over gRPC, against a bare tonic handler that decodes the same request and answers OK",
    "check-python-adapter": "a policy check that asks an adapter in Python, against the same check without it",
    "check-quota": "a policy check that charges one quota, against the same check without it",
    "check-remote-adapter": "what asking an adapter in another process adds to a check, against a bare tonic call",
    "check-rules": "a policy check with 10,000 rules of which four can match, against ten rules",
    "load": "our load generator beside wrk: percentiles on the same server, its maximum, the error of its rate",
    "report": "reports of 100 records, queued, into metrics and a log, against a handler that only decodes them",
    "push": "one endpoint's change to 200 ADS clients, against a bare server that writes the same bytes",
    "push-resources": "the same with 10,000 endpoints in the xDS cache alone, and the first full push of them",
    "serve": "an echo over gRPC on one core, against grpc.aio, grpcio's threads, grpc-go and bare tonic",
    "forward-memif": "packets from memif to memif, against dpdk-testpmd on two net_memif ports",
    "forward-null": "packets between DPDK's null devices, against dpdk-testpmd",
    "issue": "a certificate for a CSR, against bare `cryptography`",
}


def main() -> int:
    """Run one benchmark; status 1 when the machine was too busy for its figures to mean anything."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the benchmarks")
    run = commands.add_parser("run", help="run one")
    run.add_argument("name", choices=sorted(NAMES))
    run.add_argument("--json", action="store_true", help="print one object instead of lines")
    run.add_argument("--rounds", type=int, default=5, help="interleaved runs of each side (default: 5)")
    arguments = parser.parse_args()
    if arguments.command == "list":
        for name, text in NAMES.items():
            print(f"{name:20} {text}")
        return 0
    try:
        result = importlib.import_module(f"bench.{arguments.name.replace('-', '_')}").run(arguments.rounds)
    except Busy as error:
        print(f"bench {arguments.name}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result.as_dict()) if arguments.json else result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
