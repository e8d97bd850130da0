//! Makes and keeps the one connection of a channel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{oneshot, watch};
use tonic::body::Body;

use crate::descriptors::Descriptors;
use crate::handshake::{Connector, Refused};
use crate::identity::Identities;
use crate::limits::Limits;
use crate::listener::{Address, tcp_name};
use crate::outcome::chain;
use crate::peer::Peer;
use crate::preface::{self, Preface};
use crate::span;
use crate::spiffe::Expected;
use crate::transport::{Transport, UnixTransport};

const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);
/// Servers of grpc-go and grpcio close a connection that pings more often than every five minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(310);

/// Calls cancelled within the last second whose late messages are dropped without a word to the server.
const CANCELLED: usize = 1000;

/// Where a channel stands.
#[derive(Clone, Debug)]
pub enum State {
    /// No connection, and nobody has asked for one.
    Idle,
    /// Somebody asks for one.
    Wanted,
    /// One is being made.
    Connecting,
    /// Calls can go.
    Ready(Arc<Link>),
    /// The last try failed for this reason; the next follows by itself after the back-off.
    Failed(Arc<str>),
    /// The channel was closed.
    Closed,
}

/// One standing connection.
#[derive(Debug)]
pub struct Link {
    /// Who the server is.
    pub peer: Peer,
    /// On a Unix socket: what to send beside the bytes.
    pub(crate) descriptors: Option<Descriptors>,
    sender: SendRequest<Body>,
}

impl Link {
    /// Send one request; the error gives it back if it never left.
    pub(crate) fn send(
        &self,
        request: http::Request<Body>,
    ) -> impl Future<Output = Result<http::Response<hyper::body::Incoming>, TrySendError<http::Request<Body>>>> {
        self.sender.clone().try_send_request(request)
    }
}

/// The task that brings a channel from one state to the next.
pub(crate) struct Dialer {
    address: Address,
    connector: Option<Connector>,
    limits: Limits,
    received: Descriptors,
}

/// A connection that was made, and word of its end.
type Made = (Arc<Link>, oneshot::Receiver<()>);

impl Dialer {
    pub(crate) fn new(
        address: Address,
        identities: Option<Arc<Identities>>,
        expected: Expected,
        limits: Limits,
        received: Descriptors,
    ) -> Self {
        Self {
            address,
            connector: identities.map(|identities| Connector::new(identities, expected)),
            limits,
            received,
        }
    }

