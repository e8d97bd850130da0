//! Asks a server over its connection whether a service is healthy, for as long as the connection stands (gRFC A17,
//! "Client-Side Health Checking").
//!
//! One `grpc.health.v1.Health/Watch` a connection. A server that doesn't know it counts as healthy, as the gRFC says.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;

use crate::client::link::Link;
use crate::client::subchannel::{BackOff, jittered};
use crate::wire::frame::{self, Reader};
use crate::wire::outcome::Outcome;

/// The method that is called.
pub(crate) const PATH: &str = "/grpc.health.v1.Health/Watch";
/// Bytes of an answer at most: it has one small number.
const SIZE: usize = 1024;

/// Of `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// What a channel asks each of its servers.
#[derive(Debug)]
pub(crate) struct Question {
    /// The service's name; empty is the server as a whole.
    pub(crate) service: String,
    /// Where [`PATH`] is, at this channel's target.
    pub(crate) uri: Uri,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Calls may go there.
    Serving,
    /// They may not, for this reason.
    Not(Arc<str>),
}

/// The watch over one connection.
#[derive(Debug)]
pub(crate) struct HealthWatch {
    question: Arc<Question>,
    link: Arc<Link>,
    back_off: BackOff,
    pause: std::time::Duration,
    /// When to ask anew.
    due: Option<Instant>,
    answers: Option<Reader<Incoming>>,
    /// The server doesn't know the question.
    is_over: bool,
}

impl HealthWatch {
    pub(crate) fn new(question: Arc<Question>, link: Arc<Link>, back_off: BackOff) -> Self {
        Self {
            question,
            link,
            back_off,
            pause: back_off.first,
            due: None,
            answers: None,
            is_over: false,
        }
    }

    /// Wait for the server's next word. Nothing is lost when this is given up and asked again.
    pub(crate) async fn next(&mut self) -> Health {
        if self.is_over {
            return std::future::pending().await;
        }
        if let Some(due) = self.due {
            tokio::time::sleep_until(due).await;
            self.due = None;
        }
        let outcome = match self.answer().await {
            Ok(status) => {
                self.pause = self.back_off.first;
                return match status {
                    SERVING => Health::Serving,
                    _ => self.not("it isn't serving"),
                };
            }
            Err(outcome) => outcome,
        };
        self.answers = None;
        if outcome.code == Code::Unimplemented {
            self.is_over = true;
            return Health::Serving;
        }
        self.due = Some(Instant::now() + jittered(self.pause));
        self.pause = (self.pause * 2).min(self.back_off.longest);
        self.not(&format!("the health check failed: {}", outcome.message))
    }

    fn not(&self, reason: &str) -> Health {
        let service = &self.question.service;
        Health::Not(
            format!(
                "{}: service {service:?} of the server: {reason}",
                self.link.peer.address
            )
            .into(),
        )
    }

    /// The next answer of the call under way, or of a new one; an error is the call's end.
    async fn answer(&mut self) -> Result<u64, Outcome> {
        let answers = match &mut self.answers {
            Some(answers) => answers,
            None => {
                let begun = self.begin().await?;
                self.answers.insert(begun)
            }
        };
        match answers.next().await {
            Ok(Ok(Some(message))) => {
                status_of(&message).ok_or_else(|| Outcome::new(Code::Internal, "unreadable answer to the health check"))
            }
            Ok(Ok(None)) => Err(answers
                .trailers()
                .and_then(Outcome::from_trailers)
                .unwrap_or_else(|| Outcome::new(Code::Internal, "the call ended without a status"))),
            Ok(Err(status)) => Err(status.into()),
            Err(error) => Err(Outcome::from_transport(&error)),
        }
    }

    async fn begin(&self) -> Result<Reader<Incoming>, Outcome> {
        let message = frame::encode(&request_of(&self.question.service));
        let mut request = Request::new(Body::new(Full::<Bytes>::new(message)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.question.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let response = self.link.send(request).await;
        let response = response.map_err(|error| Outcome::from_transport(error.error()))?;
        if response.headers().contains_key("grpc-status") {
            let outcome = Outcome::from_trailers(response.into_parts().0.headers);
            return Err(outcome.unwrap_or_else(|| Outcome::new(Code::Internal, "the call ended without a status")));
        }
        match Outcome::from_http(&response) {
            Some(outcome) => Err(outcome),
            None => Ok(Reader::new(response.into_body(), SIZE, None)),
        }
    }
}

/// Wait for the next word of a watch, if there is one.
pub(crate) async fn next(watch: &mut Option<HealthWatch>) -> Health {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// `HealthCheckRequest` in protobuf's form: field 1 is the service's name.
fn request_of(service: &str) -> Vec<u8> {
    let mut message = vec![0x0a];
    let mut length = service.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(service.as_bytes());
    message
}

/// Field 1 of a `HealthCheckResponse`, zero without it; nothing for what isn't protobuf's form.
fn status_of(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let length = match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(length..)?;
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_read() {
        for (message, status) in [
            (&b""[..], Some(0)),
            (b"\x08\x01", Some(1)),
            (b"\x08\x01\x08\x02", Some(2)), // the last counts
            (b"\x12\x01x\x08\x01\x19abcdefgh\x25abcd", Some(1)),
            (b"\x08", None),
            (b"\x08\x81", None),
            (b"\x12\x05x", None),
            (b"\x0b", None),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                None,
            ),
        ] {
            assert_eq!(status_of(message), status, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(message: Vec<u8>) {
            let _ = status_of(&message);
        }

        #[test]
        fn a_request_has_the_name_as_its_field(name in ".{0,300}") {
            let message = request_of(&name);
            let mut rest = &message[1..];
            prop_assert_eq!(varint(&mut rest), Some(name.len() as u64));
            prop_assert_eq!(rest, name.as_bytes());
        }
    }
}
