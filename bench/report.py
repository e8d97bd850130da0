"""`report`: istio.mixer.v1 Report in batches of 100 records, with the queue on, into metrics and a JSON log.

meshwright-mixer with NATS behind it, whose CPU is told apart, against a bare tonic handler that decodes the same
request into maps and answers OK: it stores nothing and makes nothing of it. Same request, same client, same cores, in
turn.
Mixer's CPU is that of all it does, until the last record is acknowledged.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.pki import Pki

from bench import check, measure
from bench.result import Result, interleave, machine, median, require_quiet
from bench.service import free_port, service
from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core import identity
from meshwright.core.bus import server_config

FLOOR_QUIET_US = 7
RECORDS = 100
CONNECTIONS, STREAMS = 4, 4
MILLISECONDS = 3000
METHOD = "/istio.mixer.v1.Mixer/Report"
SETTLE_SECONDS = 60
RESPONSE_SIZE, RESPONSE_DURATION, RESPONSE_CODE = 27, 29, 30
WORDS = {
    **check.WORDS,
    RESPONSE_SIZE: "response.size",
    RESPONSE_DURATION: "response.duration",
    RESPONSE_CODE: "response.code",
}


def run(rounds: int) -> Result:
    """Measure both in turn."""
    sys.path.insert(0, str(measure.ROOT / "tests" / "core"))  # the tests' way to run NATS
    servers = importlib.import_module("servers")
    programs = measure.floors()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pki, infrastructure = Pki(), servers.InfrastructurePki()
        mixer = Pki.write(pki.part("mixer"), folder / "mixer")
        client = Pki.write(pki.workload("bench"), folder / "client")
        message = folder / "request"
        message.write_bytes(request().SerializeToString())
        words = folder / "words"
        words.write_text("\n".join(WORDS.get(index, "") for index in range(max(WORDS) + 1)))
        rules = folder / "rules"
        rules.mkdir()
        (rules / "rules.yaml").write_text(yaml.safe_dump_all(documents(folder / "access.log")))
        nats, bus = stack.enter_context(queue(servers, infrastructure, folder))
        bus += ("--nats-tls", str(infrastructure.write(folder / "mixer-nats", "mixer")))
        process, address = stack.enter_context(
            service("mixer", "--config", str(rules), *bus, identity=mixer, folder=folder)
        )
        queue_us: list[float] = []
        ours = Ours(programs, process, address, client, message, folder, nats, queue_us)
        floor, floor_address = stack.enter_context(floor_process(programs, mixer, words))
        sides: list[Callable[[], float]] = [ours, meter(programs, floor, floor_address, client, message)]
        for side in sides:
            side()  # warm caches and connections' code paths
        queue_us.clear()
        ours_us, floor_us = map(median, interleave(rounds, sides))
        lines = sum(1 for _ in (folder / "access.log").open())
        if lines != ours.records:
            raise RuntimeError(f"{ours.records} records were reported, {lines} lines written")
    require_quiet("bare tonic handler", floor_us, FLOOR_QUIET_US)
    return Result(
        name="report",
        ours=ours_us,
        against=floor_us,
        unit="µs",
        better="lower",
        cpu_us={
            "ours, a record": ours_us,
            "bare tonic handler, a record": floor_us,
            "NATS, a record": median(queue_us),
        },
        conditions={
            "tls": "mutual, TLS 1.3, to mixer and to NATS",
            "records a report": RECORDS,
            "bytes a record": len(request().SerializeToString()) // RECORDS,
            "metrics": "a counter and a distribution of 8 labels",
            "connections x streams": f"{CONNECTIONS}x{STREAMS}",
            "records, all rounds": ours.records,
            "milliseconds": MILLISECONDS,
            "rounds": rounds,
            **machine(),
        },
    )


@contextmanager
def floor_process(programs: Path, tls: Path, words: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the floor on the server's core."""
    command: list[str | Path] = [programs / "check_floor", "--listen", "127.0.0.1:0", "--tls", tls, "--words", words]
    with measure.process(*command, core=measure.SERVER_CORE) as process:
        yield process, measure.first_line(process)


@contextmanager
def queue(servers: Any, infrastructure: Any, folder: Path) -> Iterator[tuple[subprocess.Popen[str], tuple[str, ...]]]:
    """Run NATS as the platform does, on the client's core; yield it with mixer's settings for it."""
    port = free_port()
    config = folder / "nats.conf"
    tls = infrastructure.write(folder / "nats-tls", "nats")
    config.write_text(server_config(listen=f"127.0.0.1:{port}", tls=tls, store=folder / "nats"))
    command = [servers.nats_binary(), "-c", str(config)]
    with measure.process(*command, core=measure.CLIENT_CORE, quiet=True) as process:
        yield process, ("--nats", f"127.0.0.1:{port}")


class Ours:
    """Loads mixer and gives its CPU time a record, in microseconds, until the last one is through."""

    def __init__(
        self,
        programs: Path,
        process: subprocess.Popen[str],
        address: str,
        tls: Path,
        message: Path,
        folder: Path,
        nats: subprocess.Popen[str],
        queue_us: list[float],
    ) -> None:
        self._programs, self._process, self._nats, self._queue_us = programs, process, nats, queue_us
        self._arguments = arguments(address, tls, message)
        self._admin = folder / "mixer.sock"
        self.records = 0

    def __call__(self) -> float:
        """Load mixer for a while."""
        before, nats = measure.cpu_us(self._process.pid), measure.cpu_us(self._nats.pid)
        records = int(measure.load(self._programs, self._arguments)["calls"]) * RECORDS
        self.records += records
        self._settled()
        self._queue_us.append((measure.cpu_us(self._nats.pid) - nats) / records)
        return (measure.cpu_us(self._process.pid) - before) / records

    def _settled(self) -> None:
        """Wait until every record was handled and acknowledged."""
        deadline = time.monotonic() + SETTLE_SECONDS
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self._admin))) as client:
            while True:
                text = client.get("http://mixer/metrics").text
                found = re.search(r"^meshwright_mixer_records_acknowledged_total (\S+)$", text, re.MULTILINE)
                if found and float(found[1]) >= self.records:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{found and found[1]} of {self.records} records went through")
                time.sleep(0.2)  # each look costs mixer milliseconds, which count


