"""`check`: a policy check over gRPC with mutual TLS.

meshwright-mixer with four rules, against a bare tonic handler that decodes the same request into maps and answers OK.
Same request (36 attributes, about 1 KB), same client, same cores, in turn.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tests.pki import Pki

from bench import measure
from bench.result import Result, interleave, machine, median, require_quiet
from bench.service import service
from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core import identity

FLOOR_QUIET_US = 17
MILLISECONDS = 2000
CONCURRENCY = 4, 8  # connections, and calls under way on each
STEADY = 0.6  # of the rate that the slower of the two can take
# Short, and in turn with the other side's, so that what stops the machine for a moment stops both as often.
STEADY_MILLISECONDS, STEADY_WINDOWS = 250, 16  # of each side a round
LATENCY_BUCKETS = 50  # of grpc_load, between a latency and its double
METHOD = "/istio.mixer.v1.Mixer/Check"

CONDITIONS: dict[str, Any] = {
    "tls": "mutual, TLS 1.3",
    "connections x streams": f"{CONCURRENCY[0]}x{CONCURRENCY[1]}",
    "milliseconds": MILLISECONDS,
}

# The part of the global dictionary that the request uses: index and word.
WORDS = {
    0: "source.ip",
    3: "source.uid",
    4: "source.namespace",
    5: "source.labels",
    15: "request.headers",
    16: "request.id",
    17: "request.path",
    18: "request.host",
    19: "request.method",
    22: "request.scheme",
    24: "request.time",
    25: "request.useragent",
    31: ":authority",
    32: ":method",
    33: ":path",
    46: "accept",
    86: "user-agent",
    90: "GET",
    92: "http",
    98: "x-forwarded-for",
    100: "x-forwarded-proto",
    102: "x-request-id",
    131: "context.protocol",
    150: "destination.ip",
    151: "destination.port",
    154: "destination.uid",
    155: "destination.namespace",
    156: "destination.labels",
    162: "api.protocol",
    163: "request.auth.principal",
    174: "source.principal",
    177: "connection.mtls",
    179: "source.owner",
    182: "source.workload.name",
    183: "source.workload.namespace",
    186: "destination.principal",
    187: "destination.workload.uid",
    188: "destination.workload.name",
    189: "destination.workload.namespace",
    191: "destination.service.name",
    192: "destination.service.namespace",
    193: "destination.service.host",
    194: "destination.container.name",
    197: "context.reporter.uid",
    201: "context.reporter.kind",
    203: "request.url_path",
    219: "inbound",
}


def run(rounds: int) -> Result:
    """Measure ours with four rules and the floor in turn: under load, one call at a time, and at a steady rate."""
    with ExitStack() as stack:
        bench = Bench(stack)
        sides = [bench.mixer("four", documents(4)), bench.floor()]
        for side in sides:
            side.saturated()  # warm caches and connections' code paths
        ours_us, floor_us = map(median, interleave(rounds, [side.saturated for side in sides]))
        require_quiet("bare tonic handler", floor_us, FLOOR_QUIET_US)
        alone = [median(series) for series in interleave(rounds, [side.alone for side in sides])]
        # The same rate for both, of what the slower can do.
        rate = int(STEADY * min(side.most for side in sides))
        late = interleave(rounds * STEADY_WINDOWS, [partial(side.steady, rate) for side in sides])
        steady = [percentile(side.latencies, 0.99) for side in sides]
    return Result(
        name="check",
        ours=ours_us,
        against=floor_us,
        unit="µs",
        better="lower",
        goal=1.1,
        cpu_us={"ours": ours_us, "bare tonic handler": floor_us},
        conditions={
            **CONDITIONS,
            "rules": 4,
            "rounds": rounds,
            "steady, client's own delay, p99 µs": round(median([window for series in late for window in series])),
            **machine(),
        },
        beside=[
            latency("check, one at a time, p50", alone, goal=1.2),
            latency(f"check, {rate} a second ({STEADY:.0%} of the slower's most), p99", steady, goal=1.5),
        ],
    )


def latency(name: str, found: Sequence[float], goal: float) -> Result:
    """Return ours beside the floor's."""
    ours, floor = found
    return Result(name=name, ours=ours, against=floor, unit="µs", better="lower", cpu_us={}, goal=goal)


