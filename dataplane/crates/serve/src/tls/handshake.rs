//! TLS handshakes of both sides, full or resumed, and who the peer is after them.
//!
//! A session is resumed by a ticket, which spares both sides their signatures, but rustls doesn't verify the peer's
//! certificate again. So that is done here: what stood in the session must still be good by the identity, the bundles
//! and the clock of now. Sessions end with the identity they were begun with, on both sides.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, HandshakeKind, PeerIncompatible, ServerConfig,
};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::peer::Peer;
use crate::tls::certificate::are_in_time;
use crate::tls::identity::{Identities, Identity, Versions};
use crate::tls::spiffe::Expected;
use crate::tls::trust::{Trust, Verified};
use crate::tls::verify::{ClientVerifier, ServerVerifier};
use crate::wire::transport::Transport;

const ALPN_HTTP2: &[u8] = b"h2";
/// Tickets that a client is given with a full handshake, and again with each resumed one: one for its next connection
/// and one more, should that fail.
const TICKETS: usize = 2;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The peer went away without a word, as whoever only looks whether the port is open.
    #[error("the peer went away during the handshake")]
    Silent,
    /// The handshake failed, for this reason.
    #[error("{0}")]
    Handshake(String),
    /// A resumed session's certificate isn't good any more: a full handshake shows whether there is a better one.
    #[error("resumed session: {0}")]
    Stale(String),
}

/// A handshake that went well.
#[derive(Debug)]
pub(crate) struct Made<S> {
    pub(crate) stream: S,
    pub(crate) resumed: bool,
    verified: Verified,
    certificate: Arc<[u8]>,
}

impl<S> Made<S> {
    /// Write down in `peer` who it is.
    pub(crate) fn name(&self, peer: &mut Peer) {
        peer.spiffe_id = self.verified.id.clone().map(Into::into);
        peer.dns_names = self.verified.dns.clone();
        peer.certificate = Some(self.certificate.clone());
        peer.resumed = self.resumed;
    }
}

/// A configuration, and the identity for which it was made.
#[derive(Debug)]
struct Prepared<C> {
    identity: Arc<Identity>,
    config: Arc<C>,
}

/// Keeps the configuration of the identity in use. Sessions live in configurations, so they end together.
#[derive(Debug)]
struct Configurations<C>(ArcSwapOption<Prepared<C>>);

impl<C> Configurations<C> {
    fn new() -> Self {
        Self(ArcSwapOption::empty())
    }

    fn of(
        &self,
        identity: &Arc<Identity>,
        make: impl FnOnce(&Identity) -> Result<C, rustls::Error>,
    ) -> Result<Arc<C>, rustls::Error> {
        if let Some(prepared) = &*self.0.load()
            && Arc::ptr_eq(&prepared.identity, identity)
        {
            return Ok(prepared.config.clone());
        }
        let config = Arc::new(make(identity)?);
        let prepared = Prepared {
            identity: identity.clone(),
            config: config.clone(),
        };
        self.0.store(Some(Arc::new(prepared)));
        Ok(config)
    }

    fn forget(&self) {
        self.0.store(None);
    }
}

/// A server's side.
#[derive(Debug)]
pub(crate) struct Acceptor {
    identities: Arc<Identities>,
    by_dns: bool,
    configurations: Configurations<ServerConfig>,
}

impl Acceptor {
    /// With `by_dns`, clients that have a DNS name but no SPIFFE ID are let in.
    pub(crate) fn new(identities: Arc<Identities>, by_dns: bool) -> Self {
        Self {
            identities,
            by_dns,
            configurations: Configurations::new(),
        }
    }

    pub(crate) async fn accept(&self, transport: Transport) -> Result<Made<server::TlsStream<Transport>>, Refused> {
        let (identity, versions) = (self.identities.current(), self.identities.versions());
        let config = self
            .configurations
            .of(&identity, |identity| self.configure(identity, versions))
            .map_err(|error| Refused::Handshake(error.to_string()))?;
        let stream = TlsAcceptor::from(config)
            .accept(transport)
            .await
            .map_err(|error| explain(&error, versions))?;
        let again = |trust: &Trust, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now| {
            trust.client(leaf, others, now, self.by_dns)
        };
        let (verified, certificate, resumed) = after(stream.get_ref().1, &identity, &self.identities, again)?;
        Ok(Made {
            stream,
            resumed,
            verified,
            certificate,
        })
    }

    fn configure(&self, identity: &Identity, versions: Versions) -> Result<ServerConfig, rustls::Error> {
        let verifier = ClientVerifier {
            trust: identity.trust.clone(),
            by_dns: self.by_dns,
            provider: identity.provider.clone(),
        };
        let mut config = ServerConfig::builder_with_provider(identity.provider.clone())
            .with_protocol_versions(versions.protocols())?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(identity.certificates.clone());
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // rustls has one maker of tickets for all versions, and whoever learned the key of a ticket of TLS 1.2 could
        // read the recorded sessions that it resumed. So a server that speaks 1.2 gives none.
        (config.send_tls13_tickets, config.max_tls13_tickets) = match versions {
            Versions::Only13 => (TICKETS, TICKETS),
            Versions::From12 => (0, 0),
        };
        if versions == Versions::Only13 {
            config.ticketer = Ticketer::new()?;
        }
        Ok(config)
    }
}

