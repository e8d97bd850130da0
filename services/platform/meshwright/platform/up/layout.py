"""Where everything is in the data directory. All of it belongs to the user who runs `up`; folders are 0700."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meshwright.core import errors

_SOCKET_PATH_LIMIT = 107  # bytes, sockaddr_un of Linux without its final zero
_LONGEST_SOCKET = "citadel-agent-health.sock"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below `data`, which must be absolute."""

    data: Path

    @property
    def infra(self) -> Path:
        """Certificates of the infrastructure CA: etcd, NATS and their clients."""
        return self.data / "pki" / "infra"

    @property
    def seal_key(self) -> Path:
        """The key that seals the mesh CA in etcd."""
        return self.data / "pki" / "seal.key"

    @property
    def admin(self) -> Path:
        """The command line's identity."""
        return self.data / "pki" / "admin"

    @property
    def run(self) -> Path:
        """Sockets and the state file."""
        return self.data / "run"

    @property
    def logs(self) -> Path:
        """One log a part."""
        return self.data / "logs"

    @property
    def state(self) -> Path:
        """What runs, for programs and for `up --status`."""
        return self.run / "state.json"

    def client(self, service: str) -> Path:
        """The folder with one service's client certificate for etcd and NATS."""
        return self.infra / "clients" / service

    def token(self, part: str) -> Path:
        """The file with a part's one-time token."""
        return self.data / "pki" / "tokens" / part

    def journal(self, part: str) -> Path:
        """The file in which a network service part keeps its connections over a restart."""
        return self.data / "nsm" / f"{part}.journal"

    def socket(self, name: str) -> Path:
        """The Unix socket `name`.sock."""
        return self.run / f"{name}.sock"

    def health_socket(self, part: str) -> Path:
        """The Unix socket with a part's health and metrics."""
        return self.socket(f"{part}-health")

    def make(self) -> None:
        """Make the folders; raise ConfigError when the path is too long for Unix sockets."""
        length = len(bytes(self.run / _LONGEST_SOCKET))
        if length > _SOCKET_PATH_LIMIT:
            raise errors.ConfigError(
                f"{self.data} is too long: Unix sockets in it would have {length} bytes of {_SOCKET_PATH_LIMIT}",
                field="data",
                remedy="choose a shorter path with --data",
            )
        for folder in (
            self.data,
            self.infra,
            self.admin,
            self.token("x").parent,
            self.journal("x").parent,
            self.run,
            self.logs,
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        for socket in self.run.glob("*.sock"):  # of a run that was killed; the lock says that nobody serves them
            socket.unlink()
