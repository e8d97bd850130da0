"""mixer, built top to bottom in the order in which it starts: identity, store, bus, engine, policy, pipeline, server.

One decision to know: nothing listens before a first policy is in force, and a stopping mixer first ends its calls, then
stores the records that they left.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

import prometheus_client
import structlog

from meshwright.api.config.v1 import config_pb2_grpc
from meshwright.api.envoy.service.accesslog.v3 import als_pb2
from meshwright.api.envoy.service.auth.v3 import external_auth_pb2
from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.api.mixer.v1 import quota_pb2
from meshwright.core import bus as buses
from meshwright.core import config, errors, service
from meshwright.core import health as healths
from meshwright.core import store as stores
from meshwright.core.identity import part_id
from meshwright.dataplane import telemetry as native_telemetry
from meshwright.dataplane.policy import Engine
from meshwright.mixer import adapters, policy
from meshwright.mixer.adapter.v1 import Adapter, AdapterError, discover
from meshwright.mixer.config.compiler import Compiled
from meshwright.mixer.engine_metrics import EngineMetrics
from meshwright.mixer.host import MixerHost
from meshwright.mixer.pipeline.dispatch import Dispatcher
from meshwright.mixer.pipeline.pump import Pump
from meshwright.mixer.pipeline.worker import Worker
from meshwright.mixer.policy import PolicyFollower
from meshwright.mixer.replicas import Replicas
from meshwright.mixer.settings import MixerSettings
from meshwright.mixer.validate import ValidationServicer

_NATIVE = [
    service
    for file in (mixer_pb2, external_auth_pb2, als_pb2, quota_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]  # what the engine answers
_MEMORY_BYTES = 32 << 20  # of records that wait in this process when there is no NATS

_log = structlog.get_logger(__name__)


async def run(settings: MixerSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    replica = settings.replica or uuid.uuid4().hex[:12]
    health = healths.Health(policy.PART, "listener")
    installed = _installed()
    export = settings.otlp is not None
    async with service.begun(settings, health) as own:
        stack, identity = own.stack, own.identity
        store = await stack.enter_async_context(stores.connect(settings))
        bus = await stack.enter_async_context(buses.connect(settings, health))
        source = await stack.enter_async_context(config.connect(settings, store, health))

        engine = Engine(identity)
        stack.callback(engine.close)
        metrics = EngineMetrics(engine.stats, native_telemetry.dropped)
        prometheus_client.REGISTRY.register(metrics)
        stack.callback(prometheus_client.REGISTRY.unregister, metrics)

        host = MixerHost(settings.otlp, replica, identity, settings.trust_domain)
        dispatcher = await stack.enter_async_context(Dispatcher(installed, host, health))

        def loaded(compiled: Compiled) -> None:
            dispatcher.configure(compiled.sinks)

        follower = PolicyFollower(source, installed, engine.load, loaded, health, export=export)
        if settings.config:
            await follower.take(source.current())  # a folder that can't be served is an error at the start
        pump = Pump(engine.drain_records, bus, health)
        worker = Worker(
            bus,
            dispatcher,
            health=health,
            max_bytes=settings.record_bytes if settings.nats else min(settings.record_bytes, _MEMORY_BYTES),
            batch_records=settings.batch_records,
            batch_seconds=settings.batch_seconds,
        )
        replicas = Replicas(store, replica, engine.set_replicas, health, ttl_seconds=settings.replica_ttl)
        server = own.server(_rules(settings.trust_domain), native=[engine.services])
        validator = Engine()
        validation = ValidationServicer(installed, validator.load, export=export)
        config_pb2_grpc.add_ValidationServicer_to_server(validation, server)

        async with asyncio.TaskGroup() as tasks:
            stopping = asyncio.Event()
            background = [tasks.create_task(follower.follow(), name="follow configuration")]
            first = tasks.create_task(follower.first.wait(), name="first policy")
            stopped = tasks.create_task(stop.wait(), name="stop")
            await asyncio.wait({first, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                address = await own.serve(server, native=_NATIVE)
                health.set("listener", True)
                _log.info("mixer_serving", address=address, replica=replica, adapters=sorted(installed))
                background += [
                    tasks.create_task(replicas.follow(), name="follow replicas"),
                    tasks.create_task(replicas.register(settings.advertise or address), name="register replica"),
                    tasks.create_task(worker.run(), name="deliver records"),
                ]
                pumping = tasks.create_task(pump.run(stopping), name="store records")
                await stopped
                await server.stop(2.0)
                stopping.set()
                await pumping
                await _finish(pump, worker if settings.nats is None else None, settings.drain_seconds)
            for task in [*background, first, stopped]:
                task.cancel()


def _installed() -> Mapping[str, Adapter]:
    try:
        return discover(adapters.BUILT_IN)
    except AdapterError as error:
        raise errors.ConfigError(str(error)) from error


async def _finish(pump: Pump, worker: Worker | None, seconds: float) -> None:
    """Store what the engine has left and, when the queue ends with this process, deliver it."""
    try:
        async with asyncio.timeout(seconds):
            await pump.finish()
            if worker is not None:
                await worker.until_settled(pump.stored)
    except TimeoutError:
        _log.warning("records_lost", reason="not stored or delivered in time while stopping", seconds=seconds)


def _rules(trust_domain: str) -> list[tuple[str, list[str]]]:
    everyone = f"spiffe://{trust_domain}/*"
    return [
        ("/istio.mixer.v1.Mixer/", [everyone]),
        ("/envoy.service.auth.v3.Authorization/", [everyone]),
        ("/envoy.service.accesslog.v3.AccessLogService/", [everyone]),
        ("/meshwright.mixer.v1.QuotaPeer/", [part_id(trust_domain, "mixer")]),
        (
            "/meshwright.config.v1.Validation/",
            [part_id(trust_domain, "manager"), part_id(trust_domain, "admin")],
        ),
    ]
