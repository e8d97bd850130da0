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

use crate::error::Error;
use crate::tls::certificate::Names;
use crate::tls::spiffe::{Expected, Id, is_trust_domain};

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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    };

    use super::*;

    const DOMAINS: [&str; 3] = ["one.domain", "two.domain", "three.domain"];

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().expect("key");
            Self(CertifiedIssuer::self_signed(params, key).expect("authority"))
        }

        fn bundle(&self) -> Vec<u8> {
            self.0.pem().into_bytes()
        }

        fn leaf(&self, uris: &[&str], hosts: &[&str]) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII")));
            let hosts = hosts
                .iter()
                .map(|host| SanType::DnsName((*host).try_into().expect("ASCII")));
            params.subject_alt_names = uris.chain(hosts).collect();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().expect("key");
            params.signed_by(&key, &self.0).expect("certificate").der().clone()
        }
    }

    fn trust(own: usize, authorities: &[Authority], federated: &[usize]) -> Trust {
        let federated: Vec<_> = federated
            .iter()
            .map(|domain| (DOMAINS[*domain].to_owned(), authorities[*domain].bundle()))
            .collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Trust::from_pem(DOMAINS[own], &authorities[own].bundle(), &federated, provider).expect("bundles")
    }

    /// All of it: each authority issues an ID of each domain to whoever trusts any set of domains.
    #[test]
    fn an_authority_speaks_for_its_own_domain_and_for_no_other() {
        let authorities = DOMAINS.map(Authority::new);
        let now = UnixTime::now();
        for federated in [vec![], vec![1], vec![2], vec![1, 2]] {
            let trust = trust(0, &authorities, &federated);
            for (issuer, authority) in authorities.iter().enumerate() {
                for (claimed, domain) in DOMAINS.iter().enumerate() {
                    let id = format!("spiffe://{domain}/x");
                    let leaf = authority.leaf(&[&id], &["host.svc"]);
                    let is_known = issuer == claimed && (claimed == 0 || federated.contains(&claimed));
                    let about = format!("{domain}'s ID by {}, federated {federated:?}", DOMAINS[issuer]);

                    let client = trust.client(&leaf, &[], now, true);
                    assert_eq!(client.is_ok(), is_known, "client: {about}");
                    let server = |expected: &str| {
                        trust
                            .server(&leaf, &[], now, &Expected::parse(expected).expect("peer"))
                            .is_ok()
                    };
                    assert_eq!(server(&id), is_known, "exact: {about}");
                    assert_eq!(server(&format!("spiffe://{domain}/*")), is_known, "prefix: {about}");
                    assert_eq!(server(""), is_known && claimed == 0, "member: {about}");
                    assert_eq!(server("dns:host.svc"), is_known && claimed == 0, "host: {about}");
                    if let Ok(verified) = client {
                        assert_eq!(verified.id.expect("an ID").as_str(), id);
                        let hosts = if claimed == 0 { 1 } else { 0 };
                        assert_eq!(verified.dns.len(), hosts, "only our own authorities name hosts");
                    }
                }
            }
        }
    }

    #[test]
    fn hosts_are_known_by_the_own_authorities_only() {
        let authorities = DOMAINS.map(Authority::new);
        let trust = trust(0, &authorities, &[1]);
        let now = UnixTime::now();
        let server = |leaf: &CertificateDer<'_>, expected: &str| {
            trust.server(leaf, &[], now, &Expected::parse(expected).expect("peer"))
        };
        let ours = authorities[0].leaf(&[], &["A.svc", "*.wild.svc"]);
        for host in ["dns:a.svc", "dns:A.SVC", "dns:x.wild.svc"] {
            let verified = server(&ours, host).expect(host);
            assert_eq!(verified.id, None);
        }
        for host in [
            "dns:b.svc",
            "dns:wild.svc",
            "dns:x.y.wild.svc",
            "",
            "spiffe://one.domain/*",
        ] {
            assert!(server(&ours, host).is_err(), "{host}");
        }
        assert!(server(&authorities[1].leaf(&[], &["a.svc"]), "dns:a.svc").is_err());
        // A URI that isn't a SPIFFE ID makes no difference, one that claims to be one must be it.
        let web = authorities[0].leaf(&["https://a.svc/"], &["a.svc"]);
        assert_eq!(server(&web, "dns:a.svc").expect("a host").id, None);
        for claims in [
            vec!["spiffe://one.domain/x", "https://a.svc/"],
            vec!["SPIFFE://one.domain/x"],
            vec!["spiffe://"],
        ] {
            assert!(server(&authorities[0].leaf(&claims, &["a.svc"]), "dns:a.svc").is_err());
        }

        let client = |leaf: &CertificateDer<'_>, by_dns| trust.client(leaf, &[], now, by_dns);
        assert!(client(&ours, false).is_err());
        assert_eq!(&*client(&ours, true).expect("a host").dns[0], "a.svc");
        assert!(
            client(&web, true).is_err(),
            "a URI that isn't a SPIFFE ID is no DNS name"
        );
        assert!(client(&authorities[1].leaf(&[], &["a.svc"]), true).is_err());
        assert!(client(&authorities[0].leaf(&[], &[]), true).is_err());
    }

    /// One bit at a time, all along the certificate: nothing but the certificate itself is taken, and nothing panics.
    #[test]
    fn a_changed_certificate_is_refused() {
        let authorities = DOMAINS.map(Authority::new);
        let trust = trust(0, &authorities, &[1]);
        let leaf = authorities[0].leaf(&["spiffe://one.domain/x"], &[]);
        let expected = Expected::parse("spiffe://one.domain/x").expect("peer");
        let now = UnixTime::now();
        trust.client(&leaf, &[], now, false).expect("unchanged");
        for place in 0..leaf.len() {
            let mut changed = leaf.to_vec();
            changed[place] ^= 1 << (place % 8);
            let changed = CertificateDer::from(changed);
            assert!(trust.client(&changed, &[], now, true).is_err(), "byte {place}");
            assert!(trust.server(&changed, &[], now, &expected).is_err(), "byte {place}");
            assert!(Names::of_leaf(&leaf[..place]).is_err(), "cut at {place}");
        }
    }
}
