"""citadel, built top to bottom: store, CA, registrations, own identity, servers.

One decision to know: the CA is opened before anything listens, and from then on nothing that signs needs the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import structlog

from meshwright.api.citadel.v1 import admin_pb2_grpc, agents_pb2_grpc
from meshwright.api.istio.v1.auth import ca_pb2_grpc
from meshwright.citadel import custody, expiry, sockets
from meshwright.citadel.bundle_endpoint import endpoint
from meshwright.citadel.ca import seal
from meshwright.citadel.identity import SelfIssuedIdentity
from meshwright.citadel.issuer import Issuer
from meshwright.citadel.jwt_custody import JwtCustody
from meshwright.citadel.kubernetes.accounts import Accounts
from meshwright.citadel.kubernetes.pods import Pods
from meshwright.citadel.registrations import configured
from meshwright.citadel.registrations.registry import Registry
from meshwright.citadel.rpc.administration import AdministrationServicer
from meshwright.citadel.rpc.agents import AGENT, AgentsServicer
from meshwright.citadel.rpc.certificates import CertificatesServicer
from meshwright.citadel.rpc.login import LoginServicer
from meshwright.citadel.settings import CitadelSettings
from meshwright.citadel.tokens import Tokens
from meshwright.core import clock as clocks
from meshwright.core import config, identity, kubernetes, logs, store, telemetry
from meshwright.core import health as healths
from meshwright.core.admin import Admin
from meshwright.core.grpc import Authorization, Server, limits
from meshwright.core.service import Service

_log = structlog.get_logger(__name__)


async def run(settings: CitadelSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    logs.setup(settings.part, settings.log_level)
    clock = clocks.SystemClock()
    health = healths.Health("authority", "registrations", "listener", *(["pods"] if settings.kubernetes else []))
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        facts = await stack.enter_async_context(store.connect(settings))
        seal_key = seal.read_key(settings.seal_key) if settings.seal_key else seal.random_key()
        authority = await custody.open_or_create(facts, seal_key, settings.trust_domain, clock)
        lifetimes = settings.lifetimes()
        lives = (timedelta(seconds=settings.token_key_ttl_seconds), lifetimes.token)
        token_keys = JwtCustody(facts, seal_key, settings.trust_domain, lives, clock)
        await token_keys.opened()
        issuer = Issuer(
            authority,
            settings.trust_domain,
            lifetimes,
            clock,
            settings.service_names,
            token_keys=token_keys,
            token_issuer=settings.token_issuer,
        )
        own = identity.FileIdentity(settings.identity) if settings.identity else SelfIssuedIdentity(issuer, clock)
        await stack.enter_async_context(own)
        await stack.enter_async_context(telemetry.setup(settings.part, settings, own))

        registry = Registry(facts)
        token_keys.watch(registry.remind)
        tokens = Tokens(facts, clock)
        serving = Service(settings, health, None if settings.insecure_loopback else own, stack, tasks)
        serving.spawn(expiry.watch_authority(authority, health, clock), "watch the CA's end")
        serving.spawn(token_keys.run(health), "keep up the keys of tokens")

        if settings.kubernetes:
            api = await stack.enter_async_context(kubernetes.Api(settings.cluster()))
            pods = Pods(api, registry, settings.trust_domain, settings.pods_max_silence_seconds, clock)
            serving.spawn(pods.run(health), "follow pods")
            if settings.login_listen and settings.login_tls:
                own_login = await stack.enter_async_context(identity.FileIdentity(settings.login_tls))
                serving.spawn(expiry.watch_infrastructure(own_login, health, clock), "watch the infrastructure's end")
                login = _login_server(settings, settings.login_listen, own_login)
                accounts = LoginServicer(issuer, Accounts(api), settings.parts_table())
                ca_pb2_grpc.add_IstioCertificateServiceServicer_to_server(accounts, login)
                await serving.serve(login)
        serving.spawn(registry.run(health), "follow registrations")
        if settings.config is not None:
            source = await stack.enter_async_context(config.FolderSource(settings.config, health=health))
            longest = settings.lifetimes().longest
            configured.read(source.current().objects.values(), settings.trust_domain, longest)  # a fault ends the start
            following = configured.follow(source, registry, settings.trust_domain, longest, health)
            serving.spawn(following, "follow the folder")

        server = serving.server(_rules(settings.trust_domain))
        ca_pb2_grpc.add_IstioCertificateServiceServicer_to_server(CertificatesServicer(issuer, registry), server)
        agents_pb2_grpc.add_AgentsServicer_to_server(AgentsServicer(issuer, registry), server)
        address = await serving.serve(server)
        if settings.admin_socket:
            # Whatever the front of the listener: only the native one knows who calls a socket.
            local = sockets.server(settings.admin_socket, sockets.OWNER, settings)
            admin_pb2_grpc.add_AdminServicer_to_server(AdministrationServicer(issuer, tokens, registry), local)
            await serving.serve(local)
        if settings.bundle_listen:
            public = endpoint(settings.bundle_listen, own, authority, token_keys, settings.token_issuer)
            served = await stack.enter_async_context(public)
            _log.info("bundle_served", address=served.address, issuer=settings.token_issuer)
        await stack.enter_async_context(Admin(settings.admin, health, own))
        health.set("listener", True)
        _log.info(
            "citadel_serving",
            address=address,
            admin_socket=settings.admin_socket,
            login=settings.login_listen,
            trust_domain=settings.trust_domain,
            authority_ends=authority.not_after.isoformat(),
        )
        await stop.wait()
        serving.end()


def _login_server(settings: CitadelSettings, listen: str, own: identity.IdentitySource) -> Server:
    """Return the server of the login port: its certificate and its callers' are the infrastructure CA's."""
    return Server(
        listen,
        own,
        front=settings.grpc_front,
        part=settings.part,
        authorize=Authorization([("/istio.v1.auth.IstioCertificateService/", [identity.LOGIN_CLIENT])]),
        access_log=settings.access_log,
        limits=limits.polling(settings.busy_poll),
    )


def _rules(trust_domain: str) -> list[tuple[str, list[str]]]:
    everyone = f"spiffe://{trust_domain}/*"
    return [
        # Anyone with an identity may renew it; the servicer looks whether it is still registered.
        ("/istio.v1.auth.IstioCertificateService/", [everyone]),
        ("/meshwright.citadel.v1.Agents/", [f"{identity.part_id(trust_domain, AGENT)}*"]),
    ]
