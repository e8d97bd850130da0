"""An API server as a kubeconfig file names it, for a process that runs in no pod.

One decision to know: plug-ins that print credentials (`exec`) aren't run: a server process shouldn't start programs
that a file names. What they would print goes into `tokenFile`, which is read again for each request.
"""

from __future__ import annotations

import base64
import binascii
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from meshwright.core import errors

_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """What the current context of a file says."""

    path: Path
    url: str
    _context: ssl.SSLContext
    _token: str = ""
    _token_file: Path | None = None

    @classmethod
    def read(cls, path: Path) -> Kubeconfig:
        """Read a file; ConfigError for one that names no server, or credentials that can't be used."""
        document = _document(path)
        context = _named(path, document, "contexts", "context", document.get("current-context"))
        cluster = _named(path, document, "clusters", "cluster", context.get("cluster"))
        user = _named(path, document, "users", "user", context.get("user"))
        server = cluster.get("server")
        if not isinstance(server, str) or urlsplit(server).scheme != "https":
            raise _fault(
                path, f"server {server!r} isn't an https:// address", "API servers are spoken to with TLS only"
            )
        if cluster.get("insecure-skip-tls-verify"):
            raise _fault(path, "sets insecure-skip-tls-verify", "give the cluster's certificate-authority instead")
        if "exec" in user or "auth-provider" in user:
            raise _fault(path, "has credentials that a program prints", "give a token, a tokenFile or a certificate")
        authority = _bytes(path, cluster, "certificate-authority")
        tls = _trusting(path, authority) if authority else ssl.create_default_context()
        certificate, key = _bytes(path, user, "client-certificate"), _bytes(path, user, "client-key")
        if certificate and key:
            _show(path, tls, certificate, key)
        token, file = user.get("token"), user.get("tokenFile")
        token_file = path.parent / file if isinstance(file, str) else None
        return cls(path, server.rstrip("/"), tls, token if isinstance(token, str) else "", token_file)

    def tls(self) -> ssl.SSLContext:
        """Return the context that verifies the server, and shows our certificate where the file has one."""
        return self._context

    def authorization(self) -> str:
        """Return the value of the header that says who we are; nothing where a certificate does."""
        token = self._token
        if self._token_file is not None:
            token = _read(self._token_file).decode(errors="replace").strip()
        return f"Bearer {token}" if token else ""


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(_read(path))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _fault(path, f"isn't YAML: {error}") from error
    if not isinstance(document, dict):
        raise _fault(path, "holds no map")
    return document


def _named(path: Path, document: Mapping[str, Any], group: str, what: str, name: Any) -> dict[str, Any]:
    entries = document.get(group)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(what), dict):
            return dict(entry[what])
    raise _fault(path, f"has no {what} {name!r} in {group}")


def _bytes(path: Path, entry: Mapping[str, Any], field: str) -> bytes:
    """Return what a field holds itself (`…-data`) or in a file that it names."""
    data, file = entry.get(f"{field}-data"), entry.get(field)
    if isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _fault(path, f"has {field}-data that isn't base64") from error
    return _read(path.parent / file) if isinstance(file, str) else b""


def _trusting(path: Path, authority: bytes) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=authority.decode())
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise _fault(path, "names a certificate authority that can't be read") from error


def _show(path: Path, context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Let a context show a client certificate; Python reads those from files only, so for a moment there is one."""
    with tempfile.NamedTemporaryFile(prefix="meshwright-") as file:  # mode 0600
        file.write(certificate + b"\n" + key)
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise _fault(path, "has a client certificate and a key that don't fit or can't be read") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE)
    except OSError as error:
        raise _fault(path, f"can't be read: {error.strerror}") from error


def _fault(path: Path, message: str, remedy: str = "give a kubeconfig file of a cluster") -> errors.ConfigError:
    return errors.ConfigError(f"{path} {message}", field="kubeconfig", remedy=remedy)
