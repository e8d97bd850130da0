"""`issue`: a certificate for a CSR.

Ours is citadel's whole path after the transport: strict checks, profile, signature, audit line and counters. The floor
parses the CSR, verifies its signature and signs, with bare `cryptography`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.result import Result, interleave, machine, median, require_quiet
from meshwright.citadel.ca import authority, seal
from meshwright.citadel.issuer import Issuer, Lifetimes
from meshwright.citadel.jwt_custody import JwtCustody
from meshwright.core import logs
from meshwright.core.clock import SystemClock
from meshwright.core.store import MemoryStore

FLOOR_QUIET_US = 190
CALLS = 2000
CALLER = "spiffe://mesh.local/ns/meshwright-system/sa/citadel-agent"


def run(rounds: int) -> Result:
    """Measure both in turn in one process, on one core."""
    csr = request()
    root = authority.new_root("mesh.local", datetime.now(UTC))
    hour = timedelta(hours=1)
    lifetimes = Lifetimes(part=hour, workload=hour, longest=timedelta(days=1), token=timedelta(minutes=5))
    clock = SystemClock()
    token_keys = JwtCustody(MemoryStore(), seal.random_key(), "mesh.local", (timedelta(days=7), lifetimes.token), clock)
    issuer = Issuer(root, "mesh.local", lifetimes, clock, token_keys=token_keys)
    profile = issuer.part("mixer")
    ours = timed(lambda: issuer.issue(csr, profile, caller=CALLER, via="bench").certificate_pem)
    floor = timed(bare(csr))
    logs.setup("citadel")
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # the audit lines are made and written
        ours_us, floor_us = map(median, interleave(rounds, [ours, floor]))
    require_quiet("bare cryptography", floor_us, FLOOR_QUIET_US)
    return Result(
        name="issue",
        ours=ours_us,
        against=floor_us,
        unit="µs",
        better="lower",
        cpu_us={"ours": ours_us, "bare cryptography": floor_us},
        conditions={"key": "EC P-256", "calls": CALLS, "rounds": rounds, **machine()},
    )


def timed(issue: Callable[[], bytes]) -> Callable[[], float]:
    """Return a function that gives the CPU time of one issue, in microseconds."""

    def measure() -> float:
        begun = time.process_time()
        for _ in range(CALLS):
            issue()
        return (time.process_time() - begun) * 1e6 / CALLS

    return measure


def request() -> bytes:
    """Make the CSR that a citadel client sends: EC P-256, one SPIFFE ID, DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.UniformResourceIdentifier("spiffe://mesh.local/ns/meshwright-system/sa/mixer")
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def bare(csr: bytes) -> Callable[[], bytes]:
    """Return the floor: the least that issues a certificate with the CSR's names."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "floor")])

    def issue() -> bytes:
        parsed = x509.load_der_x509_csr(csr)
        if not parsed.is_signature_valid:
            raise ValueError("no proof of possession")
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer)
            .public_key(parsed.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(hours=1))
        )
        for extension in parsed.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    return issue
