//! Certificates and a service for the tests of the whole server.

use std::sync::Arc;

use meshwright_serve::tls::spiffe::Expected;
use meshwright_serve::{Channel, Identities, Identity, Limits, Listener, Running, Server, Services};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

pub(crate) const SERVER: &str = "spiffe://mesh.local/ns/test/sa/server";
pub(crate) const CLIENT: &str = "spiffe://mesh.local/ns/test/sa/client";

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("key");
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("authority"),
        }
    }

    pub(crate) fn bundle(&self) -> String {
        self.issuer.pem()
    }

    /// An identity that trusts this authority, or the given bundle.
    pub(crate) fn issue(&self, spiffe_id: &str, bundle: Option<&str>) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().expect("ASCII"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("key");
        let chain = params.signed_by(&key, &self.issuer).expect("certificate").pem();
        let bundle = bundle.map_or_else(|| self.bundle(), str::to_owned);
        Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes(), bundle.as_bytes()).expect("identity")
    }
}

/// A server of the health service, with what sets its answers.
pub(crate) async fn serve(listen: &str, identities: Option<Arc<Identities>>) -> (Running, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("part", ServingStatus::Serving).await;
    let mut builder = Server::builder().services(Services::default().add(health, &["Check", "Watch"]));
    if let Some(identities) = identities {
        builder = builder.identity(identities);
    }
    let listener = Listener::bind(listen, 0o600).expect("bound");
    (builder.serve(vec![listener]), reporter)
}

/// A channel to the server's first address.
pub(crate) fn channel(server: &Running, identities: Option<Arc<Identities>>, peer: &str) -> Channel {
    channel_to(&server.addresses()[0], identities, peer)
}

/// A channel to any address.
pub(crate) fn channel_to(address: &str, identities: Option<Arc<Identities>>, peer: &str) -> Channel {
    let expected = Expected::parse(peer).expect("peer");
    Channel::new(address, identities, expected, Limits::default()).expect("channel")
}
