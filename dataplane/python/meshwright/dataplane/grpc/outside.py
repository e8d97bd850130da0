"""TLS towards servers outside of the mesh, by files in PEM that are read at every handshake."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutsideTls:
    """`authorities` are believed; `certificate` and `key` show who we are, and are empty for servers that don't ask.

    `server_name` is the DNS name or address that the server's certificate must name, when it isn't the target's host.
    """

    authorities: str
    certificate: str = ""
    key: str = ""
    server_name: str = ""
