//! The client's side: calls of one target, over the connections that the balancer keeps to its addresses.
//!
//! As in grpcio, a call waits while the first connection is being made; once all addresses have failed it fails with
//! UNAVAILABLE and the reason, unless it said that it waits for ready. A call that failed is tried again as the service
//! config says, and once without being asked when no server has seen it.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::activity::{Activity, Underway};
use crate::client::attempt::Kept;
use crate::client::balancer::{Balancer, State};
use crate::client::dialer::{Dialer, KeepAlive, Security};
use crate::client::health::{self, Question};
use crate::client::link::Link;
use crate::client::options::ChannelOptions;
use crate::client::retry::{Retries, Throttle};
use crate::client::service_config::{Balancing, MethodConfig, ServiceConfig};
use crate::client::target::Target;
use crate::error::Error;
use crate::limits::Limits;
use crate::peer::Peer;
use crate::tls::handshake::Connector;
use crate::tls::identity::Identities;
use crate::tls::outside::Outside;
use crate::tls::spiffe::Expected;
use crate::wire::compression::Encoding;
use crate::wire::deadline;
use crate::wire::descriptors::{self, Descriptors};
use crate::wire::frame::Reader;
use crate::wire::outcome::Outcome;

/// Time for calls that were told to end.
const ENDING: Duration = Duration::from_secs(1);

/// A client of one target; clones share the connections. It also serves generated tonic clients as their channel.
#[derive(Clone, Debug)]
pub struct Channel {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Arc<watch::Sender<State>>,
    activity: Arc<Activity>,
    /// Whether calls under way are to end.
    ended: watch::Sender<bool>,
    authority: Authority,
    scheme: Scheme,
    pub(crate) limits: Limits,
    pub(crate) config: ServiceConfig,
    pub(crate) throttle: Option<Arc<Throttle>>,
    pub(crate) retry_buffer: usize,
    received: Descriptors,
    pub(crate) sending: Mutex<Vec<OwnedFd>>,
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
    /// Whether to wait for a connection while all addresses fail; nothing: as the service config says.
    pub wait_for_ready: Option<bool>,
    /// In what the messages may be compressed ([`frame::encode_as`](crate::wire::frame::encode_as)).
    pub compression: Option<Encoding>,
}

/// The requests of a call, framed already.
#[derive(Debug)]
pub enum Messages {
    /// All of them are here.
    Whole(Bytes),
    /// They are made while the call runs.
    Stream(Body),
}

/// The beginning of an answer, and the messages that follow.
#[derive(Debug)]
pub struct Answer {
    /// The initial metadata.
    pub metadata: HeaderMap,
    pub(crate) reader: Reader<Incoming>,
    pub(crate) retries: Option<Retries>,
    pub(crate) requests: Option<Kept>,
    pub(crate) underway: Option<Underway>,
}

impl Answer {
    /// The next message; the end of the call when there is none.
    pub async fn next(&mut self) -> Result<Bytes, Outcome> {
        let outcome = match self.reader.next().await {
            Ok(Ok(Some(message))) => return Ok(message),
            Ok(Ok(None)) => self
                .reader
                .trailers()
                .and_then(Outcome::from_trailers)
                .unwrap_or_else(|| Outcome::new(Code::Internal, "the server ended the call without a status")),
            Ok(Err(status)) => status.into(),
            Err(error) => Outcome::from_transport(&error),
        };
        if let Some(retries) = self.retries.take() {
            retries.ended(outcome.code, false);
        }
        Err(outcome)
    }
}

impl Channel {
    /// Name a target ([`Target`]). Nothing is connected before the first call; without `identities` the channel speaks
    /// plain text. Called within a tokio runtime.
    pub fn new(
        target: &str,
        identities: Option<Arc<Identities>>,
        expected: Expected,
        limits: Limits,
    ) -> Result<Self, Error> {
        Self::with_options(target, identities, expected, limits, ChannelOptions::default())
    }

    /// The same with options.
    pub fn with_options(
        target: &str,
        identities: Option<Arc<Identities>>,
        expected: Expected,
        limits: Limits,
        options: ChannelOptions,
    ) -> Result<Self, Error> {
        let target = Target::parse(target)?;
        let authority = target.authority()?;
        let security = identities.map_or(Security::Plain, |identities| {
            Security::Mesh(Connector::new(identities, expected))
        });
        Ok(Self::open(target, authority, security, limits, options))
    }

