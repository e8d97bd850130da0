//! Mutual TLS from a folder with cert.pem, key.pem and ca.pem, with tonic's own settings, and the same without tonic.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

fn read(folder: &str, name: &str) -> Vec<u8> {
    let path = Path::new(folder).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A server that asks for a certificate of the same authority.
pub fn server(folder: &str) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(Identity::from_pem(read(folder, "cert.pem"), read(folder, "key.pem")))
        .client_ca_root(Certificate::from_pem(read(folder, "ca.pem")))
}

/// Connections of their own to `target` (host:port), all of them established.
pub async fn connect(target: &str, folder: &str, domain: &str, count: usize) -> Vec<Channel> {
    let tls = ClientTlsConfig::new()
        .identity(Identity::from_pem(read(folder, "cert.pem"), read(folder, "key.pem")))
        .ca_certificate(Certificate::from_pem(read(folder, "ca.pem")))
        .domain_name(domain);
    let endpoint = Endpoint::from_shared(format!("https://{target}"))
        .expect("host:port")
        .tls_config(tls)
        .expect("certificates");
    let mut channels = Vec::with_capacity(count);
    for _ in 0..count {
        channels.push(endpoint.connect().await.expect("connect"));
    }
    channels
}

/// A byte stream, encrypted or not.
pub type Stream = Box<dyn ReadWrite>;

/// What HTTP/2 needs of one.
pub trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for S {}

/// Makes connections for clients that speak HTTP/2 themselves; without a folder in plain text.
pub struct Connector {
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    /// Read the certificates; `domain` is the server's name in its own.
    pub fn new(folder: Option<&str>, domain: &str) -> Self {
        let tls = folder.map(|folder| {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&read(folder, "ca.pem")) {
                roots.add(certificate.expect("a certificate")).expect("an authority");
            }
            let chain = CertificateDer::pem_slice_iter(&read(folder, "cert.pem"))
                .map(|certificate| certificate.expect("a certificate"))
                .collect();
            let key = PrivateKeyDer::from_pem_slice(&read(folder, "key.pem")).expect("a key");
            let mut config = ClientConfig::builder()
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)
                .expect("certificate and key belong together");
            config.alpn_protocols = vec![b"h2".to_vec()];
            let name = ServerName::try_from(domain.to_owned()).expect("a DNS name");
            (TlsConnector::from(Arc::new(config)), name)
        });
        Self { tls }
    }

    /// A connection to `target` (host:port).
    pub async fn connect(&self, target: &str) -> Stream {
        let stream = TcpStream::connect(target).await.expect("connect");
        stream.set_nodelay(true).expect("a TCP socket");
        match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await.expect("TLS")),
        }
    }
}
