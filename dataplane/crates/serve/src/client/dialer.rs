//! Makes the connections of a channel: the socket, TLS, and the beginning of HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsConnector;

use crate::client::link::Link;
use crate::client::target::Endpoint;
use crate::limits::Limits;
use crate::listener::tcp_name;
use crate::peer::Peer;
use crate::tls::handshake::{Connector, Refused};
use crate::tls::outside::Outside;
use crate::wire::border::Border;
use crate::wire::cork::Cork;
use crate::wire::descriptors::Descriptors;
use crate::wire::outcome::chain;
use crate::wire::transport::{Transport, UnixTransport};

/// Calls cancelled within the last second whose late messages are dropped without a word to the server.
const CANCELLED: usize = 1000;

/// How a channel's connections are secured.
pub(crate) enum Security {
    Plain,
    Mesh(Connector),
    /// With the target's host.
    Outside(Outside, String),
}

/// Makes the connections of one channel.
pub(crate) struct Dialer {
    security: Security,
    limits: Limits,
    keep_alive: KeepAlive,
    received: Descriptors,
}

/// When to ask whether the server is still there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    pub(crate) interval: Option<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) without_calls: bool,
}

/// A connection that was made, and word of its end.
pub(crate) type Made = (Arc<Link>, oneshot::Receiver<()>);

impl Dialer {
    pub(crate) fn new(security: Security, limits: Limits, keep_alive: KeepAlive, received: Descriptors) -> Self {
        Self {
            security,
            limits,
            keep_alive,
            received,
        }
    }

    /// Changes whenever the identity was replaced; nothing without one.
    pub(crate) fn rotations(&self) -> Option<watch::Receiver<u64>> {
        match &self.security {
            Security::Mesh(connector) => Some(connector.rotations()),
            Security::Plain | Security::Outside(..) => None,
        }
    }

    /// Connect to `endpoint`; the error says why not.
    pub(crate) async fn dial(&self, endpoint: &Endpoint) -> Result<Made, String> {
        tokio::time::timeout(self.limits.handshake, self.try_dial(endpoint))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", self.limits.handshake)))
            .map_err(|reason| format!("cannot connect to {endpoint}: {reason}"))
    }

    async fn try_dial(&self, endpoint: &Endpoint) -> Result<Made, String> {
        let connector = match &self.security {
            Security::Plain => {
                let (transport, peer) = self.connect(endpoint).await?;
                let descriptors = transport.sending();
                return self.begin(transport, peer, descriptors).await;
            }
            Security::Outside(outside, host) => {
                let (config, name) = outside.configure(host).map_err(|reason| format!("TLS: {reason}"))?;
                let (transport, peer) = self.connect(endpoint).await?;
                let connecting = TlsConnector::from(config).connect(name, transport);
                let stream = connecting.await.map_err(|error| format!("TLS: {error}"))?;
                return self.begin(stream, peer, None).await;
            }
            Security::Mesh(connector) => connector,
        };
        // A resumed session that either side finds stale is followed by a full handshake at once, which says more.
        loop {
            let (transport, mut peer) = self.connect(endpoint).await?;
            let descriptors = transport.sending();
            match connector.connect(transport).await {
                Ok(made) => {
                    made.name(&mut peer);
                    let begun = self.begin(made.stream, peer, descriptors).await;
                    if begun.is_ok() || !made.resumed {
                        return begun;
                    }
                }
                Err(Refused::Stale(_)) => {}
                Err(refused) => return Err(format!("TLS: {refused}")),
            }
            connector.forget_sessions();
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<(Transport, Peer), String> {
        self.try_connect(endpoint).await.map_err(|error| error.to_string())
    }

    async fn try_connect(&self, endpoint: &Endpoint) -> std::io::Result<(Transport, Peer)> {
        let mut peer = Peer::at("unix:");
        match endpoint {
            Endpoint::Tcp(target) => {
                let stream = TcpStream::connect(target).await?;
                stream.set_nodelay(true)?;
                let address: SocketAddr = stream.peer_addr()?;
                peer.address = tcp_name(address).into();
                Ok((Transport::Tcp(stream), peer))
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                let process = stream.peer_cred()?;
                (peer.uid, peer.gid) = (Some(process.uid()), Some(process.gid()));
                peer.pid = process.pid().and_then(|pid| u32::try_from(pid).ok());
                Ok((
                    Transport::Unix(UnixTransport::client(stream, self.received.clone())),
                    peer,
                ))
            }
        }
    }

    /// Begin HTTP/2 and wait until the server has spoken: only then has it accepted us.
    async fn begin(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        descriptors: Option<Descriptors>,
    ) -> Result<Made, String> {
        let (stream, accepted) = Border::to_server(stream, self.limits.handshake);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.limits.stream_window)
            .initial_connection_window_size(self.limits.connection_window)
            .max_header_list_size(self.limits.metadata_size)
            .keep_alive_interval(self.keep_alive.interval)
            .keep_alive_timeout(self.keep_alive.timeout)
            .keep_alive_while_idle(self.keep_alive.without_calls)
            // What still comes for cancelled calls is no fault of the server, however many a long connection sees.
            .max_concurrent_reset_streams(CANCELLED)
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(Cork::new(stream, None)))
            .await
            .map_err(|error| chain(&error))?;
        let (failed, failure) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        tokio::spawn(async move {
            let reason = connection
                .await
                .err()
                .map_or("the server closed the connection".to_owned(), |e| chain(&e));
            let _ = failed.send(reason); // heard only while the connection begins
            let _ = ends.send(());
        });
        tokio::select! {
            biased;
            Ok(()) = accepted => Ok((Arc::new(Link::new(peer, descriptors, sender)), ended)),
            Ok(reason) = failure => Err(reason),
            else => Err("the connection broke while it began".to_owned()),
        }
    }
}
