//! The certificate that this process shows and the authorities that it trusts, replaced while it runs.
//!
//! Each handshake takes the identity of its moment; connections that stand are never touched by a rotation. Sessions
//! aren't resumed: a resumed handshake would skip the certificate, and with it the present trust bundle.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;

use crate::error::Error;
use crate::spiffe::{Expected, Id};
use crate::verify::{ClientVerifier, ServerVerifier};

const ALPN_HTTP2: &[u8] = b"h2";

/// An X.509 identity (X509-SVID) with the trust bundle of its own trust domain.
#[derive(Debug)]
pub struct Identity {
    id: Id,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    /// Read PEM texts: the chain (leaf first), its key, and the authorities of the trust domain.
    pub fn from_pem(chain: &[u8], key: &[u8], bundle: &[u8]) -> Result<Self, Error> {
        let refuse = |field, reason: String| Error::Identity { field, reason };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(chain).map_err(|reason| refuse("cert_chain_pem", reason))?;
        let id = Id::of_certificate(&chain[0]).map_err(|reason| refuse("cert_chain_pem", reason))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| refuse("key_pem", error.to_string()))?;
        let key =
            CertifiedKey::from_der(chain, key, &provider).map_err(|error| refuse("key_pem", error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(bundle).map_err(|reason| refuse("bundle_pem", reason))? {
            roots
                .add(root)
                .map_err(|error| refuse("bundle_pem", error.to_string()))?;
        }
        let (key, roots) = (Arc::new(key), Arc::new(roots));
        let verifier = ClientVerifier::new(roots.clone(), id.trust_domain().to_owned(), provider.clone())
            .map_err(|reason| refuse("bundle_pem", reason))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| refuse("key_pem", error.to_string()))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
        server.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            id,
            key,
            roots,
            server: Arc::new(server),
            provider,
        })
    }

    /// The SPIFFE ID of the leaf.
    pub fn id(&self) -> &Id {
        &self.id
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// A client's configuration that takes only `expected` for its server.
    pub(crate) fn client(&self, expected: &Expected) -> Result<Arc<ClientConfig>, rustls::Error> {
        let verifier = ServerVerifier::new(
            self.roots.clone(),
            self.id.trust_domain().to_owned(),
            expected.clone(),
            self.provider.clone(),
        );
        let mut client = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous() // rustls' word for a verifier of our own, which verifies the chain and the SPIFFE ID
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.key.clone())));
        client.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        client.enable_sni = false; // the server's name is its SPIFFE ID, which SNI can't carry
        Ok(Arc::new(client))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not PEM: {error}"))?;
    if certificates.is_empty() {
        Err("it holds no certificate".to_owned())
    } else {
        Ok(certificates)
    }
}

/// Holds the identity in use; shared by servers and channels, replaced by whoever renews it.
#[derive(Debug)]
pub struct Identities {
    current: ArcSwap<Identity>,
    rotations: watch::Sender<u64>,
}

impl Identities {
    /// Begin with `identity`.
    pub fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(identity),
            rotations: watch::Sender::new(0),
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
}
