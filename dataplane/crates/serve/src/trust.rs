//! Whom this process believes: for each trust domain the authorities that may speak for it.
//!
//! A certificate is verified by the authorities of the domain that its SPIFFE ID names and by no others, so that a
//! federated domain's authority can't issue IDs of ours, nor we of theirs. DNS names belong to no domain: only our own
//! authorities are believed about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, OtherError, RootCertStore};

use crate::certificate::Names;
use crate::error::Error;
use crate::spiffe::{Expected, Id, is_trust_domain};

/// Who a verified peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Its SPIFFE ID; nothing when it is known by DNS names only.
    pub(crate) id: Option<Id>,
    /// Its DNS names, as far as our own authorities vouch for them.
    pub(crate) dns: Arc<[Arc<str>]>,
}

/// The authorities of one trust domain.
#[derive(Debug)]
struct Authorities {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Authorities {
    fn from_pem(field: &str, pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Identity {
            field: field.to_owned(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(pem).map_err(refuse)? {
            roots.add(root).map_err(|error| refuse(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .clear_root_hint_subjects() // clients have one identity; the list of authorities would tell them nothing
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Self { roots, clients })
    }
}

/// The trust bundles of the own trust domain and of federated ones.
#[derive(Debug)]
pub(crate) struct Trust {
    domain: String,
    own: Authorities,
    federated: BTreeMap<String, Authorities>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// Read bundles in PEM; `federated` are (trust domain's name, bundle).
    pub(crate) fn from_pem(
        domain: &str,
        bundle: &[u8],
        federated: &[(String, Vec<u8>)],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let own = Authorities::from_pem("bundle_pem", bundle, &provider)?;
        let mut others = BTreeMap::new();
        for (name, pem) in federated {
            let field = format!("federated[{name:?}]");
            let reason = if name == domain {
                "this is the own trust domain, whose authorities belong into bundle_pem"
            } else if !is_trust_domain(name) {
                "a trust domain's name has 1-255 of a-z 0-9 . - _, without spiffe://"
            } else {
                others.insert(name.clone(), Authorities::from_pem(&field, pem, &provider)?);
                continue;
            };
            return Err(Error::Identity {
                field,
                reason: reason.to_owned(),
            });
        }
        Ok(Self {
            domain: domain.to_owned(),
            own,
            federated: others,
            provider,
        })
    }

    fn authorities(&self, domain: &str) -> Option<&Authorities> {
        if domain == self.domain {
            Some(&self.own)
        } else {
            self.federated.get(domain)
        }
    }

    /// Verify a client by its SPIFFE ID; with `by_dns` one that has only DNS names will do.
    pub(crate) fn client(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        by_dns: bool,
    ) -> Result<Verified, rustls::Error> {
        let names = names_of(leaf)?;
        let id = match names.id() {
            Ok(id) => Some(id),
            Err(_) if by_dns && !names.has_uri() && !names.dns().is_empty() => None,
            Err(reason) => return Err(refuse_certificate(&reason)),
        };
        let authorities = match &id {
            Some(id) => self.authorities(id.trust_domain()).ok_or_else(|| self.stranger(id))?,
            None => &self.own,
        };
        authorities.clients.verify_client_cert(leaf, intermediates, now)?;
        Ok(self.verified(id, &names))
    }

    /// Verify a server, which must be `expected`.
    pub(crate) fn server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        expected: &Expected,
    ) -> Result<Verified, rustls::Error> {
        let names = names_of(leaf)?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        let chain = |authorities: &Authorities| {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &authorities.roots, intermediates, now, algorithms)
        };
        if let Expected::Dns(name) = expected {
            chain(&self.own)?;
            verify_server_name(&parsed, &ServerName::DnsName(name.clone()))?;
            // What claims to be an X509-SVID must be one, and our own: nobody else's ID was verified here.
            let id = match names.id() {
                Ok(id) if id.trust_domain() == self.domain => Some(id),
                Ok(id) => return Err(self.stranger(&id)),
                Err(reason) if names.claims_id() => return Err(refuse_certificate(&reason)),
                Err(_) => None,
            };
            return Ok(self.verified(id, &names));
        }
        let id = names.id().map_err(|reason| refuse_certificate(&reason))?;
        chain(self.authorities(id.trust_domain()).ok_or_else(|| self.stranger(&id))?)?;
        if expected.accepts(&id, &self.domain) {
            Ok(self.verified(Some(id), &names))
        } else {
            Err(refuse(format!("the server is {id}, expected {expected}")))
        }
    }

    /// Who the leaf is that a full handshake has just verified.
    pub(crate) fn identify(&self, leaf: &CertificateDer<'_>) -> Result<Verified, rustls::Error> {
        let names = names_of(leaf)?;
        Ok(self.verified(names.id().ok(), &names))
    }

    fn verified(&self, id: Option<Id>, names: &Names) -> Verified {
        let is_ours = id.as_ref().is_none_or(|id| id.trust_domain() == self.domain);
        let dns = if is_ours { names.dns() } else { &[] };
        Verified { id, dns: dns.into() }
    }

    fn stranger(&self, id: &Id) -> rustls::Error {
        let federated: Vec<_> = self.federated.keys().map(String::as_str).collect();
        let federated = if federated.is_empty() {
            "none".to_owned()
        } else {
            federated.join(", ")
        };
        refuse(format!(
            "the peer is {id}, of another trust domain than {} and federated ones ({federated})",
            self.domain
        ))
    }
}

fn names_of(leaf: &[u8]) -> Result<Names, rustls::Error> {
    Names::of_leaf(leaf).map_err(|reason| refuse_certificate(&reason))
}

/// Read all certificates of a PEM text.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not PEM: {error}"))?;
    if certificates.is_empty() {
        Err("it holds no certificate".to_owned())
    } else {
        Ok(certificates)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn refuse(reason: String) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refusal(reason)))))
}

fn refuse_certificate(reason: &str) -> rustls::Error {
    refuse(format!("the peer's certificate: {reason}"))
}
