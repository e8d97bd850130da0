//! How a call ended: its code, message and trailing metadata, as they stand in HTTP/2 trailers.
//!
//! tonic's `Status` hides `grpc-status-details-bin` and forbids metadata beside OK; callers in Python want both.

use std::error::Error;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tonic::{Code, Status};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The end of a call.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// gRPC's status code, 0-16.
    pub code: Code,
    /// Why, in words.
    pub message: Box<str>,
    /// The trailing metadata, `grpc-status-details-bin` included.
    pub metadata: HeaderMap,
}

impl Outcome {
    /// An end without metadata.
    pub fn new(code: Code, message: impl Into<Box<str>>) -> Self {
        Self {
            code,
            message: message.into(),
            metadata: HeaderMap::new(),
        }
    }

    /// Write the trailers.
    pub fn into_trailers(self) -> HeaderMap {
        let mut trailers = self.metadata;
        trailers.insert(STATUS, HeaderValue::from(self.code as i32));
        if !self.message.is_empty() {
            trailers.insert(MESSAGE, encode(&self.message));
        }
        trailers
    }

    /// The trailers of a plain OK.
    pub fn ok_trailers() -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(STATUS, HeaderValue::from_static("0"));
        trailers
    }

    /// Read trailers, or the headers of a response that has nothing else; nothing without a `grpc-status`.
    pub fn from_trailers(mut trailers: HeaderMap) -> Option<Self> {
        let code = trailers.remove(STATUS)?;
        let message = trailers
            .remove(MESSAGE)
            .map(|value| decode(value.as_bytes()).into())
            .unwrap_or_default();
        Some(Self {
            code: Code::from_bytes(code.as_bytes()),
            message,
            metadata: trailers,
        })
    }

    /// What an answer that isn't gRPC's means ("HTTP to gRPC Status Code Mapping").
    pub fn from_http<B>(response: &Response<B>) -> Option<Self> {
        let code = match response.status() {
            StatusCode::OK => return None,
            StatusCode::BAD_REQUEST => Code::Internal,
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND => Code::Unimplemented,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Code::ResourceExhausted,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
            _ => Code::Unknown,
        };
        Some(Self::new(
            code,
            format!("the server answered with HTTP status {}", response.status()),
        ))
    }

    /// What a broken connection or a reset stream means ("HTTP/2 Transport Mapping", "Errors").
    pub fn from_transport(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(current) = cause {
            if let Some(reason) = current.downcast_ref::<h2::Error>().and_then(h2_reset) {
                return Self::new(reason, chain(error));
            }
            cause = current.source();
        }
        Self::new(Code::Unavailable, chain(error))
    }
}

/// The code for a stream that the peer has reset; nothing when the whole connection broke.
fn h2_reset(error: &h2::Error) -> Option<Code> {
    if !error.is_reset() {
        return None;
    }
    Some(match error.reason()? {
        h2::Reason::REFUSED_STREAM => Code::Unavailable,
        h2::Reason::CANCEL => Code::Cancelled,
        h2::Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        h2::Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    })
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        Self::new(status.code(), status.message())
    }
}

/// An error with its causes, which is where the reason is.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let more = current.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = current.source();
    }
    text
}

/// Percent-encode what isn't printable ASCII ("Percent-Encoded" of the protocol).
fn encode(message: &str) -> HeaderValue {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' => text.push_str("%25"),
            b' '..=b'~' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

pub(crate) fn decode(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex
            .filter(|_| byte == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_written_and_read() {
        let mut sent = Outcome::new(Code::NotFound, "100 % «weg»\n");
        sent.metadata
            .insert("grpc-status-details-bin", HeaderValue::from_static("AAA"));
        let read = Outcome::from_trailers(sent.clone().into_trailers()).expect("a status");
        assert_eq!((read.code, &read.message), (sent.code, &sent.message));
        assert_eq!(read.metadata, sent.metadata);
        assert!(Outcome::from_trailers(HeaderMap::new()).is_none());
        assert_eq!(decode(b"50% off %zz %"), "50% off %zz %");
    }
}