def meter(
    programs: Path, process: subprocess.Popen[str], address: str, tls: Path, message: Path
) -> Callable[[], float]:
    """Return a function that loads the floor and gives its CPU time a record, in microseconds."""

    def load() -> float:
        before = measure.cpu_us(process.pid)
        calls = int(measure.load(programs, arguments(address, tls, message))["calls"])
        return (measure.cpu_us(process.pid) - before) / (calls * RECORDS)

    return load


def arguments(address: str, tls: Path, message: Path) -> list[str]:
    """Return the load client's arguments."""
    return [
        "--target", address, "--tls", str(tls), "--domain", identity.part_dns("mixer"), "--path", METHOD,
        "--message", str(message), "--connections", str(CONNECTIONS), "--streams", str(STREAMS),
        "--milliseconds", str(MILLISECONDS),
    ]  # fmt: skip


def request() -> mixer_pb2.ReportRequest:
    """Return what a sidecar sends: a hundred requests like the benchmark `check`'s, with one list of words for all."""
    sent = mixer_pb2.ReportRequest(
        repeated_attributes_semantics=mixer_pb2.ReportRequest.INDEPENDENT_ENCODING, global_word_count=222
    )
    own: dict[str, int] = {}

    def moved(index: int, words: list[str]) -> int:
        return index if index >= 0 else -own.setdefault(words[-index - 1], len(own)) - 1

    for number in range(RECORDS):
        checked = check.request().attributes
        words = [
            f"/items/{number}" if text == "/items/42" else text.replace("6f1d2c1e", f"{number:08x}")
            for text in checked.words
        ]
        element = sent.attributes.add()
        for name, value in checked.strings.items():
            element.strings[moved(name, words)] = moved(value, words)
        for kind in ("int64s", "bools", "bytes"):
            for name, value in getattr(checked, kind).items():
                getattr(element, kind)[moved(name, words)] = value
        for name, moment in checked.timestamps.items():
            element.timestamps[moved(name, words)].CopyFrom(moment)
        for name, entries in checked.string_maps.items():
            for key, value in entries.entries.items():
                element.string_maps[moved(name, words)].entries[moved(key, words)] = moved(value, words)
        element.int64s[RESPONSE_CODE] = 200 if number % 10 else 404
        element.int64s[RESPONSE_SIZE] = 1000 + number
        element.durations[RESPONSE_DURATION].FromMicroseconds(1500 + 10 * number)
    sent.default_words.extend(own)
    return sent


def documents(log: Path) -> list[dict[str, Any]]:
    """Return two metrics and a line for each request."""

    def made(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "meshwright-system"}
        return {"apiVersion": "config.istio.io/v1alpha2", "kind": kind, "metadata": metadata, "spec": spec}

    dimensions = {
        "reporter": 'context.reporter.kind | "unknown"',
        "source_workload": 'source.workload.name | "unknown"',
        "source_principal": 'source.principal | "unknown"',
        "destination_service": 'destination.service.host | "unknown"',
        "destination_namespace": 'destination.service.namespace | "unknown"',
        "request_protocol": 'context.protocol | "unknown"',
        "response_code": "response.code | 0",
        "mtls": "connection.mtls | false",
    }
    variables = {
        "method": 'request.method | ""',
        "path": 'request.path | ""',
        "code": "response.code | 0",
        "size": "response.size | 0",
        "duration": 'response.duration | "0s"',
        "source": 'source.principal | ""',
        "destination": 'destination.service.host | ""',
        "user_agent": 'request.useragent | ""',
        "request_id": 'request.id | ""',
    }
    labels = [*dimensions]
    metrics = [
        {"name": "requests_total", "instanceName": "count", "kind": "COUNTER", "labelNames": labels},
        {"name": "request_duration_seconds", "instanceName": "duration", "kind": "DISTRIBUTION", "labelNames": labels},
    ]
    stdio = {"logStream": "ROTATED_FILE", "outputPath": str(log), "outputAsJson": True, "maxMegabytesBeforeRotation": 0}
    duration = {"value": 'response.duration | "0s"', "dimensions": dimensions}
    severity = 'conditional((response.code | 0) >= 400, "warning", "info")'
    return [
        made("handler", "prom", {"compiledAdapter": "prometheus", "params": {"metrics": metrics}}),
        made("handler", "lines", {"compiledAdapter": "stdio", "params": stdio}),
        made("instance", "count", {"compiledTemplate": "metric", "params": {"value": "1", "dimensions": dimensions}}),
        made("instance", "duration", {"compiledTemplate": "metric", "params": duration}),
        made(
            "instance",
            "line",
            {
                "compiledTemplate": "logentry",
                "params": {"severity": severity, "timestamp": "request.time", "variables": variables},
            },
        ),
        made(
            "rule",
            "all",
            {
                "match": 'context.protocol == "http"',
                "actions": [
                    {"handler": "prom", "instances": ["count", "duration"]},
                    {"handler": "lines", "instances": ["line"]},
                ],
            },
        ),
    ]
