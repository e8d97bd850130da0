//! What a leaf certificate says of its holder. It counts only once the chain has been verified.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::spiffe::Id;

/// Whether all of these certificates are valid at `now`.
pub(crate) fn are_in_time(chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    chain.iter().all(|der| {
        X509Certificate::from_der(der).is_ok_and(|(_, certificate)| {
            let validity = certificate.validity();
            (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
        })
    })
}

/// Names of a leaf certificate, as its issuer wrote them.
#[derive(Debug)]
pub(crate) struct Names {
    uris: Vec<String>,
    dns: Vec<Arc<str>>,
}

impl Names {
    /// Read a leaf; `Err` says why it can't be one. A leaf that may sign others isn't one, whatever its authority
    /// says (X509-SVID, section 5.2).
    pub(crate) fn of_leaf(der: &[u8]) -> Result<Self, String> {
        let (rest, leaf) = X509Certificate::from_der(der).map_err(|error| format!("unreadable: {error}"))?;
        if !rest.is_empty() {
            return Err("unreadable: bytes follow the certificate".to_owned());
        }
        let constraints = leaf.basic_constraints();
        let constraints = constraints.map_err(|error| format!("unreadable basic constraints: {error}"))?;
        if constraints.is_some_and(|extension| extension.value.ca) {
            return Err("it is an authority's (CA is true), not a leaf".to_owned());
        }
        // Without the extension every usage is allowed (RFC 5280, section 4.2.1.3).
        let usage = leaf
            .key_usage()
            .map_err(|error| format!("unreadable key usage: {error}"))?;
        if let Some(usage) = usage.map(|extension| extension.value) {
            if usage.key_cert_sign() || usage.crl_sign() {
                return Err("its key usage has keyCertSign or cRLSign, which a leaf must not have".to_owned());
            }
            if !usage.digital_signature() {
                return Err("its key usage lacks digitalSignature".to_owned());
            }
        }
        let names = leaf
            .subject_alternative_name()
            .map_err(|error| format!("unreadable names: {error}"))?;
        let names = || names.iter().flat_map(|extension| &extension.value.general_names);
        Ok(Self {
            uris: names()
                .filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                })
                .collect(),
            dns: names()
                .filter_map(|name| match name {
                    GeneralName::DNSName(dns) => Some(dns.to_ascii_lowercase().into()),
                    _ => None,
                })
                .collect(),
        })
    }

    /// The SPIFFE ID, which an X509-SVID carries as its one URI name (X509-SVID, section 2); `Err` says why there is
    /// none.
    pub(crate) fn id(&self) -> Result<Id, String> {
        match self.uris.as_slice() {
            [uri] => Id::parse(uri).map_err(|error| error.to_string()),
            [] => Err("it carries no SPIFFE ID (no URI name)".to_owned()),
            _ => Err("it carries several URI names; an X509-SVID has exactly one".to_owned()),
        }
    }

    /// Whether it claims to be an X509-SVID, well formed or not.
    pub(crate) fn claims_id(&self) -> bool {
        let scheme = |uri: &String| {
            uri.get(..7)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
        };
        self.uris.iter().any(scheme)
    }

    /// Whether there is any URI name.
    pub(crate) fn has_uri(&self) -> bool {
        !self.uris.is_empty()
    }

    /// The DNS names, in lower case.
    pub(crate) fn dns(&self) -> &[Arc<str>] {
        &self.dns
    }
}
