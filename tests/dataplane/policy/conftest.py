"""One small compiled policy, and a mixer-like server in Rust that decides by it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.dataplane.grpc import NativeServer
from meshwright.dataplane.policy import Engine

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside this file


class Policy:
    """Writes a meshwright.policy.v1.Policy by hand: no compiler is under test here."""

    def __init__(self, revision: str = "1") -> None:
        self.message = pb.Policy(format=1, revision=revision, global_namespace="mesh")
        self._words: dict[str, int] = {}
        self._attributes: dict[str, int] = {}

    def word(self, word: str) -> int:
        if word not in self._words:
            self._words[word] = len(self.message.words)
            self.message.words.append(word)
        return self._words[word]

    def attribute(self, name: str, kind: pb.Type = pb.STRING) -> int:
        if name not in self._attributes:
            self._attributes[name] = len(self.message.attributes)
            self.message.attributes.add(name=self.word(name), type=kind)
        return self._attributes[name]

    def node(self, operation: pb.Operation, *arguments: int) -> int:
        self.message.nodes.add(operation=operation, arguments=arguments)
        return len(self.message.nodes) - 1

    def read(self, name: str, kind: pb.Type = pb.STRING) -> int:
        self.message.nodes.add(operation=pb.ATTRIBUTE, attribute=self.attribute(name, kind))
        return len(self.message.nodes) - 1

    def text(self, text: str) -> int:
        self.message.nodes.add(operation=pb.CONSTANT, constant=pb.Constant(word=self.word(text)))
        return len(self.message.nodes) - 1

    def integer(self, number: int) -> int:
        self.message.nodes.add(operation=pb.CONSTANT, constant=pb.Constant(int64_value=number))
        return len(self.message.nodes) - 1

    def entry(self, name: str, key: str) -> int:
        return self.node(pb.INDEX, self.read(name, pb.STRING_MAP), self.text(key))

    def equals(self, name: str, text: str) -> int:
        return self.node(pb.EQUAL, self.read(name), self.text(text))

    def instance(self, name: str, template: str, variety: pb.Variety = pb.CHECK, **fields: int) -> int:
        given = [pb.Field(name=field.replace("__", "."), value=node) for field, node in fields.items()]
        self.message.instances.add(name=name, namespace="mesh", template=template, variety=variety, fields=given)
        return len(self.message.instances) - 1

    def handler(self, name: str, **adapter: object) -> int:
        self.message.handlers.add(name=name, namespace="mesh", **adapter)
        return len(self.message.handlers) - 1

    def rule(self, match: int | None, handler: int, instance: int) -> None:
        action = pb.Action(handler=handler, instances=[instance])
        name = f"rule{len(self.message.rules)}"
        self.message.rules.add(name=name, namespace="mesh", match=match, actions=[action])

    def limit(self, name: str, match: int, most: int, window: int, *, fixed: bool = False, **dimensions: int) -> None:
        """A rule that charges a quota of its own."""
        quota = self.instance(
            name, "quota", pb.QUOTA, **{f"dimensions__{key}": value for key, value in dimensions.items()}
        )
        kind = pb.Handler.Limit.FIXED if fixed else pb.Handler.Limit.ROLLING
        held = pb.Handler.Limit(instance=quota, max_amount=most, window_nanos=window, window=kind)
        self.rule(match, self.handler(f"{name}-limits", quotas=pb.Handler.Quotas(limits=[held])), quota)

    def bytes(self) -> bytes:
        return self.message.SerializeToString()


def shop_policy(limit: int = 3) -> Policy:
    """Shop may not use /admin/, /limited is held to `limit` a minute per caller, reports go to sink `metrics`."""
    policy = Policy()
    validity = pb.Handler.Validity(duration_nanos=5_000_000_000, use_count=1000)
    denier = policy.handler("deny", denier=pb.Handler.Denier(code=7, message="admins only", validity=validity))
    nothing = policy.instance("nothing", "checknothing")
    is_admin = policy.node(pb.MATCH, policy.read("request.url_path"), policy.text("/admin/*"))
    is_shop = policy.equals("source.principal", "spiffe://mesh.local/ns/demo/sa/shop")
    policy.rule(policy.node(pb.AND, is_admin, is_shop), denier, nothing)
    caller = policy.node(pb.DEFAULT, policy.read("source.principal"), policy.text("unknown"))
    quota = policy.instance("requestcount", "quota", pb.QUOTA, dimensions__source=caller)
    held = pb.Handler.Limit(instance=quota, max_amount=limit, window_nanos=60_000_000_000)
    quotas = policy.handler("quotas", quotas=pb.Handler.Quotas(limits=[held]))
    policy.rule(policy.equals("request.url_path", "/limited"), quotas, quota)
    namespace = policy.read("source.namespace")
    policy.message.rules.add(
        name="headers",
        namespace="mesh",
        request_headers=[
            pb.HeaderOperation(name="x-source-namespace", operation=pb.HeaderOperation.REPLACE, values=[namespace]),
            pb.HeaderOperation(name="x-secret", operation=pb.HeaderOperation.REMOVE),
        ],
    )
    sink = policy.handler("metrics", report=pb.Handler.Sink(sink="metrics"))
    code = policy.read("response.code", pb.INT64)
    policy.rule(None, sink, policy.instance("requests", "metric", pb.REPORT, value=code))
    # Whatever comes by OTLP is forwarded.
    forward = policy.handler("forward", report=pb.Handler.Sink(sink="opentelemetry"))
    policy.rule(policy.equals("context.protocol", "otlp"), forward, policy.instance("all", "otlp", pb.REPORT))
    return policy


@pytest.fixture
def policy() -> Policy:
    """The small policy."""
    return shop_policy()


@pytest.fixture
def engine(policy: Policy) -> Engine:
    """An engine with the small policy."""
    engine = Engine()
    engine.load(policy.bytes())
    engine.carry_records(None, batch_seconds=0.01)
    return engine


@pytest.fixture
async def channel(engine: Engine) -> AsyncIterator[grpc.aio.Channel]:
    """A grpcio channel to the engine's services."""
    server = NativeServer("127.0.0.1:0", None, native=[engine.services], sample_roots=1.0)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
    await server.stop(1)
