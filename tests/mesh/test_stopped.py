"""A platform that stood still until all its certificates had ended starts, and has forgotten nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from meshwright_up import free_base_port, meshwright, running

from meshwright.citadel.infrastructure import bootstrap
from meshwright.platform.up.layout import Layout

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(150)]


def expired(folder: Path) -> bool:
    certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    return certificate.not_valid_after_utc < datetime.now(UTC)


def test_starts_after_every_certificate_has_ended(data: Path) -> None:
    """Stopped for a week: the clock can't be moved here, so the certificates are moved into the past instead."""
    base, layout = free_base_port(), Layout(data)
    document = data / "namespace.yaml"
    document.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: kept}\n")
    environment = {"MESHWRIGHT_DATA": str(data), "MESHWRIGHT_MANAGER": f"127.0.0.1:{base + 3}"}
    plan = bootstrap.Plan(layout.infra, layout.seal_key, force=True)
    past = datetime.now(UTC) - timedelta(days=365 + 7)
    layout.make()
    bootstrap.run(plan, past)  # the authority is of that time too
    with running(data, base_port=base) as up:
        up.wait_healthy()
        applied = meshwright("apply", "-f", document, **environment)
        assert applied.returncode == 0, applied.stderr

    bootstrap.run(plan, past)
    folders = [layout.infra / "etcd", layout.infra / "nats", *(layout.client(name) for name in bootstrap.CLIENTS)]
    assert all(expired(folder) for folder in folders)
    admin = (layout.admin / "cert.pem").read_bytes()
    # The identities of the mesh CA live in memory, except the administrator's.
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (layout.admin / name).unlink()

    with running(data, base_port=base) as up:
        up.wait_healthy()
        assert not any(expired(folder) for folder in folders)
        assert (layout.admin / "cert.pem").read_bytes() != admin
        found = meshwright("get", "Namespace", "-o", "json", **environment)
        assert found.returncode == 0, found.stderr
        assert "kept" in found.stdout