def percentile(latencies: Counter[int], share: float) -> float:
    """Return the latency in microseconds that this share of the calls kept within."""
    left = share * latencies.total()
    for bucket in sorted(latencies):
        left -= latencies[bucket]
        if left < 0:
            return float(2 ** ((bucket + 0.5) / LATENCY_BUCKETS))
    raise ValueError("no calls, or a share above one")


class Bench:
    """Programs, certificates and the request that all sides share; processes end with `stack`."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.programs = stack, measure.floors()
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pki = Pki()
        self.server = Pki.write(pki.part("mixer"), self.folder / "server")
        self.client = Pki.write(pki.workload("bench"), self.folder / "client")
        self.message = self.folder / "request"
        self.message.write_bytes(request().SerializeToString())

    def mixer(
        self, name: str, rules: Sequence[dict[str, Any]], *, message: Path | None = None, load: Sequence[str] = ()
    ) -> Side:
        """Return a mixer of its own with these documents; `load` are more arguments of the load generator."""
        folder = self.folder / name
        (folder / "rules").mkdir(parents=True)
        (folder / "rules" / "rules.yaml").write_text(yaml.safe_dump_all(rules))
        started = service("mixer", "--config", str(folder / "rules"), identity=self.server, folder=folder)
        return Side(self, *self.stack.enter_context(started), message=message or self.message, load=load)

    def floor(self, *more: str | Path) -> Side:
        """Return the bare handler, with `more` arguments."""
        words = self.folder / "words"
        words.write_text("\n".join(WORDS.get(index, "") for index in range(max(WORDS) + 1)))
        program = self.programs / "check_floor"
        arguments: list[str | Path] = ["--listen", "127.0.0.1:0", "--tls", self.server, "--words", words, *more]
        process = self.stack.enter_context(measure.process(program, *arguments, core=measure.SERVER_CORE))
        return Side(self, process, measure.first_line(process), message=self.message)


class Side:
    """A server under measurement."""

    def __init__(
        self, bench: Bench, process: subprocess.Popen[str], address: str, *, message: Path, load: Sequence[str] = ()
    ) -> None:
        self._bench, self._process = bench, process
        self._arguments = ["--target", address, "--tls", str(bench.client), "--domain", identity.part_dns("mixer")]
        self._arguments += ["--path", METHOD, "--message", str(message), *load]
        self.most = 0.0
        self.latencies: Counter[int] = Counter()

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def saturated(self) -> float:
        """CPU microseconds a call when as many calls are under way as CONCURRENCY says; `most` is the rate then."""
        before = measure.cpu_us(self._process.pid)
        found = self.load(*CONCURRENCY)
        self.most = found["calls"] / found["seconds"]
        return (measure.cpu_us(self._process.pid) - before) / float(found["calls"])

    def alone(self) -> float:
        """Median latency of one call at a time, in microseconds."""
        return float(self.load(1, 1)["p50_us"])

    def steady(self, rate: int) -> float:
        """Make so many calls a second for a moment, and add their latencies, from when each was due, to `latencies`.

        Return the 99th percentile of how late the client itself was, in microseconds.
        """
        found = self.load(*CONCURRENCY, "--rate", str(rate), milliseconds=STEADY_MILLISECONDS)
        self.latencies.update(dict(found["latencies"]))
        return float(found["late_p99_us"])

    def load(self, connections: int, streams: int, *more: str, milliseconds: int = MILLISECONDS) -> dict[str, Any]:
        """Load it once; what the client has printed."""
        shape = ["--connections", str(connections), "--streams", str(streams), "--milliseconds", str(milliseconds)]
        return measure.load(self._bench.programs, [*self._arguments, *shape, *more])


def request() -> mixer_pb2.CheckRequest:
    """Return a sidecar's request of about 1 KB: global words where they exist, the rest in the message's own list."""
    known = {word: index for index, word in WORDS.items()}
    own: list[str] = []

    def word(text: str) -> int:
        if text in known:
            return known[text]
        if text not in own:
            own.append(text)
        return -own.index(text) - 1

    sent = mixer_pb2.CheckRequest(global_word_count=222, deduplication_id="bench")
    bag = sent.attributes
    for name, value in {
        "source.namespace": "default",
        "source.principal": "spiffe://mesh.local/ns/default/sa/shop",
        "source.uid": "kubernetes://shop-v1-7d5b8c9f4-x2k9p.default",
        "source.owner": "shop-v1",
        "source.workload.name": "shop-v1",
        "source.workload.namespace": "default",
        "destination.principal": "spiffe://mesh.local/ns/default/sa/catalog",
        "destination.uid": "kubernetes://catalog-v1-59c4d7b8f6-4mzqs.default",
        "destination.namespace": "default",
        "destination.service.host": "catalog.default.svc.cluster.local",
        "destination.service.name": "catalog",
        "destination.service.namespace": "default",
        "destination.workload.uid": "catalog-v1",
        "destination.workload.name": "catalog-v1",
        "destination.workload.namespace": "default",
        "destination.container.name": "catalog",
        "api.protocol": "http",
        "context.protocol": "http",
        "context.reporter.kind": "inbound",
        "context.reporter.uid": "kubernetes://catalog-v1-59c4d7b8f6-4mzqs.default",
        "request.auth.principal": "spiffe://mesh.local/ns/default/sa/shop",
        "request.id": "6f1d2c1e-0a5b-4f0e-9c53-0d9b7e9f1a11",
        "request.method": "GET",
        "request.host": "catalog:8080",
        "request.scheme": "http",
        "request.path": "/items/42?fields=name,price",
        "request.url_path": "/items/42",
        "request.useragent": "shop/1.4 (python-httpx)",
    }.items():
        bag.strings[word(name)] = word(value)
    bag.int64s[word("destination.port")] = 8080
    bag.bools[word("connection.mtls")] = True
    bag.bytes[word("source.ip")] = bytes([10, 4, 1, 7])
    bag.bytes[word("destination.ip")] = bytes([10, 4, 2, 9])
    bag.timestamps[word("request.time")].FromSeconds(1_795_000_000)
    for name, entries in {
        "request.headers": {
            ":authority": "catalog:8080",
            ":method": "GET",
            ":path": "/items/42?fields=name,price",
            "accept": "*/*",
            "user-agent": "shop/1.4 (python-httpx)",
            "x-forwarded-proto": "http",
            "x-forwarded-for": "10.4.1.7",
            "x-request-id": "6f1d2c1e-0a5b-4f0e-9c53-0d9b7e9f1a11",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        },
        "source.labels": {"app": "shop", "version": "v1", "pod-template-hash": "7d5b8c9f4"},
        "destination.labels": {"app": "catalog", "version": "v1", "pod-template-hash": "59c4d7b8f6"},
    }.items():
        for key, value in entries.items():
            bag.string_maps[word(name)].entries[word(key)] = word(value)
    bag.words.extend(own)
    return sent


def documents(rules: int) -> list[dict[str, Any]]:
    """Return a denier, a list of callers, and so many rules: four look at this request, none denies it."""

    def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "meshwright-system"}
        return {"apiVersion": "config.istio.io/v1alpha2", "kind": kind, "metadata": metadata, "spec": spec}

    made = [
        document("handler", "deny", {"compiledAdapter": "denier", "params": {"status": {"code": 7, "message": "no"}}}),
        document(
            "handler",
            "callers",
            {
                "compiledAdapter": "listchecker",
                "params": {"overrides": ["spiffe://mesh.local/ns/default/sa/shop"], "entryType": "STRINGS"},
            },
        ),
        document("instance", "nothing", {"compiledTemplate": "checknothing", "params": {}}),
        document("instance", "caller", {"compiledTemplate": "listentry", "params": {"value": 'source.principal | ""'}}),
        document(
            "rule",
            "known-callers",
            {
                "match": 'destination.service.host == "catalog.default.svc.cluster.local"',
                "actions": [{"handler": "callers", "instances": ["caller"]}],
            },
        ),
    ]
    matches = [
        'request.url_path.startsWith("/admin") && request.method != "GET"',
        'request.headers["x-debug"] == "1"',
        'context.protocol == "http" && destination.port == 9999',
    ]
    matches += [
        f'destination.service.host == "service-{index}.default.svc.cluster.local" && request.method == "DELETE"'
        for index in range(rules - 1 - len(matches))
    ]
    deny = [{"handler": "deny", "instances": ["nothing"]}]
    made += [document("rule", f"rule-{i}", {"match": match, "actions": deny}) for i, match in enumerate(matches)]
    return made