/// A client's side, of one server.
#[derive(Debug)]
pub(crate) struct Connector {
    identities: Arc<Identities>,
    expected: Expected,
    configurations: Configurations<ClientConfig>,
}

impl Connector {
    pub(crate) fn new(identities: Arc<Identities>, expected: Expected) -> Self {
        Self {
            identities,
            expected,
            configurations: Configurations::new(),
        }
    }

    /// Changes whenever the identity was replaced.
    pub(crate) fn rotations(&self) -> watch::Receiver<u64> {
        self.identities.rotations()
    }

    /// Begin the next connection by a full handshake.
    pub(crate) fn forget_sessions(&self) {
        self.configurations.forget();
    }

    pub(crate) async fn connect(&self, transport: Transport) -> Result<Made<client::TlsStream<Transport>>, Refused> {
        let (identity, versions) = (self.identities.current(), self.identities.versions());
        let config = self
            .configurations
            .of(&identity, |identity| self.configure(identity, versions))
            .map_err(|error| Refused::Handshake(error.to_string()))?;
        let stream = TlsConnector::from(config)
            .connect(self.name(), transport)
            .await
            .map_err(|error| explain(&error, versions))?;
        let again = |trust: &Trust, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now| {
            trust.server(leaf, others, now, &self.expected)
        };
        let (verified, certificate, resumed) = after(stream.get_ref().1, &identity, &self.identities, again)?;
        Ok(Made {
            stream,
            resumed,
            verified,
            certificate,
        })
    }

    fn configure(&self, identity: &Identity, versions: Versions) -> Result<ClientConfig, rustls::Error> {
        let verifier = ServerVerifier {
            trust: identity.trust.clone(),
            expected: self.expected.clone(),
            provider: identity.provider.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(identity.provider.clone())
            .with_protocol_versions(versions.protocols())?
            .dangerous() // rustls' word for a verifier of our own, which verifies the chain and the peer's name
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certificates.own().clone())));
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        config.resumption = Resumption::in_memory_sessions(TICKETS).tls12_resumption(Tls12Resumption::Disabled);
        config.enable_sni = matches!(self.expected, Expected::Dns(_)); // a SPIFFE ID is no name that SNI can carry
        Ok(config)
    }

    /// The name for SNI, and by which sessions are kept.
    fn name(&self) -> ServerName<'static> {
        match &self.expected {
            Expected::Dns(name) => ServerName::DnsName(name.clone()),
            _ => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()), // never sent
        }
    }
}

/// What a client that speaks something else than gRPC needs for the same mutual TLS: the configuration with the identity
/// of now, and the name to ask for.
pub fn client_config(
    identities: &Arc<Identities>,
    expected: &Expected,
    alpn: &[u8],
) -> Result<(Arc<ClientConfig>, ServerName<'static>), rustls::Error> {
    let connector = Connector::new(identities.clone(), expected.clone());
    let mut config = connector.configure(&identities.current(), identities.versions())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled(); // a resumed session's peer would have to be verified again
    Ok((Arc::new(config), connector.name()))
}

/// Whom a handshake that began with `identity` has shown; `again` verifies what a resumed one has taken from its session.
fn after(
    connection: &CommonState,
    identity: &Arc<Identity>,
    identities: &Identities,
    again: impl FnOnce(&Trust, &CertificateDer<'_>, &[CertificateDer<'_>], UnixTime) -> Result<Verified, rustls::Error>,
) -> Result<(Verified, Arc<[u8]>, bool), Refused> {
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let Some(chain @ [leaf, others @ ..]) = connection.peer_certificates() else {
        return Err(Refused::Handshake("the peer showed no certificate".to_owned()));
    };
    let (present, now) = (identities.current(), UnixTime::now());
    // This very identity has verified the chain when the session began, as sessions don't outlive it: only time can
    // have changed that. That spares the signatures, which are half of what verifying costs.
    let is_fresh = !resumed || (Arc::ptr_eq(&present, identity) && are_in_time(chain, now));
    let verified = if is_fresh {
        present.trust.identify(leaf)
    } else {
        again(&present.trust, leaf, others, now)
    };
    match verified {
        Ok(verified) => Ok((verified, leaf.as_ref().into(), resumed)),
        Err(error) if resumed => Err(Refused::Stale(reason(&error))),
        Err(error) => Err(Refused::Handshake(reason(&error))),
    }
}

/// Say an error, without rustls' wrapping around our own reasons.
fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            format!("invalid peer certificate: {}", other.0)
        }
        error => error.to_string(),
    }
}

