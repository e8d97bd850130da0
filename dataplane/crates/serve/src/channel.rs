//! The client's side: calls to one address over one HTTP/2 connection that is made on demand and made again when it
//! breaks or when the identity rotates.
//!
//! As in grpcio, a call waits while the first connection is being made; during the back-off after a failure it fails
//! with UNAVAILABLE and the reason, unless it said that it waits for ready.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::compression::{ACCEPT_ENCODING, ACCEPTED, ENCODING, Encoding};
use crate::deadline;
use crate::descriptors::{self, Descriptors};
use crate::dialer::{Dialer, Link, State};
use crate::error::Error;
use crate::frame::Reader;
use crate::identity::Identities;
use crate::limits::Limits;
use crate::listener::Address;
use crate::outcome::Outcome;
use crate::peer::Peer;
use crate::spiffe::Expected;

const USER_AGENT: &str = concat!("meshwright/", env!("CARGO_PKG_VERSION"));

/// A client of one server; clones share the connection. It also serves generated tonic clients as their channel.
#[derive(Clone, Debug)]
pub struct Channel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Arc<watch::Sender<State>>,
    authority: Authority,
    scheme: Scheme,
    limits: Limits,
    received: Descriptors,
    sending: Mutex<Vec<OwnedFd>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.state.send_replace(State::Closed);
        self.received.close();
    }
}

/// What a call needs beside its messages.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// "/package.Service/Method".
    pub path: String,
    /// The initial metadata to send.
    pub metadata: HeaderMap,
    /// When the call ends by itself.
    pub deadline: Option<Instant>,
    /// Whether to wait for a connection during the back-off.
    pub wait_for_ready: bool,
    /// In what the messages may be compressed ([`frame::encode_as`](crate::frame::encode_as)).
    pub compression: Option<Encoding>,
}

/// The beginning of an answer, and the messages that follow.
#[derive(Debug)]
pub struct Answer {
    /// The initial metadata.
    pub metadata: HeaderMap,
    /// The end, when the answer consists of nothing else.
    pub outcome: Option<Outcome>,
    reader: Reader<Incoming>,
}

impl Answer {
    /// The next message; the end of the call when there is none.
    pub async fn next(&mut self) -> Result<bytes::Bytes, Outcome> {
        if let Some(outcome) = self.outcome.take() {
            return Err(outcome);
        }
        match self.reader.next().await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(self
                .reader
                .trailers()
                .and_then(Outcome::from_trailers)
                .unwrap_or_else(|| Outcome::new(Code::Internal, "the server ended the call without a status"))),
            Ok(Err(status)) => Err(status.into()),
            Err(error) => Err(Outcome::from_transport(&error)),
        }
    }
}

impl Channel {
    /// Name a server. Nothing is connected before the first call; without `identities` the channel speaks plain text.
    /// Called within a tokio runtime.
    pub fn new(
        target: &str,
        identities: Option<Arc<Identities>>,
        expected: Expected,
        limits: Limits,
    ) -> Result<Self, Error> {
        let address = Address::parse(target)?;
        let refuse = |error: http::uri::InvalidUri| Error::Address {
            address: target.to_owned(),
            reason: error.to_string(),
        };
        let authority = match &address {
            Address::Tcp(host) => host.parse().map_err(refuse)?,
            Address::Unix(_) => Authority::from_static("localhost"),
        };
        let scheme = if identities.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        let received = Descriptors::default();
        let state = Arc::new(watch::Sender::new(State::Idle));
        let dialer = Dialer::new(address, identities, expected, limits.clone(), received.clone());
        tokio::spawn(dialer.run(state.clone()));
        let sending = Mutex::default();
        Ok(Self {
            shared: Arc::new(Shared {
                state,
                authority,
                scheme,
                limits,
                received,
                sending,
            }),
        })
    }

    /// Wait for a connection until `deadline`; during the back-off only if `wait_for_ready`.
    pub async fn ready(&self, deadline: Option<Instant>, wait_for_ready: bool) -> Result<Arc<Link>, Outcome> {
        let waiting = self.wait(wait_for_ready);
        match deadline {
            None => waiting.await,
            Some(deadline) => tokio::time::timeout_at(deadline, waiting).await.unwrap_or_else(|_| {
                let text = format!(
                    "no connection to {} before the deadline{}",
                    self.shared.authority,
                    self.reason()
                );
                Err(Outcome::new(Code::DeadlineExceeded, text))
            }),
        }
    }

