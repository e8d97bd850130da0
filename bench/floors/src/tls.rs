//! Mutual TLS from a folder with cert.pem, key.pem and ca.pem, with tonic's own settings.

use std::fs;
use std::path::Path;

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
