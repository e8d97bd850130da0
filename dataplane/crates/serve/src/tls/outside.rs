//! TLS towards servers outside of the mesh: they are believed by authorities in a file and named by a DNS name or an
//! address, and who we are to them stands in files too. All of them are read at every handshake, which follows their
//! rotation without watching them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

const ALPN_HTTP2: &[u8] = b"h2";
/// Of a file: certificates are a few KiB.
const MAX_FILE: u64 = 4 << 20;

/// Whom to believe, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The authorities, in PEM.
    pub authorities: PathBuf,
    /// Our certificates and their key, in PEM; nothing: the server isn't shown any.
    pub own: Option<(PathBuf, PathBuf)>,
    /// What the server's certificate must name, a DNS name or an IP address; empty: the target's host.
    pub server_name: String,
}

impl Outside {
    /// The configuration of the files as they are now, and the name to ask for.
    pub(crate) fn configure(&self, host: &str) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
        let name = if self.server_name.is_empty() {
            host
        } else {
            &self.server_name
        };
        let name = ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} is no name of a server"))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authorities)? {
            // Bundles of systems hold some that rustls doesn't take; who needs one of those is told by the handshake.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(format!("{}: holds no certificate", self.authorities.display()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let pem = read(key)?;
                let parsed =
                    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| format!("{}: {error}", key.display()))?;
                builder
                    .with_client_auth_cert(certificates(chain)?, parsed)
                    .map_err(|error| format!("{}: {error}", chain.display()))?
            }
        };
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        config.resumption = Resumption::disabled(); // each handshake has a configuration of its own
        Ok((Arc::new(config), name))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(told)?.len();
    if size > MAX_FILE {
        return Err(format!("{}: longer than {MAX_FILE} bytes", path.display()));
    }
    std::fs::read(path).map_err(told)
}