    async fn wait(&self, wait_for_ready: bool) -> Result<Arc<Link>, Outcome> {
        let mut states = self.shared.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Ready(link) => return Ok(link),
                State::Closed => return Err(Outcome::new(Code::Cancelled, "the channel is closed")),
                State::Failed(reason) if !wait_for_ready => return Err(Outcome::new(Code::Unavailable, &*reason)),
                State::Idle => self.connect(),
                State::Wanted | State::Connecting | State::Failed(_) => {}
            }
            if states.changed().await.is_err() {
                return Err(Outcome::new(Code::Cancelled, "the channel is closed"));
            }
        }
    }

    /// Begin to connect, if nothing is under way.
    pub fn connect(&self) {
        self.shared.state.send_if_modified(|state| {
            let is_idle = matches!(state, State::Idle);
            if is_idle {
                *state = State::Wanted;
            }
            is_idle
        });
    }

    fn reason(&self) -> String {
        match &*self.shared.state.borrow() {
            State::Failed(reason) => format!(" ({reason})"),
            _ => String::new(),
        }
    }

    /// Begin a call; `messages` are framed already. The deadline bounds the wait for the answer's beginning only:
    /// whoever reads on bounds the rest.
    pub async fn call(&self, call: Call, messages: Body) -> Result<Answer, Outcome> {
        let mut request = Request::new(messages);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri(&call.path)?;
        *request.headers_mut() = call.metadata;
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(ACCEPT_ENCODING, ACCEPTED);
        if let Some(encoding) = call.compression {
            headers.insert(ENCODING, encoding.header());
        }
        if !headers.contains_key(header::USER_AGENT) {
            headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        }
        let (deadline, wait_for_ready) = (call.deadline, call.wait_for_ready);
        let sent = self.send(request, deadline, wait_for_ready);
        let response = match deadline {
            None => sent.await?,
            Some(deadline) => tokio::time::timeout_at(deadline, sent)
                .await
                .unwrap_or_else(|_| Err(Outcome::new(Code::DeadlineExceeded, "the call's deadline has passed")))?,
        };
        let refused = Outcome::from_http(&response);
        let (parts, body) = response.into_parts();
        let encoding = Encoding::of(&parts.headers).map_err(|name| {
            let text = format!("the server compresses its messages in a way that wasn't offered: {name:?}");
            Outcome::new(Code::Internal, text)
        })?;
        // An answer of headers only has its trailers there ("Trailers-Only").
        let is_end = parts.headers.contains_key("grpc-status");
        let (metadata, outcome) = match refused {
            Some(refused) if !is_end => (parts.headers, Some(refused)),
            _ if is_end => (HeaderMap::new(), Outcome::from_trailers(parts.headers)),
            _ => (parts.headers, None),
        };
        Ok(Answer {
            metadata,
            outcome,
            reader: Reader::new(body, self.shared.limits.message_size, encoding),
        })
    }

    async fn send(
        &self,
        mut request: Request<Body>,
        deadline: Option<Instant>,
        wait_for_ready: bool,
    ) -> Result<Response<Incoming>, Outcome> {
        let mut carried: Vec<OwnedFd> = Vec::new();
        loop {
            let link = self.ready(deadline, wait_for_ready).await?;
            carried.append(&mut self.shared.sending.lock().unwrap_or_else(PoisonError::into_inner));
            for descriptor in &carried {
                // A duplicate: should this connection not take the call, the next one gets the descriptor too.
                send_beside(&link, descriptor).map_err(|reason| Outcome::new(Code::Unavailable, reason))?;
            }
            if let Some(deadline) = deadline {
                let left = deadline::write(deadline.saturating_duration_since(Instant::now()));
                let value = HeaderValue::try_from(left).unwrap_or(HeaderValue::from_static("0n"));
                request.headers_mut().insert(deadline::HEADER, value);
            }
            match link.send(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    // It never left this process, so that trying again on the next connection is safe.
                    Some(unsent) => {
                        self.discard(&link);
                        request = unsent;
                    }
                    None => return Err(Outcome::from_transport(error.error())),
                },
            }
        }
    }

    /// Stop using a connection that takes no more calls (it got a GOAWAY, or is broken).
    fn discard(&self, link: &Arc<Link>) {
        self.shared.state.send_if_modified(|state| {
            let is_current = matches!(state, State::Ready(current) if Arc::ptr_eq(current, link));
            if is_current {
                *state = State::Idle;
            }
            is_current
        });
    }

    fn uri(&self, path: &str) -> Result<Uri, Outcome> {
        Uri::builder()
            .scheme(self.shared.scheme.clone())
            .authority(self.shared.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| Outcome::new(Code::Internal, format!("the method's path {path:?}: {error}")))
    }

    /// Who the server is; nothing while there is no connection.
    pub fn peer(&self) -> Option<Peer> {
        match &*self.shared.state.borrow() {
            State::Ready(link) => Some(link.peer.clone()),
            _ => None,
        }
    }

    /// Follow the connection's state.
    pub fn states(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// What the server has sent on a Unix socket.
    pub fn descriptors(&self) -> &Descriptors {
        &self.shared.received
    }

    /// Send `descriptor` in front of the next call. When too many wait, the oldest is closed.
    pub fn send_descriptor(&self, descriptor: OwnedFd) {
        let mut sending = self.shared.sending.lock().unwrap_or_else(PoisonError::into_inner);
        if sending.len() >= descriptors::CAPACITY {
            sending.remove(0);
        }
        sending.push(descriptor);
    }

    /// End the connection and refuse further calls.
    pub fn close(&self) {
        self.shared.state.send_replace(State::Closed);
        self.shared.received.close();
        self.shared
            .sending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl tower_service::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let timeout = deadline::read(request.headers()).ok().flatten();
            let deadline = timeout.map(|timeout| Instant::now() + timeout);
            let path = request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned();
            *request.uri_mut() = channel.uri(&path).map_err(to_status)?;
            channel.send(request, deadline, false).await.map_err(to_status)
        })
    }
}

fn send_beside(link: &Link, descriptor: &OwnedFd) -> Result<(), String> {
    let descriptors = link
        .descriptors
        .as_ref()
        .ok_or("descriptors travel on Unix sockets only")?;
    let duplicate = descriptor.try_clone().map_err(|error| error.to_string())?;
    descriptors.send(duplicate).map_err(|refused| refused.to_string())
}

fn to_status(outcome: Outcome) -> Status {
    Status::new(outcome.code, outcome.message.into_string())
}
