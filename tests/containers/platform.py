"""The platform's images as containers of one Docker network, each part in its own, found by its name.

One decision to know: a machine without Kubernetes gives parts their identity by citadel's Unix socket, which knows its
callers by their user; so all parts run as one user and share one folder of sockets, as with `meshwright up`.
"""

from __future__ import annotations

import json
import os
import string
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from tests.box import BoxError, until
from tests.images.build import name
from tests.images.daemon import Daemon

from meshwright.core.bus.server_config import server_config

HERE = Path(__file__).parent
USER = 10001
# Who a process of these users is: the proxy and two callers.
USERS = {"shop": 1337, "customer": 2001, "mallory": 2002}
START_SECONDS = 120
PORT = 15601  # the shop's, at its proxy
RUN = "/run/meshwright"
TRUST = f"{RUN}/trust"
NSM = f"{RUN}/nsm"

# Writes one-time tokens for all parts, and the administrator's identity.
_TOKENS = """
import asyncio, sys
from pathlib import Path
from meshwright.core import identity
from meshwright.core.citadel_identity import CitadelIdentity
from meshwright.platform.up import trust

async def main(socket, folder, *parts):
    citadel = trust.Citadel(Path(socket))
    for part in parts:
        await citadel.mint(part, Path(folder, "tokens", part))
    await citadel.close()
    own = identity.part_id("mesh.local", "admin")
    async with CitadelIdentity(own, socket=f"unix:{socket}") as source:
        trust.write_identity(Path(folder, "admin"), source.current())

asyncio.run(main(*sys.argv[1:]))
"""

# Becomes the shop's proxy.
_PROXY = f"""
import json, os
from meshwright.manager.xds.bootstrap import ARGUMENTS, bootstrap
told = bootstrap(namespace="shop", workload="shop", managers=["manager:15012"], mixers=["mixer:9091"],
    collector="collector:4317", agent_socket="{RUN}/workload.sock", admin_socket="/tmp/admin.sock")
with open("/tmp/envoy.json", "w") as file:
    json.dump(told, file)
os.execvp("envoy", ["envoy", "-c", "/tmp/envoy.json", "--concurrency", "1", "-l", "warning", *ARGUMENTS])
"""


class EndedError(Exception):
    """A part's container has ended by itself; the message has its last lines."""


