//! What a run is to do.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use meshwright_serve::Identities;
use meshwright_serve::tls::spiffe::Expected;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;
use crate::schedule::Arrivals;

/// Connections that one run may have: each costs a descriptor.
pub const MOST_CONNECTIONS: usize = 20_000;
/// Requests under way that one run may have: each costs some kilobytes.
pub const MOST_IN_FLIGHT: usize = 100_000;
/// Requests a second that a schedule may have.
pub const MOST_RATE: f64 = 10_000_000.0;

/// How requests are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on a connection.
    Http1,
    /// gRPC: unary calls over HTTP/2.
    Grpc,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Grpc => b"h2",
        }
    }
}

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => formatter.write_str(address),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all.
    Plain,
    /// Server authentication by the authorities of a PEM text, for the server's host name.
    Authorities {
        /// Certificates in PEM.
        pem: Vec<u8>,
        /// The name that the server's certificate must have.
        host: String,
    },
    /// Mutual TLS as the mesh does it: an identity of ours, and whom we accept.
    Mesh {
        /// Our certificate and whom we believe.
        identities: Arc<Identities>,
        /// Who the server must be.
        expected: Expected,
    },
}

/// A TLS configuration with the name that is asked for.
pub(crate) type Tls = (Arc<ClientConfig>, ServerName<'static>);

impl Security {
    pub(crate) fn prepare(&self, protocol: Protocol) -> Result<Option<Tls>, Error> {
        let refuse = |reason: String| Error::plan("tls", reason);
        match self {
            Self::Plain => Ok(None),
            Self::Authorities { pem, host } => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|error| refuse(format!("not PEM: {error}")))?;
                    roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(refuse(
                        "no certificate in the PEM text: give the server's authority".to_owned(),
                    ));
                }
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let mut config = ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(rustls::ALL_VERSIONS)
                    .map_err(|error| refuse(error.to_string()))?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                config.alpn_protocols = vec![protocol.alpn().to_vec()];
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| refuse(format!("{host:?} is no host name that a certificate can have")))?;
                Ok(Some((Arc::new(config), name)))
            }
            Self::Mesh { identities, expected } => {
                let made = meshwright_serve::tls::client_config(identities, expected, protocol.alpn());
                made.map(Some).map_err(|error| refuse(error.to_string()))
            }
        }
    }
}

/// All that a run needs to know. Times are measured from the first due request.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where connections go.
    pub address: Address,
    /// How they are protected.
    pub security: Security,
    /// How requests are written.
    pub protocol: Protocol,
    /// The request's URI: of HTTP/1.1 the path is sent, and the authority as Host.
    pub uri: Uri,
    /// Its method; gRPC always has POST.
    pub method: Method,
    /// Headers beside those that the protocol needs.
    pub headers: Vec<(String, String)>,
    /// The body; for gRPC the serialised message.
    pub body: Bytes,
    /// Requests a second; 0: as many as come, in a closed loop.
    pub rate: f64,
    /// How requests are spread over time.
    pub arrivals: Arrivals,
    /// Connections.
    pub connections: usize,
    /// Requests under way at once on each connection; 1 for HTTP/1.1.
    pub streams: usize,
    /// How long requests are measured.
    pub duration: Duration,
    /// How long they are sent before that.
    pub warm_up: Duration,
    /// How long an answer may take from when its request was sent.
    pub timeout: Duration,
    /// Threads that send.
    pub threads: usize,
}

impl Plan {
    /// Refuse what can't be carried out.
    pub fn check(&self) -> Result<(), Error> {
        if !(0.0..=MOST_RATE).contains(&self.rate) {
            return Err(Error::plan(
                "rate",
                format!("{} isn't in 0 to {MOST_RATE}: 0 means as many as come", self.rate),
            ));
        }
        if !(1..=MOST_CONNECTIONS).contains(&self.connections) {
            return Err(Error::plan(
                "connections",
                format!("{} isn't in 1 to {MOST_CONNECTIONS}", self.connections),
            ));
        }
        if self.streams == 0 || self.streams * self.connections > MOST_IN_FLIGHT {
            let reason = format!("at least 1, and with all connections at most {MOST_IN_FLIGHT} requests under way");
            return Err(Error::plan("streams", reason));
        }
        if self.protocol == Protocol::Http1 && self.streams != 1 {
            return Err(Error::plan(
                "streams",
                "HTTP/1.1 has one request at a time on a connection: add connections",
            ));
        }
        if self.duration.is_zero() || self.duration > Duration::from_secs(7 * 86_400) {
            return Err(Error::plan("duration", "more than nothing and at most a week"));
        }
        if self.timeout.is_zero() {
            return Err(Error::plan("timeout", "more than nothing"));
        }
        if self.threads == 0 {
            return Err(Error::plan("threads", "at least 1"));
        }
        self.request().map(|_| ())
    }

    /// The request, to be cloned for each time it is sent.
    pub(crate) fn request(&self) -> Result<Request<Full<Bytes>>, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name)
                .map_err(|_| Error::plan("headers", format!("{name:?} is no name of a header")))?;
            let value = HeaderValue::try_from(value)
                .map_err(|_| Error::plan("headers", format!("{name} has characters that no header can carry")))?;
            headers.append(name, value);
        }
        let authority = self
            .uri
            .authority()
            .ok_or_else(|| Error::plan("url", "it has no host"))?
            .clone();
        let agent = HeaderValue::from_static(concat!("meshwright/", env!("CARGO_PKG_VERSION")));
        headers.entry(header::USER_AGENT).or_insert(agent);
        let mut request = Request::new(Full::new(self.body.clone()));
        match self.protocol {
            Protocol::Http1 => {
                let host = HeaderValue::try_from(authority.as_str())
                    .map_err(|_| Error::plan("url", "its host can't be a header"))?;
                headers.entry(header::HOST).or_insert(host);
                *request.method_mut() = self.method.clone();
                let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() = path
                    .parse()
                    .map_err(|_| Error::plan("url", format!("{path:?} is no path")))?;
            }
            Protocol::Grpc => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = self.uri.clone();
                let length = u32::try_from(self.body.len())
                    .map_err(|_| Error::plan("body", "a message of gRPC has less than 4 GiB"))?;
                let mut frame = BytesMut::with_capacity(5 + self.body.len());
                frame.put_u8(0);
                frame.put_u32(length);
                frame.put_slice(&self.body);
                *request.body_mut() = Full::new(frame.freeze());
            }
        }
        *request.headers_mut() = headers;
        Ok(request)
    }
}
