"""Path tokens: what is accepted, and that nothing that was read can end the process."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core import errors
from meshwright.core.identity import X509Identity
from meshwright.nsm import tokens
from meshwright.nsm.errors import InvalidToken
from pki import Pki

NSMGR = "spiffe://mesh.local/ns/meshwright-system/sa/nsmgr"


def _key(svid: X509Identity):
    return tokens.public_key(svid.cert_chain_pem)


def _forged(claims: object, header: object = None) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header or {'alg': 'ES256', 'typ': 'JWT'})}.{part(claims)}.{'A' * 86}"


def test_a_token_is_what_its_signer_said(pki: Pki) -> None:
    """Subject, audience and expiry come back, and only for the key that signed."""
    svid = pki.workload("shop")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
    issued = tokens.issue(svid, NSMGR, until)
    assert tokens.verify(issued.text, _key(svid)) == issued
    assert (issued.subject, issued.audience, issued.expires) == (svid.spiffe_id, (NSMGR,), until)
    with pytest.raises(InvalidToken, match="not signed by the certificate of"):
        tokens.verify(issued.text, _key(pki.workload("shop")))


def test_a_token_does_not_outlive_the_certificate(pki: Pki) -> None:
    """Whoever holds an expired identity can't go on with its token."""
    svid = pki.identity("spiffe://mesh.local/ns/default/sa/shop", lifetime=timedelta(seconds=30))
    assert tokens.issue(svid, NSMGR, datetime.now(UTC) + timedelta(hours=1)).expires <= svid.not_after


def test_the_subject_must_be_the_certificate_s(pki: Pki) -> None:
    """One member can't act as another, even with its own valid signature (an upstream defect)."""
    svid = pki.workload("shop")
    liar = X509Identity(
        "spiffe://mesh.local/ns/default/sa/other", svid.cert_chain_pem, svid.key_pem, svid.bundle_pem, svid.not_after
    )
    now = datetime.now(UTC)
    text = tokens.issue(liar, NSMGR, now + timedelta(minutes=1)).text
    with pytest.raises(InvalidToken, match=r"isn't the certificate's .*/sa/shop"):
        tokens.check_caller(text, caller=svid.spiffe_id, key=_key(svid), audience=NSMGR, now=now)


def test_audience_and_expiry_are_checked(pki: Pki) -> None:
    """A token for somebody else, or of yesterday, proves nothing; a missing one names the metadata."""
    svid, now = pki.workload("shop"), datetime.now(UTC)
    check = {"caller": svid.spiffe_id, "key": _key(svid), "audience": NSMGR}
    other = tokens.issue(svid, "spiffe://mesh.local/ns/default/sa/x", now + timedelta(minutes=1)).text
    with pytest.raises(InvalidToken, match="not for spiffe"):
        tokens.check_caller(other, now=now, **check)
    mine = tokens.issue(svid, NSMGR, now + timedelta(minutes=1)).text
    with pytest.raises(InvalidToken, match="expired at"):
        tokens.check_caller(mine, now=now + timedelta(minutes=2), **check)
    with pytest.raises(InvalidToken, match="nsm-client-token is missing"):
        tokens.check_caller("", now=now, **check)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": ["a"], "exp": 2e9}, "no sub"),
        ({"sub": "s", "exp": 2e9}, "aud must name"),
        ({"sub": "s", "aud": ["a"]}, "exp must be"),
        ({"sub": "s", "aud": ["a"], "exp": True}, "exp must be"),
        ({"sub": "s", "aud": ["a"], "exp": 1e300}, "exp must be"),
        ({"sub": "s", "aud": ["a"], "exp": float("nan")}, "exp must be"),
        ({"sub": "s", "aud": [1], "exp": 2e9}, "aud must name"),
        ([], "isn't a JSON object"),
    ],
)
def test_claims_that_prove_nothing_are_named(claims: object, reason: str) -> None:
    with pytest.raises(InvalidToken, match=reason):
        tokens.parse(_forged(claims))


def test_another_algorithm_is_refused() -> None:
    """`none` and symmetric algorithms are how JWTs are forged."""
    for algorithm in ("none", "HS256", None):
        with pytest.raises(InvalidToken, match="only ES256"):
            tokens.parse(_forged({"sub": "s", "aud": ["a"], "exp": 2e9}, {"alg": algorithm}))


def test_one_audience_as_text_and_several_are_read() -> None:
    """RFC 7519 section 4.1.3 allows both; the original answers INTERNAL or denies."""
    assert tokens.parse(_forged({"sub": "s", "aud": "a", "exp": 2e9})).audience == ("a",)
    assert tokens.parse(_forged({"sub": "s", "aud": ["a", "b"], "exp": 2e9})).audience == ("a", "b")


def test_a_chain_passes_from_hand_to_hand(pki: Pki) -> None:
    """Each token is made for the one who shows the next."""
    now = datetime.now(UTC)
    one, two, three = (pki.workload(name) for name in ("one", "two", "three"))
    until = now + timedelta(minutes=1)
    first, second = tokens.issue(one, two.spiffe_id, until), tokens.issue(two, three.spiffe_id, until)
    tokens.check_chain([first, second], now)
    with pytest.raises(InvalidToken, match="wasn't made for"):
        tokens.check_chain([second, first], now)
    with pytest.raises(InvalidToken, match="expired"):
        tokens.check_chain([first, second], until)


def test_a_certificate_with_another_key_can_not_sign(pki: Pki) -> None:
    """RSA identities are told what they need."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rsa")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    with pytest.raises(InvalidToken, match="EC P-256"):
        tokens.public_key(certificate)


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}"))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    """Parsing ends in a token or in InvalidToken, never in anything else."""
    try:
        tokens.parse(text)
    except errors.Forbidden:
        pass


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_whatever_json_comes_is_read_or_refused(value: object) -> None:
    """The same for well-formed parts of any content."""
    for claims in (value, {"sub": value, "aud": ["a"], "exp": 2e9}, {"sub": "s", "aud": value, "exp": value}):
        try:
            tokens.parse(_forged(claims))
        except errors.Forbidden:
            pass
