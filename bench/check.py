"""`check`: a policy check over gRPC with mutual TLS.

meshwright-mixer with a hundred rules, against a bare tonic handler that decodes the same request into maps and answers
OK. Same request, same client, same cores, in turn.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
RULES = 100
MILLISECONDS = 2000
CONNECTIONS, STREAMS = 16, 16
METHOD = "/istio.mixer.v1.Mixer/Check"

# The part of the global dictionary that the request uses: index and word.
WORDS = {
    0: "source.ip",
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
    174: "source.principal",
    177: "connection.mtls",
    182: "source.workload.name",
    186: "destination.principal",
    191: "destination.service.name",
    192: "destination.service.namespace",
    193: "destination.service.host",
    201: "context.reporter.kind",
    203: "request.url_path",
    219: "inbound",
}


def run(rounds: int) -> Result:
    """Measure both in turn."""
    programs = measure.floors()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pki = Pki()
        mixer = Pki.write(pki.part("mixer"), folder / "mixer")
        client = Pki.write(pki.workload("bench"), folder / "client")
        message = folder / "request"
        message.write_bytes(request().SerializeToString())
        words = folder / "words"
        words.write_text("\n".join(WORDS.get(index, "") for index in range(max(WORDS) + 1)))
        rules = folder / "rules"
        rules.mkdir()
        (rules / "rules.yaml").write_text(yaml.safe_dump_all(documents()))
        ours = stack.enter_context(service("mixer", "--config", str(rules), identity=mixer, folder=folder))
        floor = stack.enter_context(floor_process(programs, mixer, words))
        sides = [meter(programs, *side, client, message) for side in (ours, floor)]
        for side in sides:
            side()  # warm caches and connections' code paths
        ours_us, floor_us = map(median, interleave(rounds, sides))
    require_quiet("bare tonic handler", floor_us, FLOOR_QUIET_US)
    return Result(
        name="check",
        ours=ours_us,
        against=floor_us,
        unit="µs",
        better="lower",
        cpu_us={"ours": ours_us, "bare tonic handler": floor_us},
        conditions={
            "tls": "mutual, TLS 1.3",
            "connections x streams": f"{CONNECTIONS}x{STREAMS}",
            "request bytes": len(request().SerializeToString()),
            "rules": RULES,
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


def meter(
    programs: Path, process: subprocess.Popen[str], address: str, tls: Path, message: Path
) -> Callable[[], float]:
    """Return a function that loads one server and gives its CPU time a call, in microseconds."""
    arguments = ["--target", address, "--tls", str(tls), "--domain", identity.part_dns("mixer"), "--path", METHOD]
    arguments += ["--message", str(message), "--connections", str(CONNECTIONS), "--streams", str(STREAMS)]
    arguments += ["--milliseconds", str(MILLISECONDS)]

    def load() -> float:
        before = measure.cpu_us(process.pid)
        calls = measure.load(programs, arguments)["calls"]
        return (measure.cpu_us(process.pid) - before) / int(calls)

    return load


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
        "source.workload.name": "shop-v1-7d5b8c9f4-x2k9p",
        "destination.principal": "spiffe://mesh.local/ns/default/sa/catalog",
        "destination.uid": "kubernetes://catalog-v1-59c4d7b8f6-4mzqs.default",
        "destination.namespace": "default",
        "destination.service.host": "catalog.default.svc.cluster.local",
        "destination.service.name": "catalog",
        "destination.service.namespace": "default",
        "context.protocol": "http",
        "context.reporter.kind": "inbound",
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


def documents() -> list[dict[str, Any]]:
    """Return a denier, a list of callers, and a hundred rules: four look at this request, none denies it."""

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
        for index in range(RULES - 1 - len(matches))
    ]
    deny = [{"handler": "deny", "instances": ["nothing"]}]
    made += [document("rule", f"rule-{i}", {"match": match, "actions": deny}) for i, match in enumerate(matches)]
    return made
