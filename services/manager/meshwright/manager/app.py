"""Builds the manager top to bottom: identity, store, configuration, discovery, API, server.

One decision to know: nothing is served before the first configuration was read. An empty mesh would take every proxy's
clusters and listeners away; a manager that doesn't answer yet takes nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from meshwright.api.config.v1 import config_pb2_grpc
from meshwright.api.registration.v1 import registration_pb2_grpc
from meshwright.core import config, errors, health, identity, service, store
from meshwright.manager import metrics
from meshwright.manager.configapi.catalogue import Catalogue
from meshwright.manager.configapi.chronicle import Chronicle
from meshwright.manager.configapi.edit import Editor
from meshwright.manager.configapi.owners import Owners
from meshwright.manager.configapi.plan import nobodys
from meshwright.manager.configapi.preview import Previews
from meshwright.manager.configapi.service import ConfigService
from meshwright.manager.configapi.status import StatusBoard, alone
from meshwright.manager.election import Election
from meshwright.manager.model import mesh
from meshwright.manager.replicas import Replicas
from meshwright.manager.settings import ManagerSettings
from meshwright.manager.sources.registration.follower import Follower
from meshwright.manager.sources.registration.leases import Leases
from meshwright.manager.sources.registration.service import RegistrationService
from meshwright.manager.xds import csds
from meshwright.manager.xds.hub import Hub
from meshwright.manager.xds.names import Parameters
from meshwright.manager.xds.server import SERVICES, DiscoveryServer
from meshwright.manager.xds.snapshot import Snapshot

if TYPE_CHECKING:
    from meshwright.manager.sources.kubernetes import Cluster

_log = structlog.get_logger(__name__)


def rules(trust_domain: str) -> list[tuple[str, tuple[str, ...]]]:
    """Only the administrator changes configuration; what a proxy may have is decided by its node id and identity."""
    admin, manager, mixer, citadel = (
        identity.part_id(trust_domain, part) for part in ("admin", "manager", "mixer", "citadel")
    )
    everyone = f"spiffe://{trust_domain}/*"
    return [
        ("/meshwright.config.v1.ConfigService/List", (admin, mixer, citadel)),
        ("/meshwright.config.v1.ConfigService/ProxyStatus", (admin, manager)),
        ("/meshwright.config.v1.ConfigService/", (admin,)),
        ("/meshwright.registration.v1.RegistrationService/", (everyone,)),
        *((f"/{service}/", (everyone,)) for service in SERVICES),
        (f"/{csds.SERVICE}/", (admin,)),
    ]


class Publisher:
    """Makes a snapshot of each mesh and hands it to the hub."""

    def __init__(self, hub: Hub, parameters: Parameters) -> None:
        self._hub, self._parameters = hub, parameters

    def __call__(self, changed: mesh.Mesh) -> None:
        """Publish a mesh."""
        with metrics.BUILD_SECONDS.time():
            snapshot = Snapshot(changed, self._parameters, self._hub.latest)
        self._hub.publish(snapshot)


async def run(settings: ManagerSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    state = health.Health("config", "listener")
    async with service.begun(settings, state) as own:
        stack, credentials = own.stack, own.identity
        facts = await stack.enter_async_context(store.connect(settings))

        hub = Hub()
        parameters = _parameters(settings)
        publisher = Publisher(hub, parameters)
        empty = mesh.Mesh(0, {}, settings.platform_namespace, settings.trust_domain)
        catalogue = Catalogue(state, strict=settings.config is not None, on_change=publisher, empty=empty)
        source = await stack.enter_async_context(config.connect(settings, facts, state))
        writer, history = _ledger(settings, facts)
        own.spawn(_follow(source, catalogue), "follow configuration")
        registrations = Follower(facts, state, catalogue.register)
        own.spawn(registrations.run(), "follow registrations")
        cluster: Cluster | None = None
        if settings.follows_cluster:
            from meshwright.manager.sources import kubernetes  # httpx: 0.1 s for those alone who follow a cluster

            api_server = await stack.enter_async_context(kubernetes.Api(kubernetes.server(settings.kubeconfig)))
            cluster = kubernetes.Cluster(api_server, state, on_services=catalogue.discover)
            own.spawn(cluster.run(), "follow cluster")
        stopping = own.spawn(stop.wait(), "stop")
        loading = own.spawn(_loaded(catalogue, cluster, registrations), "first configuration")
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return

        # Two on one node's network have its name, and in containers the same process number too.
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        replicas = Replicas(facts, name, state)
        status = StatusBoard(
            name,
            hub,
            catalogue,
            credentials=credentials,
            trust_domain=settings.trust_domain,
            replicas=replicas.others if settings.etcd else alone,
        )
        owners = Owners(_owners(settings.mixer), credentials, settings.trust_domain)
        stack.push_async_callback(owners.close)

        server = own.server(rules(settings.trust_domain))
        owned = cluster.owns if cluster else nobodys
        chronicle = Chronicle(history, catalogue)
        previews = Previews(hub, parameters)
        editor = Editor(catalogue, writer, chronicle, owners, previews, hub.convergence, owned)
        config_pb2_grpc.add_ConfigServiceServicer_to_server(ConfigService(catalogue, editor, chronicle, status), server)
        registration_pb2_grpc.add_RegistrationServiceServicer_to_server(
            RegistrationService(Leases(facts, own.spawn), settings.trust_domain), server
        )
        DiscoveryServer(hub, settings.trust_domain).add_to(server)
        csds.ClientStatus(hub).add_to(server)
        address = await own.serve(server, grace=1.0)
        if settings.rest:
            await _rest(settings, own, catalogue, editor, chronicle, status)
        if cluster and writer:
            judge = partial(owners.judge, accept_unvalidated=False)
            mirror = cluster.mirror(judge, catalogue, writer, status)
            own.spawn(Election(facts, name).lead(mirror.run), "mirror the cluster")
        if writer:
            own.spawn(writer.tend(), "trim the history")
        if settings.etcd:
            own.spawn(replicas.announce(settings.advertise or address), "announce replica")
        if settings.webhook:
            await _serve_webhooks(settings, own, state)
        state.set("listener", ok=True)
        _log.info("serving", address=address, revision=catalogue.state.revision)
        await stop.wait()


async def _rest(
    settings: ManagerSettings,
    own: service.Service,
    catalogue: Catalogue,
    editor: Editor,
    chronicle: Chronicle,
    status: StatusBoard,
) -> None:
    """Serve the REST API until the service ends."""
    if own.identity is None:
        raise errors.ConfigError(
            "the REST API knows its callers by their certificates", field="rest", remedy="give the manager an identity"
        )
    from meshwright.manager.rest import api, server  # fastapi and uvicorn: for those alone who need them

    admin = identity.part_id(settings.trust_domain, "admin")
    application = api.application(catalogue, editor, chronicle, status, admin)
    served = await own.stack.enter_async_context(server.server(str(settings.rest), application, own.identity, admin))
    _log.info("rest_serving", address=served.address)


def _ledger(settings: ManagerSettings, facts: store.Store) -> tuple[config.Ledger, config.History] | tuple[None, None]:
    """Return who writes revisions and who reads them; a folder of files has none."""
    if settings.config is not None:
        return None, None
    kept_seconds = settings.history_days * 86_400
    return config.Ledger(facts, kept=settings.history_revisions, kept_seconds=kept_seconds), config.History(facts)


def _parameters(settings: ManagerSettings) -> Parameters:
    return Parameters(
        settings.trust_domain,
        settings.trace_sampling,
        closed=settings.access == "strict",
        inbound_plaintext=settings.inbound_plaintext,
        outbound_plaintext=settings.outbound_plaintext,
        outbound_unknown=settings.outbound_unknown == "pass",
    )


async def _serve_webhooks(settings: ManagerSettings, own: service.Service, state: health.Health) -> None:
    """Serve the webhooks until the service ends."""
    if own.identity is None:
        raise errors.ConfigError(
            "the API server calls webhooks by HTTPS only", field="webhook", remedy="give the manager an identity"
        )
    from meshwright.core import kubernetes  # httpx and uvicorn: for those alone who need them
    from meshwright.manager.inject import trust, webhook
    from meshwright.manager.inject.options import Options
    from meshwright.manager.model import kinds

    options = Options(
        settings.sidecar_image, settings.sidecar_pull_policy, settings.trust_domain, settings.platform_namespace
    )
    served = await own.stack.enter_async_context(webhook.webhook(str(settings.webhook), own.identity, options))
    _log.info("webhook_serving", address=served.address)
    trusting = [trust.admission(settings.webhook_configuration)] if settings.webhook_configuration else []
    if settings.conversion:
        trusting += [trust.definition(kind.definition) for kind in kinds.CONVERTED]
    if trusting:
        api = await own.stack.enter_async_context(kubernetes.Api(kubernetes.in_cluster()))
        own.spawn(trust.keep(api, trusting, own.identity, state), "keep the webhooks trusted")


async def _loaded(catalogue: Catalogue, cluster: Cluster | None, registrations: Follower) -> None:
    await catalogue.loaded()
    await registrations.listed.wait()
    if cluster:
        await cluster.known()


async def _follow(source: config.Source, catalogue: Catalogue) -> None:
    async for snapshot in source.changes():
        if catalogue.started:
            catalogue.update(snapshot)
        else:
            catalogue.start(snapshot)


def _owners(mixers: Sequence[str]) -> dict[str, Sequence[str]]:
    return {"mixer": mixers}
