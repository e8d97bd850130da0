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
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::activity::{Activity, Underway};
use crate::balancer::{Balancer, State};
use crate::compression::{ACCEPT_ENCODING, ACCEPTED, ENCODING, Encoding};
use crate::deadline;
use crate::descriptors::{self, Descriptors};
use crate::dialer::{Dialer, KeepAlive};
use crate::error::Error;
use crate::frame::Reader;
use crate::identity::Identities;
use crate::limits::Limits;
use crate::link::Link;
use crate::options::ChannelOptions;
use crate::outcome::Outcome;
use crate::peer::Peer;
use crate::replay::Replay;
use crate::retry::{PREVIOUS_ATTEMPTS, Retries, Seen, Throttle};
use crate::service_config::{MethodConfig, ServiceConfig};
use crate::spiffe::Expected;
use crate::target::Target;

const USER_AGENT: &str = concat!("meshwright/", env!("CARGO_PKG_VERSION"));

/// Time for calls that were told to end.
const ENDING: Duration = Duration::from_secs(1);

/// A client of one target; clones share the connections. It also serves generated tonic clients as their channel.
#[derive(Clone, Debug)]
pub struct Channel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Arc<watch::Sender<State>>,
    activity: Arc<Activity>,
    /// Whether calls under way are to end.
    ended: watch::Sender<bool>,
    authority: Authority,
    scheme: Scheme,
    limits: Limits,
    config: ServiceConfig,
    throttle: Option<Arc<Throttle>>,
    retry_buffer: usize,
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
    /// Whether to wait for a connection while all addresses fail; nothing: as the service config says.
    pub wait_for_ready: Option<bool>,
    /// In what the messages may be compressed ([`frame::encode_as`](crate::frame::encode_as)).
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
    reader: Reader<Incoming>,
    retries: Option<Retries>,
    _underway: Option<Underway>,
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

/// An attempt that failed.
struct Failed {
    outcome: Outcome,
    seen: Seen,
}

impl From<Outcome> for Failed {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            seen: Seen::Perhaps,
        }
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
        let scheme = if identities.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        let received = Descriptors::default();
        let state = Arc::new(watch::Sender::new(State::Idle));
        let activity = Activity::new();
        let keep_alive = KeepAlive {
            interval: options.keep_alive,
            timeout: options.keep_alive_timeout,
            without_calls: options.keep_alive_without_calls,
        };
        let dialer = Dialer::new(identities, expected, limits.clone(), keep_alive, received.clone());
        let balancer = Balancer::new(state.clone(), dialer, activity.clone(), target, &options);
        tokio::spawn(balancer.run());
        let throttle = options.service_config.throttling;
        Ok(Self {
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
        })
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
        answer._underway = Some(underway);
        Ok(answer)
    }

    /// Try until the server has begun to answer, or nothing is left to try.
    async fn attempts(&self, call: Call, messages: Messages) -> Result<Answer, Outcome> {
        let method = self.shared.config.method(&call.path).cloned();
        let limit = method.as_ref().and_then(|method| method.max_response);
        let limit = self.shared.limits.message_size.min(limit.unwrap_or(usize::MAX));
        let messages = match messages {
            Messages::Whole(bytes) => Kept::Whole(bytes),
            Messages::Stream(body) => Kept::Stream(Replay::new(body, self.shared.retry_buffer)),
        };
        let mut retries = Retries::new(method, self.shared.throttle.clone());
        loop {
            let body = messages
                .attempt()
                .ok_or_else(|| Outcome::new(Code::Internal, "the requests of a committed call were asked for again"))?;
            let failed = match self.attempt(&call, body, limit, retries.previous()).await {
                Ok(mut answer) => {
                    messages.commit();
                    answer.retries = Some(retries);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            match retries.next(&failed.outcome, failed.seen, messages.is_open()) {
                Some(Duration::ZERO) => {}
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failed.outcome),
            }
        }
    }

    async fn attempt(&self, call: &Call, messages: Body, limit: usize, previous: u32) -> Result<Answer, Failed> {
        let mut request = Request::new(messages);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri(&call.path)?;
        *request.headers_mut() = call.metadata.clone();
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
        if previous > 0 {
            headers.insert(PREVIOUS_ATTEMPTS, previous.into());
        }
        let response = self
            .send(request, call.deadline, call.wait_for_ready.unwrap_or(false))
            .await?;
        let refused = Outcome::from_http(&response);
        let (parts, body) = response.into_parts();
        // An answer of headers only has its trailers there ("Trailers-Only").
        if parts.headers.contains_key("grpc-status") {
            let outcome = Outcome::from_trailers(parts.headers);
            return Err(outcome
                .unwrap_or_else(|| Outcome::new(Code::Internal, "the server ended the call without a status"))
                .into());
        }
        if let Some(outcome) = refused {
            return Err(outcome.into());
        }
        let encoding = Encoding::of(&parts.headers).map_err(|name| {
            let text = format!("the server compresses its messages in a way that wasn't offered: {name:?}");
            Outcome::new(Code::Internal, text)
        })?;
        Ok(Answer {
            metadata: parts.headers,
            reader: Reader::new(body, limit, encoding),
            retries: None,
            _underway: None,
        })
    }

    async fn send(
        &self,
        mut request: Request<Body>,
        deadline: Option<Instant>,
        wait_for_ready: bool,
    ) -> Result<Response<Incoming>, Failed> {
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
            let mut error = match link.send(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if let Some(unsent) = error.take_message() {
                // It never left this process, so that trying again on the next connection is safe.
                link.retire();
                request = unsent;
                continue;
            }
            let refusal = refusal(error.error());
            if refusal == Some(Refusal::Connection) {
                link.retire();
            }
            let seen = if refusal.is_some() { Seen::Never } else { Seen::Perhaps };
            let outcome = Outcome::from_transport(error.error());
            return Err(Failed { outcome, seen });
        }
    }

    fn uri(&self, path: &str) -> Result<Uri, Outcome> {
        Uri::builder()
            .scheme(self.shared.scheme.clone())
            .authority(self.shared.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| Outcome::new(Code::Internal, format!("the method's path {path:?}: {error}")))
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

/// The requests of a call, as long as another attempt is possible.
enum Kept {
    Whole(Bytes),
    Stream(Arc<Replay>),
}

impl Kept {
    fn attempt(&self) -> Option<Body> {
        match self {
            Self::Whole(bytes) => Some(Body::new(Full::new(bytes.clone()))),
            Self::Stream(replay) => replay.attempt(),
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(replay) => replay.is_open(),
        }
    }

    fn commit(&self) {
        if let Self::Stream(replay) = self {
            replay.commit();
        }
    }
}

/// What refused a call that no application has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// This one only.
    Stream,
    /// It and all that would follow on the connection.
    Connection,
}

/// Whether an error says that the server never began with the call (HTTP/2, sections 6.8 and 8.7).
fn refusal(error: &hyper::Error) -> Option<Refusal> {
    if error.is_user() {
        return Some(Refusal::Connection); // hyper dropped it while it waited for its stream
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<h2::Error>().filter(|error| error.is_remote()) {
            return match error.reason() {
                // On a stream, a GOAWAY's error means that the stream was beyond the last that the server took.
                _ if error.is_go_away() => Some(Refusal::Connection),
                Some(h2::Reason::REFUSED_STREAM) => Some(Refusal::Stream),
                _ => None,
            };
        }
        cause = current.source();
    }
    None
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
