"""Settings of every service, from the command line and the environment by one model.

One decision to know: a field is described once, in a pydantic model, with its unit and default; `--help`, the option
`--field-name` and the variable `MESHWRIGHT_<PART>_<FIELD_NAME>` come from it. Only settings modules read the
environment.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

import pydantic
from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from meshwright.core import access_rules, process


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Addresses = Annotated[tuple[str, ...], NoDecode, pydantic.BeforeValidator(_split, json_schema_input_type=str)]
"""Several addresses, separated by commas on the command line and in the environment."""


SocketMode = Literal["owner", "everybody"]
"""Who may connect to the Unix sockets that a part makes; `SOCKET_MODES` are the rights of the file."""

SOCKET_MODES = {"owner": 0o600, "everybody": 0o666}


class ServiceSettings(BaseSettings):
    """What every service has. A service adds its own fields and names its `part`."""

    part: ClassVar[str] = "service"
    summary: ClassVar[str] = ""
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        nested_model_default_partial_update=True,
    )

    listen: str = Field(
        "127.0.0.1:0",
        description="Address of the gRPC listener: host:port or unix:/path. Port 0 takes a free one.",
    )
    grpc_front: Literal["native", "aio"] = Field(
        "native",
        description="Server under the gRPC listener: native (Rust) or aio (grpcio's, to compare with; it can't serve "
        "mixer, citadel-agent, nsmgr and forwarder).",
    )
    busy_poll: float | None = Field(
        None,
        description="Microseconds that a thread of the gRPC listener looks for the next call before it sleeps, while "
        "calls come one after another; 0: never. None: 100, but 0 under a CPU quota (native front).",
        ge=0,
        le=10_000,
    )
    tls_1_2: bool = Field(
        False, description="Let clients that know no TLS 1.3 speak TLS 1.2 with the gRPC listener (native front)."
    )
    access_log: access_rules.AccessRules = Field(
        access_rules.DEFAULT,
        description="Calls that get a line in the log: off, failed (refused, or failed on this side) or all; also by "
        "method, as in failed,/grpc.health.v1.Health/=off.",
    )
    config: Path | None = Field(
        None, description="Folder of YAML documents to serve instead of the manager's store; reloaded on change."
    )
    etcd: Addresses = Field(
        (), description="etcd endpoints as host:port,host:port. None: state is kept in memory.", validate_default=True
    )
    etcd_tls: Path | None = Field(
        None, description="Folder with cert.pem, key.pem and ca.pem for etcd. Required with --etcd."
    )
    nats: Addresses = Field(
        (),
        description="NATS servers as host:port,host:port. None: messages stay in this process.",
        validate_default=True,
    )
    nats_tls: Path | None = Field(
        None, description="Folder with cert.pem, key.pem and ca.pem for NATS. Required with --nats."
    )
    identity: Path | None = Field(
        None,
        description="Folder with cert.pem, key.pem and ca.pem: this service's identity; reloaded on change. Bundles of "
        "federated trust domains are federated/<trust domain>.pem in it, further certificates for clients that ask for "
        "their DNS names named/<any>/cert.pem and key.pem.",
    )
    citadel: str | None = Field(
        None, description="citadel's address (host:port) to renew the identity from, instead of files."
    )
    citadel_socket: str | None = Field(
        None, description="citadel's Unix socket (unix:/path) that gives the first identity for a one-time token."
    )
    citadel_token: Path | None = Field(
        None, description="File with the one-time token for the first identity; removed once it is used."
    )
    citadel_login: str | None = Field(
        None,
        description="citadel's login port (host:port) in Kubernetes: gives an identity for the token of this pod's "
        "service account.",
    )
    citadel_login_tls: Path | None = Field(
        None, description="Folder with cert.pem, key.pem and ca.pem for the login port. Required with --citadel-login."
    )
    kubernetes_token: Path | None = Field(
        None,
        description="File with the service account's token for audience meshwright-citadel (a projected volume). "
        "Required with --citadel-login.",
    )
    insecure_loopback: bool = Field(
        False, description="Serve plain text; accepted only for a loopback address or a Unix socket."
    )
    admin: str | None = Field(
        None,
        description="Address of health and metrics over HTTP: unix:/path, or host:port with mutual TLS. None: off.",
    )
    otlp: str | None = Field(
        None, description="OTLP gRPC collector as host:port for traces, metrics and logs. None: nothing is sent."
    )
    trust_domain: str = Field("mesh.local", description="SPIFFE trust domain of this mesh.")
    log_level: str = Field("info", description="Least severe level that is logged: debug, info, warning or error.")

    @pydantic.model_validator(mode="after")
    def _security(self) -> ServiceSettings:
        sources = [self.identity, self.citadel_token, self.citadel_login]
        if self.insecure_loopback:
            if not is_local(self.listen):
                raise ValueError(
                    f"insecure_loopback: {self.listen} can be reached from other machines "
                    "(listen on 127.0.0.1, ::1 or a Unix socket, or give --identity)"
                )
        elif not any(sources):
            raise ValueError(
                "identity: no certificate to serve with (give --identity FOLDER, or --citadel-socket and "
                "--citadel-token, or in Kubernetes --citadel-login, --citadel-login-tls and --kubernetes-token, or "
                "--insecure-loopback for plain text on loopback)"
            )
        if self.citadel_token and not self.citadel_socket:
            raise ValueError("citadel_socket: needed to use --citadel-token")
        if self.citadel_login and self.citadel_socket:
            raise ValueError("citadel_login: not together with --citadel-socket (a pod logs in, a machine's part asks)")
        login = {"citadel_login_tls": self.citadel_login_tls, "kubernetes_token": self.kubernetes_token}
        for name, value in login.items():
            if (value is None) != (self.citadel_login is None):
                raise ValueError(f"{name}: goes together with --citadel-login")
        if self.etcd and not self.etcd_tls:
            raise ValueError("etcd_tls: needed with --etcd: etcd is only spoken to with mutual TLS")
        if self.nats and not self.nats_tls:
            raise ValueError("nats_tls: needed with --nats: NATS is only spoken to with mutual TLS")
        return self


S = TypeVar("S", bound=ServiceSettings)


def load(kind: type[S], arguments: Sequence[str] | None = None) -> S:
    """Read settings; on bad input print one line for each fault and exit with status 64 (usage)."""
    prefix = f"MESHWRIGHT_{kind.part.upper().replace('-', '_')}_"
    options: dict[str, Any] = {
        "_env_prefix": prefix,
        "_cli_prog_name": f"meshwright-{kind.part}",
        "_cli_parse_args": list(sys.argv[1:] if arguments is None else arguments),
    }
    try:
        return kind(**options)
    except pydantic.ValidationError as error:
        faults = [
            f"--{str(fault['loc'][0]).replace('_', '-')}: {fault['msg']}" if fault["loc"] else _bare(fault["msg"])
            for fault in error.errors()
        ]
        _refuse(kind.part, faults)
    except SettingsError as error:
        _refuse(kind.part, [str(error)])
    except SystemExit as exit_:  # argparse has printed its line and leaves with its own number
        raise SystemExit(process.EX_USAGE if exit_.code else 0) from None


def _bare(message: str) -> str:
    field, separator, rest = message.removeprefix("Value error, ").partition(": ")
    return f"--{field.replace('_', '-')}: {rest}" if separator else message


def _refuse(part: str, faults: list[str]) -> NoReturn:
    for fault in faults:
        print(f"meshwright-{part}: {fault}", file=sys.stderr)
    raise SystemExit(process.EX_USAGE)


def is_local(address: str) -> bool:
    """Return whether only this machine can reach `address`."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
