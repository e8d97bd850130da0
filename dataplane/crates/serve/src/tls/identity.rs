//! The certificate that this process shows and the authorities that it trusts, replaced while it runs.
//!
//! Each handshake takes the identity of its moment; connections that stand are never touched by a rotation.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::error::Error;
use crate::tls::certificate::Names;
use crate::tls::named::Certificates;
use crate::tls::spiffe::Id;
use crate::tls::trust::{Trust, certificates};

/// An X.509 identity (X509-SVID) with the trust bundles of its own trust domain and of federated ones.
#[derive(Debug)]
pub struct Identity {
    id: Id,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl Identity {
    /// Read PEM texts: the chain (leaf first), its key, and the authorities of the trust domain.
    pub fn from_pem(chain: &[u8], key: &[u8], bundle: &[u8]) -> Result<Self, Error> {
        Self::from_pem_federated(chain, key, bundle, &[])
    }

    /// The same with the bundles of other trust domains, whose members are known by their IDs too; each is (name of
    /// the trust domain, PEM).
    pub fn from_pem_federated(
        chain: &[u8],
        key: &[u8],
        bundle: &[u8],
        federated: &[(String, Vec<u8>)],
    ) -> Result<Self, Error> {
        Self::from_pem_named(chain, key, bundle, federated, &[])
    }

    /// The same with further certificates, each (chain, key): a server shows them to clients that ask for one of their
    /// DNS names.
    pub fn from_pem_named(
        chain: &[u8],
        key: &[u8],
        bundle: &[u8],
        federated: &[(String, Vec<u8>)],
        named: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Self, Error> {
        let refuse = |field: &str, reason: String| Error::Identity {
            field: field.to_owned(),
            reason,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = certified(chain, key, &provider).map_err(|(part, reason)| refuse(part, reason))?;
        let id = Names::of_leaf(&own.cert[0]).and_then(|names| names.id());
        let id = id.map_err(|reason| refuse("cert_chain_pem", reason))?;
        let named = named.iter().enumerate().map(|(index, (chain, key))| {
            let named = certified(chain, key, &provider);
            named.map_err(|(part, reason)| refuse(&format!("named[{index}].{part}"), reason))
        });
        let named = named.collect::<Result<_, _>>()?;
        let certificates = Certificates::new(own, named).map_err(|reason| refuse("named", reason))?;
        let trust = Trust::from_pem(id.trust_domain(), bundle, federated, provider.clone())?;
        Ok(Self {
            id,
            certificates: Arc::new(certificates),
            trust: Arc::new(trust),
            provider,
        })
    }

    /// The SPIFFE ID of the leaf.
    pub fn id(&self) -> &Id {
        &self.id
    }
}

/// A chain with its key; an error names the part that is wrong, and why.
fn certified(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, (&'static str, String)> {
    let chain = certificates(chain).map_err(|reason| ("cert_chain_pem", reason))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| ("key_pem", error.to_string()))?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| ("key_pem", error.to_string()))?;
    Ok(Arc::new(key))
}

static ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The versions of TLS that handshakes may agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.3.
    #[default]
    Only13,
    /// TLS 1.2 as well, for old peers.
    From12,
}

impl Versions {
    /// Read names, "1.3" and "1.2"; 1.3 is always one of them.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let refuse = |value: &str, reason: &str| Error::Pattern {
            kind: "tls_versions",
            value: value.to_owned(),
            reason: reason.to_owned(),
        };
        let (mut with_12, mut with_13) = (false, false);
        for name in names {
            match name {
                "1.2" => with_12 = true,
                "1.3" => with_13 = true,
                other => return Err(refuse(other, "known are \"1.3\" and, for old peers, \"1.2\"")),
            }
        }
        match (with_12, with_13) {
            (false, true) => Ok(Self::Only13),
            (true, true) => Ok(Self::From12),
            (_, false) => Err(refuse("", "\"1.3\" must be among them")),
        }
    }

    pub(crate) fn protocols(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Only13 => ONLY_13,
            Self::From12 => rustls::ALL_VERSIONS,
        }
    }
}

/// Holds the identity in use; shared by servers and channels, replaced by whoever renews it.
#[derive(Debug)]
pub struct Identities {
    current: ArcSwap<Identity>,
    rotations: watch::Sender<u64>,
    versions: Versions,
}

impl Identities {
    /// Begin with `identity`.
    pub fn new(identity: Identity) -> Arc<Self> {
        Self::with_versions(identity, Versions::default())
    }

    /// Begin with `identity`; its handshakes agree on one of `versions`.
    pub fn with_versions(identity: Identity, versions: Versions) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(identity),
            rotations: watch::Sender::new(0),
            versions,
        })
    }

    /// The identity for a handshake that starts now.
    pub fn current(&self) -> Arc<Identity> {
        self.current.load_full()
    }

    /// Use `identity` from the next handshake on; channels move to a new connection, without losing a call.
    pub fn rotate(&self, identity: Identity) {
        self.current.store(Arc::new(identity));
        self.rotations.send_modify(|count| *count += 1);
    }

    /// Changes whenever the identity was replaced.
    pub(crate) fn rotations(&self) -> watch::Receiver<u64> {
        self.rotations.subscribe()
    }

    pub(crate) fn versions(&self) -> Versions {
        self.versions
    }
}
