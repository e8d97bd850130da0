"""`meshwright-citadel bootstrap`: made once, repaired and renewed by every later run."""

from __future__ import annotations

import asyncio
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from meshwright.citadel import __main__ as command
from meshwright.citadel.ca import seal
from meshwright.citadel.infrastructure import bootstrap, files
from meshwright.core import errors

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)


@pytest.fixture
def plan(tmp_path: Path) -> bootstrap.Plan:
    return bootstrap.Plan(tmp_path / "pki" / "infra", tmp_path / "pki" / "seal.key", etcd_names=("etcd-0.etcd", "::1"))


def content(plan: bootstrap.Plan) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in plan.folder.parent.rglob("*") if path.is_file()}


def leaf(plan: bootstrap.Plan, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((plan.folder / name / "cert.pem").read_bytes())


def test_a_first_run_makes_everything(plan: bootstrap.Plan) -> None:
    """CA, seal key, etcd, NATS and five clients, with the names that their servers check."""
    assert len(bootstrap.run(plan, NOW)) == 9
    ca = x509.load_pem_x509_certificate((plan.folder / "ca.pem").read_bytes())
    for name in ("etcd", "nats", *(f"clients/{client}" for client in bootstrap.CLIENTS)):
        certificate = leaf(plan, name)
        certificate.verify_directly_issued_by(ca)
        common_name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        assert common_name == name.rpartition("/")[2]
        assert (plan.folder / name / "ca.pem").read_bytes() == (plan.folder / "ca.pem").read_bytes()
    names = leaf(plan, "etcd").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "etcd-0.etcd"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_private_files_are_private(plan: bootstrap.Plan) -> None:
    bootstrap.run(plan, NOW)
    for path in plan.folder.parent.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif "key" in path.name:
            assert mode == 0o600, path
        assert not path.name.endswith(".tmp")


def test_a_second_run_changes_nothing(plan: bootstrap.Plan) -> None:
    bootstrap.run(plan, NOW)
    before = content(plan)
    assert bootstrap.run(plan, NOW + timedelta(days=7)) == []
    assert content(plan) == before


@pytest.mark.parametrize("days", [300, 366, 3000])
def test_a_platform_that_stood_still_gets_valid_certificates(plan: bootstrap.Plan, days: int) -> None:
    """After a year all leaves have ended: the next run renews them under the same CA."""
    bootstrap.run(plan, NOW)
    before, later = content(plan), NOW + timedelta(days=days)
    assert len(bootstrap.run(plan, later)) == 7
    assert leaf(plan, "etcd").not_valid_after_utc > later + timedelta(days=300)
    assert content(plan)[str(plan.folder / "ca.pem")] == before[str(plan.folder / "ca.pem")]
    assert content(plan)[str(plan.seal_key)] == before[str(plan.seal_key)]


def test_a_ca_near_its_end_is_replaced_with_all_that_it_signed(plan: bootstrap.Plan) -> None:
    bootstrap.run(plan, NOW)
    done = bootstrap.run(plan, NOW + timedelta(days=3400))
    assert "infrastructure CA replaced" in done[0]
    assert len(done) == 8


def test_a_clock_that_is_wrong_doesnt_replace_the_ca(plan: bootstrap.Plan) -> None:
    bootstrap.run(plan, NOW)
    with pytest.raises(errors.ConfigError, match="set this machine's clock"):
        bootstrap.run(plan, NOW - timedelta(days=3))


@pytest.mark.parametrize("damage", ["missing", "empty", "other key"])
def test_what_is_damaged_is_repaired_alone(plan: bootstrap.Plan, damage: str) -> None:
    """Also the pair that a crash between key and certificate leaves behind."""
    bootstrap.run(plan, NOW)
    key = plan.folder / "clients" / "mixer" / "key.pem"
    match damage:
        case "missing":
            key.unlink()
        case "empty":
            key.write_bytes(b"")
        case _:
            key.write_bytes((plan.folder / "clients" / "manager" / "key.pem").read_bytes())
    (line,) = bootstrap.run(plan, NOW)
    assert "mixer" in line


def test_new_names_renew_the_server_certificate(plan: bootstrap.Plan) -> None:
    bootstrap.run(plan, NOW)
    (line,) = bootstrap.run(bootstrap.Plan(plan.folder, plan.seal_key, plan.etcd_names, ("nats.example",)), NOW)
    assert "nats" in line


def test_force_renews_leaves_and_nothing_else(plan: bootstrap.Plan) -> None:
    bootstrap.run(plan, NOW)
    forced = bootstrap.Plan(plan.folder, plan.seal_key, plan.etcd_names, force=True)
    assert len(bootstrap.run(forced, NOW)) == 7


@pytest.mark.parametrize("name", ["", "*.example", "a b", "300.1.2.3.", "x" * 300])
def test_wrong_names_are_refused(plan: bootstrap.Plan, name: str) -> None:
    with pytest.raises(errors.ConfigError, match="--etcd-name"):
        bootstrap.run(bootstrap.Plan(plan.folder, plan.seal_key, (name,)), NOW)


def test_readable_keys_are_refused(plan: bootstrap.Plan) -> None:
    """A key that others could read has to be looked at by a person."""
    bootstrap.run(plan, NOW)
    plan.seal_key.chmod(0o644)
    with pytest.raises(errors.ConfigError, match="chmod 600"):
        bootstrap.run(plan, NOW)
    plan.seal_key.chmod(0o600)
    (plan.folder / "ca-key.pem").chmod(0o640)
    with pytest.raises(errors.ConfigError, match=r"ca-key\.pem can be read by others"):
        bootstrap.run(plan, NOW)


def test_a_seal_key_of_wrong_length_is_never_replaced(plan: bootstrap.Plan) -> None:
    files.write(plan.seal_key, b"short")
    with pytest.raises(errors.ConfigError, match="exactly 32 bytes"):
        bootstrap.run(plan, NOW)
    assert plan.seal_key.read_bytes() == b"short"


def test_two_runs_at_once_agree(plan: bootstrap.Plan) -> None:
    """One waits for the other and finds everything made."""
    done: list[list[str]] = []
    threads = [threading.Thread(target=lambda: done.append(bootstrap.run(plan, NOW))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, done)) == [0, 0, 0, 9]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    files.write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["key.pem"]
    assert path.read_bytes() == b"old"


async def test_the_certificates_work_on_the_wire(plan: bootstrap.Plan) -> None:
    """etcd's server certificate and a client's, checked by OpenSSL in both directions."""
    bootstrap.run(plan, datetime.now(UTC))
    server, client = plan.folder / "etcd", plan.folder / "clients" / "manager"
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=server / "ca.pem")
    accepting.load_cert_chain(server / "cert.pem", server / "key.pem")
    accepting.verify_mode = ssl.CERT_REQUIRED
    seen: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("peercert")["subject"])
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(on_client, "127.0.0.1", 0, ssl=accepting) as listener:
        dialling = ssl.create_default_context(cafile=client / "ca.pem")
        dialling.load_cert_chain(client / "cert.pem", client / "key.pem")
        _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname(), ssl=dialling)
        assert await asyncio.wait_for(seen, 5) == ((("commonName", "manager"),),)
        writer.close()
        await writer.wait_closed()


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "infra"
    assert command.main(["bootstrap", str(folder), "--nats-name", "nats.example"]) == 0
    assert "infrastructure CA made" in capsys.readouterr().out
    assert len((folder / "seal.key").read_bytes()) == seal.KEY_BYTES
    assert command.main(["bootstrap", str(folder), "--nats-name", "no name"]) == 78
    assert capsys.readouterr().err.startswith("meshwright-citadel: --nats-name: 'no name'")
