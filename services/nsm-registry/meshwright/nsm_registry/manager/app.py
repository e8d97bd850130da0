"""nsmgr, built top to bottom: journal, the node's endpoints, registry, policy, the two chains, server.

The order of the connection chain is the program: where the message is in its path, who says so, one call at a time, who
watches, which descriptors came, may it be, whereto, and on.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from meshwright.core import clock as clocks
from meshwright.core import health as healths
from meshwright.core import service as services
from meshwright.core.grpc import Channel
from meshwright.core.identity import part_id
from meshwright.core.service import Service
from meshwright.core.settings import SOCKET_MODES
from meshwright.nsm import metrics, wire
from meshwright.nsm.chain import Chain
from meshwright.nsm.connections import Connections
from meshwright.nsm.elements.begin import Begin
from meshwright.nsm.elements.forward import Forward
from meshwright.nsm.elements.paths import UpdatePath
from meshwright.nsm.elements.take import take_descriptors
from meshwright.nsm.elements.token import Tokens
from meshwright.nsm.expiry import Expiry
from meshwright.nsm.journal import Journal
from meshwright.nsm.monitor import Monitor
from meshwright.nsm.peer import Peer
from meshwright.nsm.registry_client import RegistryClient
from meshwright.nsm.servicer import NEEDS, MonitorConnectionServicer, NetworkServiceServicer
from meshwright.nsm_registry.manager import registrations
from meshwright.nsm_registry.manager.choose import Choose
from meshwright.nsm_registry.manager.endpoints import LocalEndpoints
from meshwright.nsm_registry.manager.finding import Finder
from meshwright.nsm_registry.manager.policy import AskPolicy
from meshwright.nsm_registry.manager.readiness import watch_forwarders
from meshwright.nsm_registry.manager.resync import Resync
from meshwright.nsm_registry.manager.settings import Settings
from meshwright.nsm_registry.registry import servicers
from meshwright.nsm_registry.registry.authorize import Authorize
from meshwright.nsm_registry.registry.chain import Chain as RegistrationChain

log = structlog.get_logger(__name__)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    health = healths.Health("listener")
    async with services.begun(settings, health) as own:
        await _serve(settings, own, health)
        await stop.wait()


async def _serve(settings: Settings, own: Service, health: healths.Health) -> None:
    identity, stack, clock = own.identity, own.stack, clocks.SystemClock()
    lifetime = timedelta(seconds=settings.max_token_lifetime)
    name, forwarders = settings.own_name(), settings.forwarder_ids()
    own_url = settings.own_url(settings.listen)

    journal = Journal(settings.journal)
    stack.push_async_callback(journal.close)
    connections = Connections(limit=settings.max_connections)
    metrics.CONNECTIONS.set_function(lambda: len(connections))
    monitor = Monitor()
    for state in journal.load():
        connections.restore(state)
        assert state.accepted is not None
        monitor.update(state.accepted)

    local = LocalEndpoints(identity, clock, lifetime=lifetime)
    stack.push_async_callback(local.close)
    metrics.REGISTERED.labels("local").set_function(lambda: len(local))
    registry_id = part_id(settings.trust_domain, "nsm-registry") if identity else None
    peer = Peer(
        "nsm-registry",
        settings.registry,
        identity,
        expected=registry_id,
        lifetime=lifetime,
        clock=clock,
        impatient=True,  # this node can answer by itself
    )
    registry = RegistryClient(await stack.enter_async_context(peer))
    finder = Finder(registry, local, own_url, health)

    mixer_id = part_id(settings.trust_domain, "mixer")
    mixers = [await stack.enter_async_context(Channel(address, identity, peer=mixer_id)) for address in settings.mixer]
    chain = Chain(
        UpdatePath(name, connections),
        Tokens(identity, lifetime=lifetime),
        Begin(connections, record=journal.record),
        monitor,
        take_descriptors,
        AskPolicy(mixers, local, forwarders, allow_outage=settings.on_policy_outage == "allow"),
        Choose(local, finder, forwarders),
        Forward(local.resolve),
    )
    resync = Resync(chain, connections, clock)
    local.joined = resync.joined

    authorize = Authorize(identity, (), lifetime=lifetime)
    upstream = registrations.Upstream(registry)
    service_chain = RegistrationChain(authorize, upstream)
    endpoint_chain = RegistrationChain(
        authorize,
        registrations.GuardForwarders(forwarders),
        registrations.KeepLocal(local, own_url, limit=settings.max_endpoints, lifetime=lifetime),
        upstream,
    )

    everyone = f"spiffe://{settings.trust_domain}/*"  # who may have what is decided by the chains
    front = own.server(
        [("/", [everyone])],
        listen=[settings.socket, settings.listen],
        requires=NEEDS,
        socket_mode=SOCKET_MODES[settings.socket_mode],
    )
    wire.add_NetworkServiceServicer_to_server(NetworkServiceServicer(chain, clock), front)
    wire.add_MonitorConnectionServicer_to_server(MonitorConnectionServicer(monitor, forwarders), front)
    wire.add_NetworkServiceRegistryServicer_to_server(
        servicers.NetworkServiceServicer(service_chain, finder.services, clock), front
    )
    wire.add_NetworkServiceEndpointRegistryServicer_to_server(
        servicers.NetworkServiceEndpointServicer(endpoint_chain, finder.endpoints, clock), front
    )
    await own.serve(front)
    health.set("listener", True)
    log.info("nsmgr.serving", addresses=front.addresses, name=name, restored=len(connections))
    own.spawn(local.run(), "expire endpoints")
    own.spawn(resync.run(), "resync")
    own.spawn(Expiry(chain, connections, clock).run(), "expire connections")
    own.spawn(watch_forwarders(local, health, clock), "watch forwarders")