/// Say why a handshake failed; where the versions are the reason, which setting decides.
fn explain(error: &io::Error, versions: Versions) -> Refused {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Refused::Silent;
    }
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let is_about_versions = matches!(
        cause,
        Some(
            rustls::Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                    | PeerIncompatible::Tls12NotOffered
                    | PeerIncompatible::Tls12NotOfferedOrEnabled
                    | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                    | PeerIncompatible::ServerDoesNotSupportTls12Or13
            ) | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
        )
    );
    let error = cause.map_or_else(|| error.to_string(), reason);
    Refused::Handshake(match versions {
        Versions::Only13 if is_about_versions => {
            format!("{error} (tls_versions allows 1.3 only here; \"1.2\" may be added for old peers)")
        }
        Versions::From12 if is_about_versions => format!("{error} (tls_versions allows 1.3 and 1.2 here)"),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const SERVER: &str = "spiffe://mesh.local/server";
    const CLIENT: &str = "spiffe://mesh.local/client";

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("key");
            Self(CertifiedIssuer::self_signed(params, key).expect("authority"))
        }

        fn issue(&self, id: &str, trusted: &[&Self]) -> Identity {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().expect("key");
            let chain = params.signed_by(&key, &self.0).expect("certificate").pem();
            let bundle: String = trusted.iter().map(|authority| authority.0.pem()).collect();
            Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes(), bundle.as_bytes()).expect("identity")
        }
    }

    /// Two sides that have met once, so that the client has tickets.
    struct Pair {
        listener: TcpListener,
        acceptor: Acceptor,
        connector: Connector,
    }

    impl Pair {
        async fn met(server: Identity, client: Identity) -> Self {
            let expected = Expected::parse(SERVER).expect("peer");
            let pair = Self {
                listener: TcpListener::bind("127.0.0.1:0").await.expect("bound"),
                acceptor: Acceptor::new(Identities::new(server), false),
                connector: Connector::new(Identities::new(client), expected),
            };
            for resumed in [false, true, true] {
                let (accepted, connected) = pair.meet(|| ()).await;
                let (mut accepted, mut connected) = (accepted.expect("accepted"), connected.expect("connected"));
                assert_eq!((accepted.resumed, connected.resumed), (resumed, resumed));
                accepted.stream.write_all(b"x").await.expect("sent"); // the tickets travel in front of it
                connected.stream.read_u8().await.expect("received");
            }
            pair
        }

        /// Shake hands; `meanwhile` happens when both sides have begun.
        async fn meet(
            &self,
            meanwhile: impl FnOnce(),
        ) -> (
            Result<Made<server::TlsStream<Transport>>, Refused>,
            Result<Made<client::TlsStream<Transport>>, Refused>,
        ) {
            let near = TcpStream::connect(self.listener.local_addr().expect("address"));
            let (near, far) = tokio::join!(near, self.listener.accept());
            let mut accept = pin!(self.acceptor.accept(Transport::Tcp(far.expect("accepted").0)));
            let mut connect = pin!(self.connector.connect(Transport::Tcp(near.expect("connected"))));
            let mut idle = Context::from_waker(Waker::noop());
            assert!(accept.as_mut().poll(&mut idle).is_pending());
            assert!(connect.as_mut().poll(&mut idle).is_pending());
            meanwhile();
            tokio::join!(accept, connect)
        }
    }

    #[tokio::test]
    async fn a_resumed_client_must_be_good_by_the_bundle_of_now() {
        let (old, new) = (Authority::new(), Authority::new());
        let pair = Pair::met(new.issue(SERVER, &[&old, &new]), old.issue(CLIENT, &[&new])).await;
        let server = &pair.acceptor.identities;
        let (accepted, _) = pair.meet(|| server.rotate(new.issue(SERVER, &[&new, &old]))).await;
        assert!(accepted.expect("the authority is still known").resumed);

        let pair = Pair::met(new.issue(SERVER, &[&old, &new]), old.issue(CLIENT, &[&new])).await;
        let server = &pair.acceptor.identities;
        let (accepted, _) = pair.meet(|| server.rotate(new.issue(SERVER, &[&new]))).await;
        let refused = accepted.expect_err("its authority was removed");
        assert!(matches!(refused, Refused::Stale(_)), "{refused}");
        assert!(
            refused
                .to_string()
                .starts_with("resumed session: invalid peer certificate"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_resumed_server_must_be_good_by_the_bundle_of_now() {
        let (old, new) = (Authority::new(), Authority::new());
        let pair = Pair::met(old.issue(SERVER, &[&new]), new.issue(CLIENT, &[&old, &new])).await;
        let client = &pair.connector.identities;
        let (_, connected) = pair.meet(|| client.rotate(new.issue(CLIENT, &[&new]))).await;
        let refused = connected.expect_err("its authority was removed");
        assert!(matches!(refused, Refused::Stale(_)), "{refused}");
        // What follows is a full handshake, by the identity of now.
        let (_, connected) = pair.meet(|| ()).await;
        assert!(matches!(connected, Err(Refused::Handshake(_))));
    }
}
