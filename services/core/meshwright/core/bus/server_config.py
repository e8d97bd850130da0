"""The NATS server's configuration for the platform: mutual TLS only, users by certificate, JetStream on disk.

One decision to know: a user is the common name of a client certificate of the infrastructure CA, and may publish only
below its own prefix; there are no passwords.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meshwright.core.bus.api import MAX_MESSAGE

MAX_MEMORY = 64 * 1024 * 1024
MAX_FILES = 1024 * 1024 * 1024

_JETSTREAM = ("$JS.API.>", "$JS.ACK.>")
_PUBLISHES: dict[str, tuple[str, ...]] = {
    "manager": ("meshwright.manager.>",),
    "mixer": ("meshwright.mixer.>", *_JETSTREAM),
    "citadel": ("meshwright.citadel.>",),
    "nsm-registry": ("meshwright.nsm.>",),
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Servers that keep streams together: this one's `name` among them, and where it listens for the others.

    `routes` are where all of them listen for one another, host:port; each host must be a DNS name of its server's
    certificate, as that is how servers tell one another from clients, whose certificates name no host.
    """

    name: str
    listen: str
    routes: Sequence[str]


def inbox_prefix(user: str) -> str:
    """Return where a user's replies and deliveries arrive: nobody else may listen there."""
    return f"_INBOX_{user}"


def _permissions(user: str) -> dict[str, object]:
    return {
        "publish": list(_PUBLISHES[user]),
        "subscribe": ["meshwright.>", f"{inbox_prefix(user)}.>"],
        "allow_responses": {"max": 1, "expires": "1m"},
    }


def server_config(
    *, listen: str, tls: Path, store: Path, monitor: str | None = None, cluster: Cluster | None = None
) -> str:
    """Return the configuration file's text.

    `listen` is host:port, `tls` the folder with cert.pem, key.pem and ca.pem, `store` where streams are kept. `monitor`
    is the host:port of NATS's own health and figures in plain text, so it must be a loopback address. Without a
    `cluster` the server is alone.
    """
    host, _, port = listen.rpartition(":")
    files = {"cert_file": str(tls / "cert.pem"), "key_file": str(tls / "key.pem"), "ca_file": str(tls / "ca.pem")}
    users: list[dict[str, object]] = [{"user": f"CN={name}", "permissions": _permissions(name)} for name in _PUBLISHES]
    users.append({"user": "CN=root", "permissions": {"publish": [">"], "subscribe": [">"]}})
    # NATS reads JSON, which quotes paths and names safely.
    return json.dumps(
        {
            "server_name": cluster.name if cluster else "meshwright",
            "host": host,
            "port": int(port),
            "max_payload": MAX_MESSAGE,
            "max_connections": 1024,
            "write_deadline": "10s",
            "tls": {
                **files,
                "verify_and_map": True,
                "handshake_first": True,  # a stranger in plain text doesn't even get the greeting with our version
                "timeout": 5,
            },
            "jetstream": {
                "store_dir": str(store),
                "max_memory_store": MAX_MEMORY,
                "max_file_store": MAX_FILES,
                "sync_interval": "always",  # an acknowledged record must survive a power cut
            },
            "authorization": {"users": users},
            **({"http": monitor} if monitor else {}),
            **({"cluster": _clustered(cluster, files)} if cluster else {}),
        },
        indent=2,
    )


def _clustered(cluster: Cluster, files: dict[str, str]) -> dict[str, object]:
    host, _, port = cluster.listen.rpartition(":")
    return {
        "name": "meshwright",
        "host": host,
        "port": int(port),
        "routes": [f"nats-route://{each}" for each in cluster.routes],
        "tls": {**files, "verify_cert_and_check_known_urls": True, "timeout": 5},
        "no_advertise": True,  # clients are given names, and certificates have no addresses that one learns of
    }
