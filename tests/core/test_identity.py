"""core.identity: SPIFFE IDs are checked, files are reloaded whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core import clock, errors, identity
from pki import Pki


@pytest.mark.parametrize("text", ["spiffe://mesh.local/ns/default/sa/shop", "spiffe://a/b", "spiffe://a.b-c_d/E.f/1"])
def test_good_ids(text: str) -> None:
    assert identity.check_spiffe_id(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://mesh.local/x", "scheme"),
        ("spiffe://mesh.local", "path is empty"),
        ("spiffe://mesh.local/", "path is empty"),
        ("spiffe://Mesh.local/x", "trust domain"),
        ("spiffe://mesh.local:80/x", "trust domain"),
        ("spiffe:///x", "trust domain"),
        ("spiffe://mesh.local/a//b", "path segments"),
        ("spiffe://mesh.local/a/../b", "path segments"),
        ("spiffe://mesh.local/a/%2e", "path segments"),
        ("spiffe://mesh.local/a?b", "path segments"),
        ("spiffe://mesh.local/" + "a" * 2048, "longer"),
    ],
)
def test_bad_ids_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(errors.ConfigError, match=reason):
        identity.check_spiffe_id(text)


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    try:
        assert identity.check_spiffe_id(text) == text
    except errors.ConfigError as error:
        assert error.field == "spiffe_id"


async def test_files_are_reloaded_and_a_half_written_set_is_left_alone(pki: Pki, tmp_path: Path) -> None:
    first, second = pki.part("mixer"), pki.part("mixer")
    hands = clock.ManualClock()
    source = identity.FileIdentity(Pki.write(first, tmp_path), clock=hands)
    seen: list[identity.X509Identity] = []
    source.subscribe(seen.append)
    async with source:
        await hands.advance(0)
        (tmp_path / "cert.pem").write_bytes(second.cert_chain_pem)  # the key is still the first one's
        await hands.advance(1.5)
        assert source.current().cert_chain_pem == first.cert_chain_pem
        (tmp_path / "key.pem").write_bytes(second.key_pem)
        await hands.advance(1.5)
        assert source.current().cert_chain_pem == second.cert_chain_pem
    assert [svid.key_pem for svid in seen] == [second.key_pem]


async def test_bundles_of_other_trust_domains_come_and_go(tmp_path: Path, pki: Pki) -> None:
    """A file that is no bundle is left alone until it is."""
    hands = clock.ManualClock()
    source = identity.FileIdentity(Pki.write(pki.part("mixer"), tmp_path), clock=hands)
    foreign, bundle = tmp_path / "federated" / "other.domain.pem", Pki().bundle_pem
    foreign.parent.mkdir()
    async with source:
        await hands.advance(0)
        assert source.current().federated == {}
        foreign.write_bytes(b"-----BEGIN CERTIFICATE-----")
        await hands.advance(1.5)
        assert source.current().federated == {}
        foreign.write_bytes(bundle)
        await hands.advance(1.5)
        assert source.current().federated == {"other.domain": bundle}
        foreign.unlink()
        await hands.advance(1.5)
        assert source.current().federated == {}


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match=r"can't read .*cert\.pem.*must hold cert\.pem, key\.pem and ca\.pem"):
        identity.FileIdentity(tmp_path)


def test_keys_stay_out_of_representations(pki: Pki) -> None:
    assert "PRIVATE" not in repr(pki.part("mixer"))