    /// Work until the channel is closed.
    pub(crate) async fn run(self, channel: Arc<watch::Sender<State>>) {
        let mut states = channel.subscribe();
        let mut rotations = self.connector.as_ref().map(Connector::rotations);
        let mut back_off = FIRST_BACK_OFF;
        loop {
            let wanted = states
                .wait_for(|state| matches!(state, State::Wanted | State::Closed))
                .await;
            if !wanted.is_ok_and(|state| matches!(*state, State::Wanted)) {
                return;
            }
            if !advance(&channel, State::Connecting) {
                return;
            }
            if let Some(rotations) = &mut rotations {
                rotations.mark_unchanged();
            }
            let made = tokio::select! {
                made = self.dial() => made,
                () = closed(&mut states) => return,
            };
            let reason = match made {
                Ok(made) => {
                    back_off = FIRST_BACK_OFF;
                    if !self.keep(made, &channel, &mut states, &mut rotations).await {
                        return;
                    }
                    continue;
                }
                Err(reason) => format!("cannot connect to {}: {reason}", self.address),
            };
            if !advance(&channel, State::Failed(reason.into())) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(back_off)) => {}
                () = closed(&mut states) => return,
            }
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
            // Tried again whether or not a call waits: the first call after the server's return finds it ready.
            if !advance(&channel, State::Wanted) {
                return;
            }
        }
    }

    /// Let calls use a connection until it ends; move on to a new one when the identity rotates. False: closed.
    async fn keep(
        &self,
        made: Made,
        channel: &watch::Sender<State>,
        states: &mut watch::Receiver<State>,
        rotations: &mut Option<watch::Receiver<u64>>,
    ) -> bool {
        let (mut link, mut ended) = made;
        if !advance(channel, State::Ready(link.clone())) {
            return false;
        }
        let mut back_off = FIRST_BACK_OFF;
        let mut rotated = false;
        loop {
            let is_current = |state: &State| matches!(state, State::Ready(current) if Arc::ptr_eq(current, &link));
            tokio::select! {
                _ = &mut ended => {
                    return advance(channel, State::Idle);
                }
                left = states.wait_for(|state| !is_current(state)) => {
                    return left.is_ok_and(|state| !matches!(*state, State::Closed));
                }
                () = rotation(rotations), if !rotated => rotated = true,
                made = self.dial_again(&mut back_off), if rotated => {
                    // Calls under way finish on the old connection, which ends with the last of them.
                    (link, ended) = made;
                    rotated = false;
                    back_off = FIRST_BACK_OFF;
                    if !advance(channel, State::Ready(link.clone())) {
                        return false;
                    }
                }
            }
        }
    }

    /// Dial until it works; the old connection serves on meanwhile.
    async fn dial_again(&self, back_off: &mut Duration) -> Made {
        loop {
            if let Ok(made) = self.dial().await {
                return made;
            }
            tokio::time::sleep(jittered(*back_off)).await;
            *back_off = (*back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    async fn dial(&self) -> Result<Made, String> {
        tokio::time::timeout(self.limits.handshake, self.try_dial())
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", self.limits.handshake)))
    }

    async fn try_dial(&self) -> Result<Made, String> {
        let Some(connector) = &self.connector else {
            let (transport, peer) = self.connect().await?;
            let descriptors = transport.sending();
            return self.begin(transport, peer, descriptors).await;
        };
        // A resumed session that either side finds stale is followed by a full handshake at once, which says more.
        loop {
            let (transport, mut peer) = self.connect().await?;
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

    async fn connect(&self) -> Result<(Transport, Peer), String> {
        self.try_connect().await.map_err(|error| error.to_string())
    }

    async fn try_connect(&self) -> std::io::Result<(Transport, Peer)> {
        let mut peer = Peer::at("unix:");
        match &self.address {
            Address::Tcp(target) => {
                let stream = TcpStream::connect(target).await?;
                stream.set_nodelay(true)?;
                let address: SocketAddr = stream.peer_addr()?;
                peer.address = tcp_name(address).into();
                Ok((Transport::Tcp(stream), peer))
            }
            Address::Unix(path) => {
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
        let (stream, accepted) = Preface::expect(preface::OF_SERVER, self.limits.handshake, stream);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.limits.stream_window)
            .initial_connection_window_size(self.limits.connection_window)
            .max_header_list_size(self.limits.metadata_size)
            .keep_alive_interval(KEEP_ALIVE)
            // What still comes for cancelled calls is no fault of the server, however many a long connection sees.
            .max_concurrent_reset_streams(CANCELLED)
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(stream))
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
            Ok(()) = accepted => Ok((Arc::new(Link { peer, descriptors, sender }), ended)),
            Ok(reason) = failure => Err(reason),
            else => Err("the connection broke while it began".to_owned()),
        }
    }
}

/// Move the channel on; false when it is closed, as it also is when its last clone was dropped.
fn advance(channel: &watch::Sender<State>, next: State) -> bool {
    channel.send_if_modified(|state| {
        let open = !matches!(state, State::Closed);
        if open {
            *state = next;
        }
        open
    })
}

async fn closed(states: &mut watch::Receiver<State>) {
    let _ = states.wait_for(|state| matches!(state, State::Closed)).await; // an error says the same
}

async fn rotation(rotations: &mut Option<watch::Receiver<u64>>) {
    if let Some(rotations) = rotations
        && rotations.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Clients that lost their server together shouldn't come back together.
fn jittered(back_off: Duration) -> Duration {
    back_off.mul_f64(0.8 + 0.4 * span::share())
}
