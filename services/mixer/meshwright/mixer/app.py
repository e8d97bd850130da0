"""mixer, built top to bottom in the order in which it starts: identity, store, engine, policy, pipeline, server.

One decision to know: nothing listens before a first policy is in force, and a stopping mixer first ends its calls, then
stores the records that they left.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

import prometheus_client
import structlog
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from meshwright.api.config.v1 import config_pb2_grpc
from meshwright.api.envoy.service.accesslog.v3 import als_pb2
from meshwright.api.envoy.service.auth.v3 import external_auth_pb2
from meshwright.api.envoy.service.ratelimit.v3 import rls_pb2
from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.api.mixer.v1 import introspection_pb2_grpc, quota_pb2
from meshwright.core import config, service
from meshwright.core import health as healths
from meshwright.core import store as stores
from meshwright.core.identity import part_id
from meshwright.dataplane import telemetry as native_telemetry
from meshwright.dataplane.policy import Engine, Questions, RecordQueue
from meshwright.mixer import adapters, policy
from meshwright.mixer.adapter.v1 import Adapter, discover
from meshwright.mixer.asking.host import AdapterHost
from meshwright.mixer.asking.question_metrics import QuestionMetrics
from meshwright.mixer.config.compiled import Compiled
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.engine_metrics import EngineMetrics
from meshwright.mixer.host import MixerHost
from meshwright.mixer.introspection import IntrospectionServicer
from meshwright.mixer.pipeline.carrier import Carrier
from meshwright.mixer.pipeline.dispatch import Dispatcher
from meshwright.mixer.policy import PolicyFollower
from meshwright.mixer.provided_lists import ProvidedLists
from meshwright.mixer.quota.leases import QuotaLeases
from meshwright.mixer.remote.handlers import REPORTS
from meshwright.mixer.remote.keeper import RemoteKeeper
from meshwright.mixer.remote.objections import Objections
from meshwright.mixer.remote.reports import RemoteReports
from meshwright.mixer.replicas import Replicas
from meshwright.mixer.settings import MixerSettings
from meshwright.mixer.validate import ValidationServicer

_OTLP = (trace_service_pb2, metrics_service_pb2, logs_service_pb2)
_NATIVE = [
    service
    for file in (mixer_pb2, external_auth_pb2, rls_pb2, als_pb2, *_OTLP, quota_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]  # what the engine answers
_MEMORY_BYTES = 32 << 20  # of records that wait in this process when there is no NATS

_log = structlog.get_logger(__name__)


async def run(settings: MixerSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    replica = settings.replica or uuid.uuid4().hex[:12]
    health = healths.Health(policy.PART, "listener")
    installed = _installed(health)
    async with service.begun(settings, health) as own:
        stack, identity = own.stack, own.identity
        store = await stack.enter_async_context(stores.connect(settings))
        source = await stack.enter_async_context(config.connect(settings, store, health))

        engine = Engine(identity)
        stack.callback(engine.close)
        engine.set_rate_limit_headers(settings.rate_limit_headers)
        metrics = EngineMetrics(engine.stats, engine.trials, native_telemetry.dropped)
        prometheus_client.REGISTRY.register(metrics)
        stack.callback(prometheus_client.REGISTRY.unregister, metrics)
        own.show(engine.prometheus)

        lent = MixerHost(settings.otlp, replica, identity, settings.trust_domain)
        questions = Questions()
        stack.callback(questions.close)
        engine.ask_python(questions)
        asked = QuestionMetrics(lambda: {**questions.statistics(), **engine.remote_statistics()}, questions.batches)
        prometheus_client.REGISTRY.register(asked)
        stack.callback(prometheus_client.REGISTRY.unregister, asked)
        remotes = RemoteKeeper(identity, health, engine.set_authorization, engine.set_session)
        stack.push_async_callback(remotes.close)
        hosted = {**installed, REPORTS: RemoteReports(identity, remotes.get)}
        host = await stack.enter_async_context(AdapterHost(hosted, lent, health, questions, engine.outdated))
        dispatcher = Dispatcher(host.report, health)

        def loader() -> PolicyLoader:
            """Compiles, and asks an engine that serves nobody."""
            export = settings.otlp is not None
            return PolicyLoader(
                installed,
                Engine().load,
                export=export,
                namespace=settings.global_namespace,
                max_validity=settings.max_validity,
            )

        async def load(compiled: Compiled) -> None:
            await asyncio.gather(host.prepare(compiled.sinks), remotes.prepare(compiled.remotes))
            await asyncio.to_thread(engine.load, compiled.policy)
            host.commit(compiled.sinks)
            remotes.commit()
            dispatcher.configure(compiled.sinks)

        lists = await stack.enter_async_context(ProvidedLists(health))
        judge = loader()  # of what is to be served and of what is to be committed, which differ little
        follower = PolicyFollower(source, judge, load, health, lists)
        if settings.config:
            await follower.take(source.current())  # a folder that can't be served is an error at the start
        carrier = Carrier(engine, dispatcher, health)
        replicas = Replicas(store, replica, engine.set_replicas, health, ttl_seconds=settings.replica_ttl)
        leases = QuotaLeases(store, engine, replica, health)
        server = own.server(_rules(settings.trust_domain), native=[engine.services])
        objections = Objections(identity)
        validation = ValidationServicer(judge, lambda: follower.left_out, objections, remotes.handler)
        config_pb2_grpc.add_ValidationServicer_to_server(validation, server)

        introspection_pb2_grpc.add_IntrospectionServicer_to_server(IntrospectionServicer(engine), server)

        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(follower.follow(), name="follow configuration")]
            first = tasks.create_task(follower.first.wait(), name="first policy")
            stopped = tasks.create_task(stop.wait(), name="stop")
            await asyncio.wait({first, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                await asyncio.to_thread(_carry, engine, settings)
                address = await own.serve(server, native=_NATIVE)
                health.set("listener", True)
                _log.info("mixer_serving", address=address, replica=replica, adapters=sorted(installed))
                background += [
                    tasks.create_task(replicas.follow(), name="follow replicas"),
                    tasks.create_task(replicas.register(settings.advertise or address), name="register replica"),
                    tasks.create_task(leases.run(), name="lease quotas"),
                    tasks.create_task(leases.sweep(), name="sweep quotas"),
                    tasks.create_task(carrier.run(), name="deliver records"),
                    tasks.create_task(carrier.watch(), name="watch records"),
                ]
                await stopped
                await server.stop(2.0)
                if not await asyncio.to_thread(engine.finish_records, settings.drain_seconds):
                    _log.warning("records_lost", reason="not stored in time", seconds=settings.drain_seconds)
            for task in [*background, first, stopped]:
                task.cancel()


def _installed(health: healths.Health) -> Mapping[str, Adapter]:
    """The adapters that can be used; a broken package is told of, and only handlers that name it suffer."""
    found = discover(adapters.BUILT_IN)
    for number, fault in enumerate(found.faults, 1):
        health.degrade(f"installed adapter {number}", str(fault)[:300])
    return found.adapters


def _carry(engine: Engine, settings: MixerSettings) -> None:
    """Begin the way of records."""
    queue = settings.nats and RecordQueue(
        servers=settings.nats,
        tls=settings.nats_tls,
        user=settings.part,
        max_bytes=settings.record_bytes,
        replicas=settings.record_replicas,
    )
    engine.carry_records(
        queue or None,
        memory_bytes=min(settings.record_bytes, _MEMORY_BYTES),
        batch_records=settings.batch_records,
        batch_seconds=settings.batch_seconds,
        rest_seconds=settings.rest_seconds,
    )


def _rules(trust_domain: str) -> list[tuple[str, list[str]]]:
    everyone = f"spiffe://{trust_domain}/*"
    return [
        ("/istio.mixer.v1.Mixer/", [everyone]),
        ("/envoy.service.auth.v3.Authorization/", [everyone]),
        ("/envoy.service.ratelimit.v3.RateLimitService/", [everyone]),
        ("/envoy.service.accesslog.v3.AccessLogService/", [everyone]),
        *(
            (f"/{service.full_name}/", [everyone])
            for file in _OTLP
            for service in file.DESCRIPTOR.services_by_name.values()
        ),
        ("/meshwright.mixer.v1.QuotaPeer/", [part_id(trust_domain, "mixer")]),
        ("/meshwright.mixer.v1.Introspection/", [part_id(trust_domain, "admin")]),
        (
            "/meshwright.config.v1.Validation/",
            [part_id(trust_domain, "manager"), part_id(trust_domain, "admin")],
        ),
    ]