    /// The same to a server outside of the mesh.
    pub fn outside(target: &str, outside: Outside, limits: Limits, options: ChannelOptions) -> Result<Self, Error> {
        let target = Target::parse(target)?;
        let authority = target.authority()?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self::open(
            target,
            authority,
            Security::Outside(outside, host),
            limits,
            options,
        ))
    }

    fn open(target: Target, authority: Authority, security: Security, limits: Limits, options: ChannelOptions) -> Self {
        let scheme = match security {
            Security::Plain => Scheme::HTTP,
            Security::Mesh(_) | Security::Outside(..) => Scheme::HTTPS,
        };
        // pick_first is not to look at health (gRFC A17).
        let is_spread = options.service_config.balancing == Balancing::RoundRobin;
        let received = Descriptors::default();
        let state = Arc::new(watch::Sender::new(State::Idle));
        let activity = Activity::new();
        let keep_alive = KeepAlive {
            interval: options.keep_alive,
            timeout: options.keep_alive_timeout,
            without_calls: options.keep_alive_without_calls,
        };
        let dialer = Dialer::new(security, limits.clone(), keep_alive, received.clone());
        let health = options
            .service_config
            .health
            .clone()
            .filter(|_| is_spread)
            .and_then(|service| {
                let uri = Uri::builder().scheme(scheme.clone()).authority(authority.clone());
                let uri = uri.path_and_query(health::PATH).build().ok()?; // each part was one before
                Some(Arc::new(Question { service, uri }))
            });
        let balancer = Balancer::new(state.clone(), dialer, activity.clone(), target, &options, health);
        tokio::spawn(balancer.run());
        let throttle = options.service_config.throttling;
        Self {
            shared: Arc::new(Shared {
                state,
                activity,
                ended: watch::Sender::new(false),
                authority,
                scheme,
                limits,
                throttle: throttle.map(|throttling| Arc::new(Throttle::new(throttling))),
                config: options.service_config,
                retry_buffer: options.retry_buffer,
                received,
                sending: Mutex::default(),
            }),
        }
    }

    /// What the service config says of calls of "/service/method".
    pub fn method(&self, path: &str) -> Option<&MethodConfig> {
        self.shared.config.method(path).map(|method| &**method)
    }

    /// Fill in what the service config says of a call that begins now; more than once does no harm.
    pub fn configure(&self, call: &mut Call) {
        if let Some(method) = self.shared.config.method(&call.path) {
            call.wait_for_ready = call.wait_for_ready.or(method.wait_for_ready);
            if let Some(latest) = method.timeout.and_then(|timeout| Instant::now().checked_add(timeout)) {
                call.deadline = Some(call.deadline.map_or(latest, |deadline| deadline.min(latest)));
            }
        }
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
                // Between a connection's end and the balancer's word of it there is nothing to pick.
                State::Ready(picker) => {
                    if let Some(link) = picker.pick() {
                        return Ok(link.clone());
                    }
                }
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

    /// Begin a call. The deadline bounds the wait for the answer's beginning only: whoever reads on bounds the rest.
    pub async fn call(&self, mut call: Call, messages: Messages) -> Result<Answer, Outcome> {
        self.configure(&mut call);
        let underway = self.shared.activity.begin();
        let deadline = call.deadline;
        let attempts = self.attempts(call, messages);
        let mut answer = match deadline {
            None => attempts.await?,
            Some(deadline) => tokio::time::timeout_at(deadline, attempts)
                .await
                .unwrap_or_else(|_| Err(Outcome::new(Code::DeadlineExceeded, "the call's deadline has passed")))?,
        };
        answer.underway = Some(underway);
        Ok(answer)
    }

    pub(crate) fn uri(&self, path: &str) -> Result<Uri, Outcome> {
        Uri::builder()
            .scheme(self.shared.scheme.clone())
            .authority(self.shared.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| Outcome::new(Code::Internal, format!("the method's path {path:?}: {error}")))
    }

    /// What the server is called in its URI: the target's host and port.
    pub fn authority(&self) -> &str {
        self.shared.authority.as_str()
    }

    /// Whether calls go over TLS.
    pub fn is_secure(&self) -> bool {
        self.shared.scheme == Scheme::HTTPS
    }

    /// Who the server is, one of them where there are several; nothing while there is no connection.
    pub fn peer(&self) -> Option<Peer> {
        match &*self.shared.state.borrow() {
            State::Ready(picker) => picker.pick().map(|link| link.peer.clone()),
            _ => None,
        }
    }

    /// Follow the channel's state.
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

    /// Refuse further calls. Those under way go on; see [`Channel::finish`].
    pub fn close(&self) {
        self.shared.state.send_replace(State::Closed);
        self.shared.received.close();
        self.shared
            .sending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Give calls under way `grace` to end, then end the rest. For after `close`.
    pub async fn finish(&self, grace: Duration) {
        // An error says that the time is over, which is what the grace is for.
        let _ = tokio::time::timeout(grace, self.shared.activity.ended()).await;
        self.shared.ended.send_replace(true);
        let _ = tokio::time::timeout(ENDING, self.shared.activity.ended()).await; // their callers may be stuck
    }

    /// Wait until calls under way are to end.
    pub async fn ended(&self) {
        let mut ended = self.shared.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await; // an error says that the channel is gone, which is an end too
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
            let _underway = channel.shared.activity.begin();
            let sent = channel.send(request, deadline, false).await;
            sent.map_err(|failed| to_status(failed.outcome))
        })
    }
}

fn to_status(outcome: Outcome) -> Status {
    Status::new(outcome.code, outcome.message.into_string())
}
