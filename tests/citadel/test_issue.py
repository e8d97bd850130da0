"""What the mesh CA signs, and everything that it refuses to sign (threat list of the wire contract)."""

from __future__ import annotations

import concurrent.futures
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import AttributeOID, ExtensionOID, NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st
from signing_requests import WEB, csr, pem, uri

from meshwright.citadel.ca import authority, request
from meshwright.citadel.ca.profile import Profile, is_dns_name, part_profile, split_part_id
from meshwright.citadel.errors import AuthorityExpired, RequestRefused

NOW = datetime(2026, 11, 21, 3, 0, 0, 250_000, tzinfo=UTC)
PROFILE = Profile(WEB, ("web.shop.svc",), ttl=timedelta(hours=1), max_ttl=timedelta(days=1))


@pytest.fixture(scope="module")
def root() -> authority.Authority:
    return authority.new_root("mesh.local", NOW)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def certificate(issued: authority.Issued) -> x509.Certificate:
    return x509.load_der_x509_certificate(issued.certificate_der)


def test_a_leaf_is_what_the_x509_svid_standard_asks_for(root: authority.Authority) -> None:
    """X509-SVID sections 2 to 4: one URI, no CA, digitalSignature only, both key usages, SAN critical."""
    leaf = certificate(root.issue(request.from_der(csr(uri(WEB))), PROFILE, now=NOW))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [uri(WEB), x509.DNSName("web.shop.svc")]
    assert len(leaf.subject) == 0
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    own = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    theirs = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert theirs.key_identifier == own.key_identifier
    leaf.verify_directly_issued_by(root.certificate)


@pytest.mark.parametrize("name", ["web.shop.svc"])
def test_a_leaf_passes_a_strict_verifier(root: authority.Authority, name: str) -> None:
    """An independent path validation (RFC 5280 and the web's profile) accepts chain, names and times."""
    leaf = certificate(root.issue(request.from_der(csr(uri(WEB))), PROFILE, now=NOW))
    builder = verification.PolicyBuilder().store(verification.Store([root.certificate])).time(NOW.replace(tzinfo=None))
    assert len(builder.build_server_verifier(x509.DNSName(name)).verify(leaf, [])) == 2


def test_times_count_from_now_and_begin_earlier(root: authority.Authority) -> None:
    """Two minutes of a slow clock are tolerated; a lifetime of five seconds is five seconds, rounded up."""
    issued = root.issue(request.from_der(csr()), PROFILE, asked_seconds=5, now=NOW)
    assert issued.not_after == NOW.replace(microsecond=0) + timedelta(seconds=6)
    leaf = certificate(root.issue(request.from_der(csr()), PROFILE, now=NOW + timedelta(hours=1)))
    assert leaf.not_valid_before_utc == (NOW + timedelta(minutes=58)).replace(microsecond=0)


def test_a_leaf_ends_with_its_ca(root: authority.Authority) -> None:
    """NotAfter is clamped to the CA's own end, and outside the CA's life nothing is signed."""
    late = root.not_after - timedelta(minutes=10)
    assert root.issue(request.from_der(csr()), PROFILE, now=late).not_after == root.not_after
    for moment in (root.not_after, NOW - timedelta(days=1)):
        with pytest.raises(AuthorityExpired, match="set the clock, or rotate"):
            root.issue(request.from_der(csr()), PROFILE, now=moment)


@pytest.mark.parametrize("seconds", [-1, 86_401, 2**40, 2**62])
def test_a_lifetime_above_the_maximum_is_an_error(root: authority.Authority, seconds: int) -> None:
    """Not cut silently: the caller plans its renewal by what it asked for."""
    with pytest.raises(RequestRefused, match="validity_duration"):
        root.issue(request.from_der(csr()), PROFILE, asked_seconds=seconds, now=NOW)


def test_clients_that_name_nothing_or_an_empty_organisation_are_served(root: authority.Authority) -> None:
    """SPIRE's agent sends no names, Istio's an empty O=: they get what the caller is."""
    plain = root.issue(request.from_der(csr()), PROFILE, now=NOW)
    istio = csr(uri(WEB), subject=[x509.NameAttribute(NameOID.ORGANIZATION_NAME, "", _validate=False)])
    assert plain.spiffe_id == root.issue(request.from_der(istio), PROFILE, now=NOW).spiffe_id == WEB


