"""meshwright-forwarder, built top to bottom: journal, the manager it serves, the chain, server, registration.

The order of the chain is the program: where the message is in its path, who says so, one call at a time, who watches,
the client's descriptor, the cross-connect (by a network card's function, or else by the kernel), which endpoint, and on
to it.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import prometheus_client
import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core import health as healths
from meshwright.core import service as services
from meshwright.core.service import Service
from meshwright.core.settings import SOCKET_MODES
from meshwright.dataplane.agent import connect_function, functions_file
from meshwright.dataplane.agent.carried_functions import CarriedFunctions
from meshwright.dataplane.agent.connect_function import ConnectFunction
from meshwright.dataplane.agent.connect_kernel import ConnectKernel
from meshwright.dataplane.agent.connect_memif import ConnectMemif
from meshwright.dataplane.agent.devices import Devices
from meshwright.dataplane.agent.discover import DiscoverEndpoint
from meshwright.dataplane.agent.memif_sockets import MemifSockets
from meshwright.dataplane.agent.packets import Packets
from meshwright.dataplane.agent.rights import Rights
from meshwright.dataplane.forwarder import Forwarder, ForwarderError
from meshwright.dataplane.settings import Settings
from meshwright.dataplane.sriov import FunctionPool, physical_functions
from meshwright.nsm import descriptors, metrics, wire
from meshwright.nsm.chain import Chain, NextHop
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
from meshwright.nsm.registration import Registration
from meshwright.nsm.registry_client import RegistryClient
from meshwright.nsm.servicer import NEEDS, MonitorConnectionServicer, NetworkServiceServicer
from meshwright.nsm.wire import NetworkServiceEndpoint, NetworkServiceLabels

_SERVICE = "forwarder"  # the network service that forwarders are endpoints of

log = structlog.get_logger(__name__)


async def run(settings: Settings, rights: Rights, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; without rights, only say so."""
    health = healths.Health("rights", "registration")
    async with services.begun(settings, health) as own:
        health.set("rights", not rights.missing, rights.missing)
        log.info("forwarder.rights", missing=rights.missing, own_user_namespace=rights.own_user_namespace)
        if rights.missing:
            health.set("registration", False, "without rights there is nothing to serve")
        else:
            await _serve(settings, own, health)
        await stop.wait()


async def _serve(settings: Settings, own: Service, health: healths.Health) -> None:
    identity, stack, clock = own.identity, own.stack, clocks.SystemClock()
    lifetime = timedelta(seconds=settings.max_token_lifetime)
    name, manager_id = settings.own_name(), settings.manager_id()

    journal = Journal(settings.journal)
    stack.push_async_callback(journal.close)
    connections = Connections(limit=settings.max_connections)
    metrics.CONNECTIONS.set_function(lambda: len(connections))
    monitor = Monitor()
    for state in journal.load():
        connections.restore(state)
        assert state.accepted is not None
        monitor.update(state.accepted)

    pool = await _function_pool(settings) if settings.sriov else None
    if pool is not None:
        await asyncio.to_thread(connect_function.restore, pool, connections)
        own.spawn(connect_function.Returned(pool, connections, clock).run(), "take functions back")

    forwarder = Forwarder(
        workers=settings.workers, cores=[int(core) for core in settings.worker_cores], busy=settings.busy_poll
    )
    sockets = MemifSockets(settings.own_memif_folder())
    connect = ConnectMemif(forwarder, sockets, otherwise=ConnectKernel(forwarder))
    carried = CarriedFunctions(forwarder, sockets, Devices(settings.dpdk_memory))
    packets = Packets(forwarder)
    prometheus_client.REGISTRY.register(packets)
    stack.callback(prometheus_client.REGISTRY.unregister, packets)

    peer = Peer(
        "nsmgr",
        settings.connect_to,
        identity,
        expected=manager_id if identity else None,
        lifetime=lifetime,
        clock=clock,
    )
    manager = await stack.enter_async_context(peer)
    registry = RegistryClient(manager)

    async def resolve(_name: str, _timeout: float) -> NextHop:
        return manager

    chain = Chain(
        UpdatePath(name, connections),
        Tokens(identity, lifetime=lifetime),
        Begin(connections, record=journal.record),
        monitor,
        take_descriptors,
        ConnectFunction(pool, carried, otherwise=connect),
        DiscoverEndpoint(registry, manager, random.Random()),
        Forward(resolve),
    )

    front = own.server([("/", [manager_id])], requires=NEEDS, socket_mode=SOCKET_MODES[settings.socket_mode])
    wire.add_NetworkServiceServicer_to_server(NetworkServiceServicer(chain, clock), front)
    wire.add_MonitorConnectionServicer_to_server(MonitorConnectionServicer(monitor, [manager_id]), front)
    address = await own.serve(front)

    socket = stack.enter_context(descriptors.socket_file(settings.listen.removeprefix("unix:")))
    registration = Registration(
        registry,
        NetworkServiceEndpoint(
            name=name,
            network_service_names=[_SERVICE],
            network_service_labels={_SERVICE: NetworkServiceLabels(labels=settings.own_labels())},
            url=socket.inode.url,
        ),
        clock,
        lifetime=lifetime,
        descriptors=[socket],
        persistent=True,
        on_change=lambda registered, reason: health.set("registration", registered, reason),
    )
    log.info("forwarder.serving", address=address, name=name, restored=len(connections))
    own.spawn(registration.run(), "register")
    own.spawn(Expiry(chain, connections, clock).run(), "expire connections")


async def _function_pool(settings: Settings) -> FunctionPool:
    assert settings.sriov is not None
    served = functions_file.load(settings.sriov)
    try:
        pool = await asyncio.to_thread(FunctionPool, served)
        found = await asyncio.to_thread(physical_functions)
    except (ValueError, ForwarderError) as error:
        raise errors.ConfigError(str(error), field="sriov") from error
    names = {listed.physical for listed in pool.list()}
    for card in found:
        log.info(
            "forwarder.sriov.found", card=card.address, model=card.model, driver=card.driver, interface=card.interface,
            functions=len(card.functions), most=card.total, served=card.address in names,
        )  # fmt: skip
    return pool
