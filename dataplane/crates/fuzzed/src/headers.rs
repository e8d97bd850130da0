//! What stands in gRPC's headers and trailers: deadline, status, message, trace, encodings.

use http::{HeaderMap, HeaderValue};
use meshwright_serve::telemetry::span::Context;
use meshwright_serve::{Encoding, Outcome, inside};

/// Any bytes as the lines of headers' values, each as every header that is read.
pub fn headers(bytes: &[u8]) {
    let mut trailers = HeaderMap::new();
    let names = ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-other"];
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate().take(16) {
        let _ = inside::decode_message(line);
        if let Some(context) = std::str::from_utf8(line).ok().and_then(Context::parse) {
            assert_eq!(Context::parse(&context.to_string()), Some(context));
        }
        let Ok(value) = HeaderValue::from_bytes(line) else {
            continue;
        };
        let headers: HeaderMap = ["grpc-timeout", "grpc-encoding", "grpc-accept-encoding"]
            .map(|name| (http::HeaderName::from_static(name), value.clone()))
            .into_iter()
            .collect();
        timeout(&headers);
        if let Ok(Some(encoding)) = Encoding::of(&headers) {
            assert!(encoding.is_accepted(&headers));
        }
        trailers.append(names[index % names.len()], value);
    }
    let Some(outcome) = Outcome::from_trailers(trailers) else {
        return;
    };
    let again = Outcome::from_trailers(outcome.clone().into_trailers()).expect("a status");
    assert_eq!((again.code, &again.message), (outcome.code, &outcome.message));
    assert_eq!(again.metadata, outcome.metadata);
}

/// A timeout is written so that it is read as the same, or as shorter by less than its unit.
fn timeout(headers: &HeaderMap) {
    let Ok(Some(read)) = inside::read_timeout(headers) else {
        return;
    };
    let written: HeaderMap = [(
        http::HeaderName::from_static("grpc-timeout"),
        HeaderValue::try_from(inside::write_timeout(read)).expect("ASCII"),
    )]
    .into_iter()
    .collect();
    let again = inside::read_timeout(&written).expect("well formed").expect("there");
    assert!(
        again <= read && (read - again).as_secs_f64() <= read.as_secs_f64() / 1000.0,
        "{read:?} became {again:?}"
    );
}