class Platform:
    """Containers under way."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon, self.folder = daemon, folder
        self.begun = False
        self._stack = ExitStack()
        self._containers: dict[str, DockerContainer] = {}

    def begin(self) -> None:
        """Start everything in order, and apply the configuration."""
        os.environ.update(self.daemon.environment())  # testcontainers looks there
        self._stack.callback(os.environ.pop, "DOCKER_HOST")
        self._folders()
        self._network = self._stack.enter_context(Network())
        names = ["--etcd-name=etcd", "--nats-name=nats"]
        self._once("citadel", ["bootstrap", f"--seal-key={TRUST}/seal.key", *names, f"{TRUST}/infra"])
        self._etcd()
        self._nats()
        self._once("citadel", ["etcd-users", "--etcd=etcd:2379", f"--etcd-tls={TRUST}/infra/clients/root"])
        self._citadel()
        parts = ("collector", "manager", "mixer", "nsm-registry", "citadel-agent", "nsmgr", "forwarder")
        self.python("citadel", _TOKENS, f"{RUN}/citadel.sock", TRUST, *parts)
        self._part("collector", "0.0.0.0:4317")
        self._part("mixer", "0.0.0.0:9091", *_store("mixer"), *_bus("mixer"), *_otlp())
        self._part("nsm-registry", "0.0.0.0:5002", *_store("nsm-registry"), *_otlp())
        self._part("manager", "0.0.0.0:15012", "--mixer=mixer:9091", *_store("manager"), *_bus("manager"), *_otlp())
        # On the node's process numbers, by which the kernel names callers of its socket.
        node = {"pid_mode": "host"}
        self._part("citadel-agent", f"unix:{RUN}/workload.sock", *_otlp(), **node)
        self._part(
            "nsmgr", "0.0.0.0:5001", f"--socket=unix:{NSM}/nsmgr.sock", "--registry=nsm-registry:5002",
            "--mixer=mixer:9091", f"--journal={RUN}/nsmgr.journal", *_otlp(), "--socket-mode=everybody", **node,
        )  # fmt: skip
        self._part(
            "forwarder", f"unix:{NSM}/forwarder.sock", f"--connect-to=unix:{NSM}/nsmgr.sock", *_otlp(),
            f"--journal={RUN}/forwarder.journal", "--user-namespace=never", "--socket-mode=everybody",
            # Token and citadel's socket are the other parts' user's.
            user=0, cap_add=["NET_ADMIN", "SYS_ADMIN", "DAC_OVERRIDE"], **node,
        )  # fmt: skip
        self._application()
        self.begun = True

    def end(self) -> None:
        """End all containers, those started last first, and their network."""
        self._stack.close()

    def python(self, container: str, script: str, *words: str, user: int = USER) -> str:
        """Run a Python script in a container and return what it printed."""
        id_ = self._containers[container].get_wrapped_container().id
        return self.daemon.docker(
            "exec", f"--user={user}:{USER}", id_, "python", "-P", "-c", script, *words, seconds=180
        )

    def apply(self, document: str, **values: object) -> None:
        """Apply configuration as the administrator."""
        text = string.Template((HERE / "objects" / f"{document}.yaml").read_text()).substitute(values)
        path = self.folder / f"{document}.yaml"
        path.write_text(text)
        words = ["--server=manager:15012", f"--identity={TRUST}/admin", f"--filename={RUN}/{document}.yaml"]
        id_ = self._containers["manager"].get_wrapped_container().id
        self.daemon.docker("exec", id_, "meshwright", "apply", *words)

    def keep_logs(self) -> Path:
        """Write the logs of all containers and return the folder."""
        folder = self.folder / "logs"
        folder.mkdir(exist_ok=True)
        for part, container in self._containers.items():
            (folder / f"{part}.log").write_text(self.daemon.logs(container.get_wrapped_container().id))
        return folder

    def container(self, part: str) -> DockerContainer:
        """Return a container."""
        return self._containers[part]

    def start(self, part: str, image: str, command: list[str], **more: Any) -> DockerContainer:
        """Start a container on a read-only root and without any right that isn't named."""
        given = {
            "user": f"{more.pop('user', USER)}:{USER}",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            **more,
        }
        container = DockerContainer(name(image)).with_command(command).with_kwargs(**given)
        container.with_volume_mapping(str(self.folder), RUN, "rw").with_tmpfs_mount("/tmp")
        container.with_network(self._network).with_network_aliases(part)
        self._containers[part] = self._stack.enter_context(container)
        return container

    def _folders(self) -> None:
        for name_ in (".", "trust", "trust/tokens", "trust/admin", "nsm", "health", "sockets", "data"):
            folder = self.folder / name_
            folder.mkdir(exist_ok=True)
            os.chown(folder, USER, USER)
            folder.chmod(0o777 if name_ in ("nsm", "sockets", "health") else 0o755)
        for parent in self.folder.parents[:2]:
            parent.chmod(0o755)  # pytest's are for their owner only, and the daemon's users are others

    def _once(self, part: str, command: list[str]) -> None:
        where = f"--network={self._network.name}"
        self.daemon.docker("run", "--rm", where, f"--volume={self.folder}:{RUN}", name(part), *command)

    def _etcd(self) -> None:
        tls = [
            f"--{prefix}{option}"
            for prefix in ("", "peer-")
            for option in (
                f"cert-file={TRUST}/infra/etcd/cert.pem",
                f"key-file={TRUST}/infra/etcd/key.pem",
                f"trusted-ca-file={TRUST}/infra/etcd/ca.pem",
                "client-cert-auth",
            )
        ]
        urls = [
            "--listen-client-urls=https://0.0.0.0:2379",
            "--advertise-client-urls=https://etcd:2379",
            "--listen-peer-urls=https://127.0.0.1:2380",
            "--initial-advertise-peer-urls=https://127.0.0.1:2380",
            "--initial-cluster=default=https://127.0.0.1:2380",
        ]
        self.start("etcd", "etcd", [f"--data-dir={RUN}/data/etcd", "--log-level=warn", *urls, *tls])

    def _nats(self) -> None:
        configuration = server_config(listen="0.0.0.0:4222", tls=Path(TRUST, "infra", "nats"), store=Path("/tmp/nats"))
        (self.folder / "nats.conf").write_text(configuration)
        self.start("nats", "nats", [f"--config={RUN}/nats.conf"])

    def _citadel(self) -> None:
        (self.folder / "registrations").mkdir()
        (self.folder / "registrations" / "users.json").write_text(
            "\n---\n".join(
                json.dumps(
                    {
                        "apiVersion": "citadel.meshwright.io/v1alpha1",
                        "kind": "WorkloadRegistration",
                        "metadata": {"name": account, "namespace": "shop"},
                        "spec": {
                            "spiffeId": f"spiffe://mesh.local/ns/shop/sa/{account}",
                            "selectors": [{"type": "unix:uid", "value": str(user)}],
                        },
                    }
                )
                for account, user in USERS.items()
            )
        )
        (self.folder / "registrations" / "users.json").rename(self.folder / "registrations" / "users.yaml")
        own = [f"--admin-socket=unix:{RUN}/citadel.sock", f"--seal-key={TRUST}/seal.key"]
        own.append(f"--config={RUN}/registrations")
        self._start_part("citadel", "0.0.0.0:8060", [*own, *_store("citadel"), *_bus("citadel")])

    def _part(self, part: str, listen: str, *arguments: str, **more: Any) -> None:
        identity = ["--citadel=citadel:8060", f"--citadel-socket=unix:{RUN}/citadel.sock"]
        self._start_part(part, listen, [*identity, f"--citadel-token={TRUST}/tokens/{part}", *arguments], **more)

    def _start_part(self, part: str, listen: str, arguments: list[str], **more: Any) -> None:
        health = f"unix:{RUN}/health/{part}.sock"
        container = self.start(part, part, [f"--listen={listen}", f"--admin={health}", *arguments], **more)
        id_ = container.get_wrapped_container().id

        def ready() -> bool:
            container.reload()
            if container.status != "running":
                raise EndedError(f"{part} has ended: {self.daemon.logs(id_)[-2000:]}")
            return self.daemon.docker("exec", id_, "meshwright-probe", health, "/readyz") is not None

        self._until(part, id_, ready)

    def _until(self, part: str, id_: str, ready: Any) -> None:
        def holds() -> object:
            try:
                return ready()
            except BoxError as error:
                raise OSError(str(error)) from error

        try:
            until(f"{part} is ready", holds, START_SECONDS, every=0.5)
        except BoxError as error:
            raise BoxError(f"{error}; its log: {self.daemon.logs(id_)[-2000:]}") from None

    def _application(self) -> None:
        """The shop, its proxy in front of it, and two callers without one."""
        socket = f"{RUN}/sockets/shop.sock"
        self.start("shop", "demo", ["--name=shop", f"--listen=unix:{socket}"])
        self.start("proxy", "sidecar", ["-P", "-c", _PROXY], user=USERS["shop"], entrypoint="python", pid_mode="host")
        proxy = self._containers["proxy"].get_wrapped_container()
        proxy.reload()
        networks = proxy.attrs["NetworkSettings"]["Networks"]
        self.apply("shop", address=networks[self._network.name]["IPAddress"], port=PORT, socket=socket)
        for caller in ("customer", "mallory"):
            self.start(caller, "sidecar", ["infinity"], user=USERS[caller], entrypoint="sleep", pid_mode="host")


def _otlp() -> tuple[str, ...]:
    return ("--otlp=collector:4317",)


def _store(service: str) -> tuple[str, ...]:
    return "--etcd=etcd:2379", f"--etcd-tls={TRUST}/infra/clients/{service}"


def _bus(service: str) -> tuple[str, ...]:
    return "--nats=nats:4222", f"--nats-tls={TRUST}/infra/clients/{service}"
