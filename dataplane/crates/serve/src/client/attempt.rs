//! A call's attempts: each is sent over a connection of the moment, until a server has begun to answer or nothing is left
//! to try (gRFC A6).

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;

use crate::client::channel::{Answer, Call, Channel, Messages};
use crate::client::link::Link;
use crate::client::replay::Replay;
use crate::client::retry::{PREVIOUS_ATTEMPTS, Retries, Seen};
use crate::wire::compression::{ACCEPT_ENCODING, ACCEPTED, ENCODING, Encoding};
use crate::wire::deadline;
use crate::wire::frame::Reader;
use crate::wire::outcome::Outcome;

const USER_AGENT: &str = concat!("meshwright/", env!("CARGO_PKG_VERSION"));

/// An attempt that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) outcome: Outcome,
    pub(crate) seen: Seen,
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
    /// Try until the server has begun to answer, or nothing is left to try.
    pub(crate) async fn attempts(&self, call: Call, messages: Messages) -> Result<Answer, Outcome> {
        let method = self.shared.config.method(&call.path).cloned();
        let limit = method.as_ref().and_then(|method| method.max_response);
        let limit = self.shared.limits.message_size.min(limit.unwrap_or(usize::MAX));
        let hedging = method.as_ref().and_then(|method| method.hedging.clone());
        let messages = match messages {
            Messages::Whole(bytes) => Kept::Whole(bytes),
            Messages::Stream(body) => Kept::Stream(Replay::new(body, self.shared.retry_buffer, hedging.is_some())),
        };
        let mut retries = Retries::new(method, self.shared.throttle.clone());
        if let Some(policy) = hedging {
            let mut answer = self.hedged(call, &messages, limit, &policy).await?;
            answer.retries = Some(retries);
            answer.requests = Some(messages);
            return Ok(answer);
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let body = messages
                .attempt()
                .ok_or_else(|| Outcome::new(Code::Internal, "the requests of a committed call were asked for again"))?;
            let failed = match self.attempt(&call, body, limit, retries.previous()).await {
                Ok(mut answer) => {
                    messages.commit(attempt);
                    answer.retries = Some(retries);
                    answer.requests = Some(messages);
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

    pub(crate) async fn attempt(
        &self,
        call: &Call,
        messages: Body,
        limit: usize,
        previous: u32,
    ) -> Result<Answer, Failed> {
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
            requests: None,
            underway: None,
        })
    }

    pub(crate) async fn send(
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
}

/// The requests of a call. Dropped before their end, they cancel the call at the server.
#[derive(Debug)]
pub(crate) enum Kept {
    Whole(Bytes),
    Stream(Arc<Replay>),
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Self::Stream(replay) = self {
            replay.give_up();
        }
    }
}

impl Kept {
    pub(crate) fn attempt(&self) -> Option<Body> {
        match self {
            Self::Whole(bytes) => Some(Body::new(Full::new(bytes.clone()))),
            Self::Stream(replay) => replay.attempt(),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(replay) => replay.is_open(),
        }
    }

    pub(crate) fn commit(&self, attempt: u64) {
        if let Self::Stream(replay) = self {
            replay.commit(attempt);
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

fn send_beside(link: &Link, descriptor: &OwnedFd) -> Result<(), String> {
    let descriptors = link
        .descriptors
        .as_ref()
        .ok_or("descriptors travel on Unix sockets only")?;
    let duplicate = descriptor.try_clone().map_err(|error| error.to_string())?;
    descriptors.send(duplicate).map_err(|refused| refused.to_string())
}
