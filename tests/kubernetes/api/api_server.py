"""A real API server with its etcd and nothing else: no controllers, no node. What a test wants to be there, it writes.

For tests of what reads the API: lists, watches, definitions, status subresources and what becomes of them when the
server is killed. The programs are those of tests/kubernetes/build.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshwright.citadel.infrastructure import certificates
from meshwright.core import errors
from meshwright.core.kubernetes import Api, Kubeconfig

PROGRAMS = Path(__file__).parents[3] / "build" / "kubernetes" / "bin"
CHART = Path(__file__).parents[3] / "charts" / "meshwright-crds"
TOKEN = "token-of-the-administrator"
_START_SECONDS = 120.0  # on a machine that builds something else


def there() -> bool:
    """Return whether its programs were built already; those of another version would do, too."""
    return all((PROGRAMS / name).exists() for name in ("kube-apiserver", "etcd", "helm", "kubectl"))


class ApiServer:
    """One API server, which may be killed and started again over the same etcd."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = [_free_port() for _ in range(3)]
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self.kubeconfig = folder / "kubeconfig"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._ports[0]}"

    def prepare(self) -> None:
        """Write certificates and the administrator's kubeconfig."""
        now = datetime.now(UTC)
        ca = certificates.new_ca(now)
        pair = certificates.issue(ca, certificates.Wanted("kube-apiserver", ("127.0.0.1",)), now)
        key = ec.generate_private_key(ec.SECP256R1())
        files = {
            "ca.crt": ca.certificate_pem,
            "server.crt": pair.certificate_pem,
            "server.key": pair.key_pem,
            "tokens.key": key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            "tokens.pub": key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            "tokens.csv": f"{TOKEN},admin,admin,system:masters\n".encode(),
        }
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        cluster = {"server": self.url, "certificate-authority": "ca.crt"}
        (self.folder / "token").write_text(TOKEN)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"tokenFile": "token"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
            "current-context": "here",
        }
        self.kubeconfig.write_text(json.dumps(document))

    async def start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports[1:])
        await self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )

    async def start(self) -> None:
        """Start the API server and wait until it is ready."""
        folder = self.folder
        await self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._ports[1]}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._ports[0]}",
            "--service-cluster-ip-range=10.233.0.0/20",
            f"--tls-cert-file={folder / 'server.crt'}",
            f"--tls-private-key-file={folder / 'server.key'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'tokens.pub'}",
            f"--service-account-signing-key-file={folder / 'tokens.key'}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",  # no controller makes accounts here
            "--endpoint-reconciler-type=none",  # loopback is no address that a Service may have behind it
            "--profiling=false",
        )
        async with asyncio.timeout(_START_SECONDS):
            while not await self._ready():
                assert self._processes["kube-apiserver"].returncode is None, self._log("kube-apiserver")
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        """End the API server as a power cut would."""
        process = self._processes.pop("kube-apiserver")
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def stop(self) -> None:
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def define_kinds(self) -> None:
        """Install the chart's definitions and wait until they are served."""
        rendered = await self._output("helm", "template", "crds", str(CHART), "--kube-version=1.34")
        await self.kubectl("apply", "-f", "-", stdin=rendered)
        await self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    async def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects as a person would, and write the status of those that have one."""
        await self.kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)))
        for each in objects:
            if each.get("status"):
                place = ("-n", each["metadata"]["namespace"], each["kind"], each["metadata"]["name"])
                patch = json.dumps({"status": each["status"]})
                await self.kubectl("patch", *place, "--subresource=status", "--type=merge", "-p", patch)

    async def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.kubectl("get", *arguments, "-o", "json"))
        return found

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return await self._output("kubectl", f"--kubeconfig={self.kubeconfig}", *arguments, stdin=stdin)

    async def _ready(self) -> bool:
        with contextlib.suppress(errors.MeshwrightError):
            async with Api(Kubeconfig.read(self.kubeconfig)) as api:
                # As long as its own hooks run (RBAC's first roles) it refuses some of what it will serve.
                await api.get("/api/v1/namespaces/default")
                await api.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin")
                return True
        return False

    async def _run(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                str(PROGRAMS / name), *arguments, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL
            )

    async def _output(self, name: str, *arguments: str, stdin: str | None = None) -> str:
        process = await asyncio.create_subprocess_exec(
            str(PROGRAMS / name),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": str(self.folder)},  # kubectl's cache of what the server has
        )
        async with asyncio.timeout(90):
            out, err = await process.communicate(stdin.encode() if stdin else None)
        assert process.returncode == 0, f"{name} {' '.join(arguments)}: {err.decode()}"
        return out.decode()

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-3000:]


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[ApiServer]:
    """Run one for the length of the context, with our kinds defined and a namespace `shop`."""
    server = ApiServer(folder)
    server.prepare()
    try:
        await server.start_etcd()
        await server.start()
        await server.define_kinds()
        await server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        yield server
    finally:
        await server.stop()
        shutil.rmtree(folder / "etcd", ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
