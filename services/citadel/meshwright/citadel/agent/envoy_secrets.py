"""Which Envoy secret a name means, and its content (envoy.extensions.transport_sockets.tls.v3.Secret).

One decision to know: `ROOTCA` and the trust domain's ID carry plain root certificates, because the names that a peer
must have are the manager's business; `ALL` carries Envoy's own SPIFFE validator, for proxies without a manager.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshwright.api.envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_spiffe_validator_config_pb2
from meshwright.citadel.agent.session import Session
from meshwright.citadel.agent.workloads import Svid
from meshwright.citadel.ca.authority import pem
from meshwright.core import errors, identity

DEFAULT = "default"
ROOT = "ROOTCA"
ALL = "ALL"


def is_trust(name: str, trust_domain: str) -> bool:
    """Return whether `name` means a trust bundle."""
    return name in (ROOT, ALL, f"spiffe://{trust_domain}")


def is_name(name: str, trust_domain: str) -> bool:
    """Return whether `name` can ever be served."""
    if name == DEFAULT or is_trust(name, trust_domain):
        return True
    try:
        return identity.check_spiffe_id(name).startswith(f"spiffe://{trust_domain}/")
    except errors.ConfigError:
        return False


def find(names: Sequence[str], session: Session, trust_domain: str) -> dict[str, Any]:
    """Return the secrets that exist now, by name; no names asks for everything: trust, and each SVID by its ID."""
    svids = session.svids()
    by_id: dict[str, Svid] = {}
    for each in svids:
        by_id.setdefault(each.spiffe_id, each)
    wanted = names or (*by_id, ROOT)
    found: dict[str, Any] = {}
    for name in wanted:
        if is_trust(name, trust_domain):
            if session.bundle:
                found[name] = _trust(name, trust_domain, session.bundle)
        elif svid := (svids[0] if svids else None) if name == DEFAULT else by_id.get(name):
            found[name] = _certificate(name, svid)
    return found


def _certificate(name: str, svid: Svid) -> Any:
    secret = secret_pb2.Secret(name=name)
    secret.tls_certificate.certificate_chain.inline_bytes = svid.chain_pem()
    secret.tls_certificate.private_key.inline_bytes = svid.key_pem()
    return secret


def _trust(name: str, trust_domain: str, bundle: Sequence[bytes]) -> Any:
    secret = secret_pb2.Secret(name=name)
    roots = b"".join(map(pem, bundle))
    if name == ALL:
        validator = tls_spiffe_validator_config_pb2.SPIFFECertValidatorConfig()
        validator.trust_domains.add(name=trust_domain).trust_bundle.inline_bytes = roots
        custom = secret.validation_context.custom_validator_config
        custom.name = "envoy.tls.cert_validator.spiffe"
        custom.typed_config.Pack(validator)
    else:
        secret.validation_context.trusted_ca.inline_bytes = roots
    return secret
