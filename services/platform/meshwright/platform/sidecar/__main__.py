"""`meshwright-sidecar redirect|run|connect|offer`: reads the arguments and starts what they name."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

EX_USAGE, EX_SOFTWARE = 64, 70
AGENT = "/run/meshwright/workload.sock"
NSMGR = "unix:/run/meshwright/nsm/nsmgr.sock"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser("meshwright-sidecar", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="redirect|run|connect|offer")
    for add in (_redirect, _run, _connect, _offer):
        add(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.main(options))
    except OSError as error:
        print(f"meshwright-sidecar: {error or type(error).__name__}", file=sys.stderr)
        return EX_SOFTWARE


def ports(text: str) -> tuple[int, ...]:
    """Read port numbers separated by commas."""
    numbers = tuple(int(part) for part in text.split(",") if part.strip())
    if not all(0 < number < 65536 for number in numbers):
        raise ValueError(text)
    return numbers


def ranges(text: str) -> tuple[str, ...]:
    """Read address ranges separated by commas."""
    return tuple(str(ipaddress.ip_network(part.strip())) for part in text.split(",") if part.strip())


def _redirect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("redirect", help="send the pod's TCP connections to the proxy (needs NET_ADMIN)")
    parser.add_argument("--exclude-outbound-ports", type=ports, default=())
    parser.add_argument("--exclude-outbound-ranges", type=ranges, default=())
    parser.add_argument("--exclude-inbound-ports", type=ports, default=())
    parser.add_argument("--exclude-interfaces", type=lambda text: tuple(filter(None, text.split(","))), default=())
    parser.add_argument("--print", action="store_true", help="print the rules instead")

    def run(options: argparse.Namespace) -> int:
        from meshwright.platform.sidecar import redirect

        rules = redirect.rules(
            outbound_ports=options.exclude_outbound_ports,
            outbound_ranges=options.exclude_outbound_ranges,
            inbound_ports=options.exclude_inbound_ports,
            interfaces=options.exclude_interfaces,
        )
        if options.print:
            print(rules, end="")
            return 0
        return redirect.apply(rules)

    parser.set_defaults(main=run)


def _node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trust-domain", default="mesh.local")
    parser.add_argument("--agent-socket", default=AGENT, help="the node's SPIFFE Workload API and SDS")


def _run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("run", help="run the proxy, answer probes, drain before the end")
    _node(parser)
    for name, what in (
        ("namespace", "the pod's namespace"),
        ("pod", "the pod's name"),
        ("address", "the pod's IP address"),
        ("manager", "the manager as HOST:PORT"),
        ("mixer", "mixer as HOST:PORT; all addresses of the name are used"),
        ("collector", "the collector as HOST:PORT"),
    ):
        parser.add_argument(f"--{name}", required=True, help=what)
    parser.add_argument("--account", default="", help="the pod's service account")
    parser.add_argument("--labels", type=Path, help="file with the pod's labels, as the downward API writes it")
    parser.add_argument("--folder", type=Path, default=Path("/run/meshwright-sidecar"), help="for files of its own")
    parser.add_argument("--concurrency", type=int, default=2, help="the proxy's threads")
    parser.add_argument("--drain-seconds", type=float, default=5.0, help="longest wait for requests at the end")
    parser.add_argument("--health-port", type=int, default=15020)
    parser.add_argument("--log-level", default="warning", help="Envoy's")
    parser.add_argument(
        "--probe",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="answer /probe/NAME by asking the application: http://:PORT/PATH, https://, tcp://:PORT, grpc://:PORT/SERVICE",
    )

    def run(options: argparse.Namespace) -> int:
        from meshwright.platform.sidecar import run as sidecar

        return asyncio.run(_until_stopped(lambda stop: sidecar.run(options, stop)))

    parser.set_defaults(main=run)


def _connect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("connect", help="keep the pod connected to network services")
    _node(parser)
    parser.add_argument("--name", required=True, help="the client's name: the pod's")
    parser.add_argument("--nsmgr", default=NSMGR)
    parser.add_argument("--ready-file", type=Path, help="exists while all connections are up")
    parser.add_argument("services", nargs="+", metavar="kernel://SERVICE/INTERFACE")

    def run(options: argparse.Namespace) -> int:
        from meshwright.platform.sidecar import network_service

        return network_service.connect(options)

    parser.set_defaults(main=run)


def _offer(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("offer", help="offer a network service whose connections end in this pod")
    _node(parser)
    parser.add_argument("--name", required=True, help="the endpoint's name: the pod's")
    parser.add_argument("--nsmgr", default=NSMGR)
    parser.add_argument("--service", required=True)
    parser.add_argument("--prefix", required=True, help="addresses of the connections, such as 172.16.7.0/24")
    parser.add_argument("--sockets", type=Path, default=Path("/run/meshwright-sidecar"), help="folder for its socket")
    parser.add_argument("--ready-file", type=Path, help="exists while the endpoint is registered")

    def run(options: argparse.Namespace) -> int:
        from meshwright.platform.sidecar import network_service

        return network_service.offer(options)

    parser.set_defaults(main=run)


async def _until_stopped(main: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await main(stop)


if __name__ == "__main__":
    sys.exit(main())