def test_a_leaf_never_copies_the_subject(root: authority.Authority) -> None:
    asked = csr(uri(WEB), subject=[x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters")])
    assert len(certificate(root.issue(request.from_der(asked), PROFILE, now=NOW)).subject) == 0


@pytest.mark.parametrize("size", [2048, 3072])
def test_rsa_keys_are_certified_with_the_hash_of_the_ca(root: authority.Authority, size: int) -> None:
    """An RSA request under an EC authority works (Istio 1.4 failed the other way round)."""
    key = rsa.generate_private_key(65537, size)
    leaf = certificate(root.issue(request.from_der(csr(uri(WEB), key=key)), PROFILE, now=NOW))
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment
    leaf.verify_directly_issued_by(root.certificate)


@pytest.mark.parametrize(
    "other",
    [
        "spiffe://mesh.local/ns/shop/sa/admin",
        "spiffe://other.domain/ns/shop/sa/web",
        "spiffe://mesh.local/ns/shop/sa/web/",
        "spiffe://MESH.local/ns/shop/sa/web",
        "spiffe://mesh.local/ns/shop/../shop/sa/web",
        "spiffe://mesh.local/ns/shop/sa/%77eb",
        "spiffe://mesh.local:443/ns/shop/sa/web",
        WEB + "?x=1",
        WEB + "#x",
        "https://mesh.local/ns/shop/sa/web",
        "",
        WEB + "/" + "a" * 9000,
    ],
)
def test_nobody_gets_another_identity(root: authority.Authority, other: str) -> None:
    with pytest.raises(RequestRefused, match=r"csr\.names"):
        root.issue(request.from_der(csr(uri(other))), PROFILE, now=NOW)


@pytest.mark.parametrize("name", ["*.evil.com", "other.shop.svc", "web.shop.svc.", "*.shop.svc", "WEB.shop.svc"])
def test_dns_names_beyond_the_registration_are_refused(root: authority.Authority, name: str) -> None:
    with pytest.raises(RequestRefused, match="DNS name"):
        root.issue(request.from_der(csr(uri(WEB), x509.DNSName(name))), PROFILE, now=NOW)


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, sign, False, False, False)


REFUSED = {
    "two URIs": (lambda: csr(uri(WEB), uri(WEB)), "2 URI names"),
    "IP address": (lambda: csr(x509.RFC822Name("root@mesh.local")), "RFC822Name"),
    "common name": (lambda: csr(subject=[x509.NameAttribute(NameOID.COMMON_NAME, "admin")]), "subject"),
    "CA:TRUE": (lambda: csr(extensions=[x509.BasicConstraints(True, None)]), "certificate authority"),
    "keyCertSign": (lambda: csr(extensions=[_usage(sign=True)]), "certificate authority"),
    "code signing": (
        lambda: csr(extensions=[x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING])]),
        "extension 2.5.29.37",
    ),
    "any usage": (
        lambda: csr(extensions=[x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])]),
        "extension 2.5.29.37",
    ),
    "junk extension": (
        lambda: csr(extensions=[x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x04\x01x")]),
        "extension 1.3.6.1.4.1.99999.1",
    ),
    "large extension": (
        lambda: csr(extensions=[x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"x" * 70_000)]),
        "at most 65536",
    ),
    "challenge password": (
        lambda: csr(adjust=lambda builder: builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")),
        "attribute",
    ),
    "P-224": (lambda: csr(key=ec.generate_private_key(ec.SECP224R1())), "secp224r1"),
    "P-521": (lambda: csr(key=ec.generate_private_key(ec.SECP521R1())), "secp521r1"),
    "secp256k1": (lambda: csr(key=ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
    "RSA 1024": (lambda: csr(key=rsa.generate_private_key(65537, 1024)), "RSA of 1024"),
    "RSA exponent": (lambda: csr(key=rsa.generate_private_key(3, 2048)), "exponent"),
    "DSA": (lambda: csr(key=dsa.generate_private_key(2048)), "neither EC nor RSA"),
    "SHA-1": (lambda: _sha1(), "weak"),
    "trailing bytes": (lambda: csr(uri(WEB)) + b"\0", "can't be read"),
    "nothing": (lambda: b"", "can't be read"),
}


def _sha1() -> bytes:
    """A request that says ecdsa-with-SHA1, which the library doesn't make any more."""
    sha256, sha1 = bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex("300906072a8648ce3d0401")
    der = csr(uri(WEB), x509.DNSName("a.name.that.makes.the.length.take.two.bytes.example")).replace(sha256, sha1)
    return der[:2] + (len(der) - 4).to_bytes(2, "big") + der[4:]


@pytest.mark.parametrize("case", REFUSED)
def test_requests_that_ask_for_more_are_refused(case: str) -> None:
    """Refused, not ignored: each names what is wrong."""
    make, reason = REFUSED[case]
    with pytest.raises(RequestRefused, match=reason):
        request.from_der(make())


def test_an_ed25519_key_is_refused() -> None:
    """No proxy of the mesh could serve with it."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = builder.sign(ed25519.Ed25519PrivateKey.generate(), None)
    with pytest.raises(RequestRefused, match=r"csr\.key"):
        request.from_der(signed.public_bytes(serialization.Encoding.DER))


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_broken_signature_is_refused(kind: str, rsa_key: rsa.RSAPrivateKey) -> None:
    """Proof of possession: Istio 1.4 signed such a request."""
    der = bytearray(csr(uri(WEB), key=rsa_key if kind == "rsa" else None))
    der[-3] ^= 1
    with pytest.raises(RequestRefused, match=r"csr\.signature"):
        request.from_der(bytes(der))


def test_the_key_of_somebody_else_cant_be_certified() -> None:
    """A request for a public key, signed by another key."""
    mine, theirs = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    point = [key.public_key().public_bytes(encoding, form) for key in (mine, theirs)]
    forged = csr(uri(WEB), key=mine).replace(point[0], point[1])
    with pytest.raises(RequestRefused, match="doesn't fit the key"):
        request.from_der(forged)


@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: text + text,
        lambda text: text + "x" * 3000,
        lambda text: "Subject: me\n" + text,
        lambda text: text.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        lambda text: text.replace("\n", "", 1),
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("-----END", "\n!!!!\n-----END"),
        lambda text: "\udcff" + text,
        lambda _: "",
    ],
)
def test_exactly_one_pem_block_is_taken(disguise) -> None:
    with pytest.raises(RequestRefused, match="csr"):
        request.from_pem(disguise(pem(csr(uri(WEB)))))


def test_pem_is_taken_with_the_line_ends_and_labels_of_other_systems() -> None:
    text = pem(csr(uri(WEB)))
    for variant in (
        text,
        text.replace("\n", "\r\n"),
        text.strip(),
        text.replace("BEGIN CERT", "BEGIN NEW CERT").replace("END CERT", "END NEW CERT"),
    ):
        assert request.from_pem(variant).uri == WEB


@given(st.binary(max_size=2000))
def test_garbage_is_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(RequestRefused):
        request.from_der(data)
    with pytest.raises(RequestRefused):
        request.from_pem(data)


HONEST = csr(uri(WEB), x509.DNSName("web.shop.svc"))


@given(st.integers(0, len(HONEST) - 1), st.integers(1, 255))
def test_one_changed_byte_never_gets_another_key_or_name_certified(position: int, change: int) -> None:
    """Whatever a changed byte does, it is refused or the request still says what the signer signed."""
    data = bytearray(HONEST)
    data[position] ^= change
    try:
        parsed = request.from_der(bytes(data))
    except RequestRefused:
        return
    assert (parsed.uri, parsed.dns_names) == (WEB, ("web.shop.svc",))


def test_serial_numbers_are_random_positive_and_unique() -> None:
    """RFC 5280 section 4.1.2.2: positive, at most 20 octets; 128 random bits."""
    serials = {authority.serial_number() for _ in range(100_000)}
    assert len(serials) == 100_000
    assert all(0 < serial < 2**128 for serial in serials)
    assert max(serials).bit_length() == 128


def test_many_threads_may_issue_at_once(root: authority.Authority) -> None:
    parsed = request.from_der(csr(uri(WEB)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        serials = set(pool.map(lambda _: root.issue(parsed, PROFILE, now=NOW).serial, range(100)))
    assert len(serials) == 100


def test_parts_are_told_from_workloads() -> None:
    """Only an exact part ID (with its node) is a part's: look-alikes are workloads."""
    profile = part_profile("mesh.local", "manager", ttl=PROFILE.ttl, max_ttl=PROFILE.max_ttl)
    assert profile.dns_names == ("manager.meshwright-system.svc",)
    assert split_part_id(profile.spiffe_id, "mesh.local") == ("manager", "")
    assert split_part_id(profile.spiffe_id + "/node/n1", "mesh.local") == ("manager", "n1")
    for other in (
        WEB,
        profile.spiffe_id + "/n1",
        "spiffe://evil/ns/meshwright-system/sa/manager",
        "spiffe://mesh.local/ns/meshwright-system",
        "spiffe://mesh.local/ns/x/ns/meshwright-system/sa/manager",
    ):
        assert split_part_id(other, "mesh.local") is None


@pytest.mark.parametrize("name", ["", ".", "a.", "-a", "a-", "A", "a_b", "*.a", "a" * 64, ".".join(["a" * 60] * 5)])
def test_wrong_dns_names(name: str) -> None:
    assert not is_dns_name(name)


def test_the_hash_of_the_request_doesnt_choose_the_hash_of_the_certificate(root: authority.Authority) -> None:
    issued = root.issue(request.from_der(csr(uri(WEB), algorithm=hashes.SHA384())), PROFILE, now=NOW)
    assert isinstance(certificate(issued).signature_hash_algorithm, hashes.SHA256)
