//! Names and attributes of spans, by OpenTelemetry's conventions for gRPC (opentelemetry-semantic-conventions 0.66b2).

use http::uri::Authority;
use tonic::Code;

use crate::peer::Peer;
use crate::telemetry::meter::{OTHER, name_of};
use crate::telemetry::span::Active;

/// Characters of what a caller names that are kept.
const NAMES: usize = 200;

/// The name of the span of `method` ("package.Service/Method", or [`OTHER`]).
pub(crate) fn span_name(method: &str) -> String {
    if method == OTHER { "grpc" } else { method }.to_owned()
}

/// Which codes are the server's failures.
fn is_server_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn set_method(span: &mut Active, method: &str, path: &str) {
    span.set("rpc.system.name", "grpc");
    span.set("rpc.method", method.to_owned());
    if method == OTHER {
        let original: String = path.trim_start_matches('/').chars().take(NAMES).collect();
        span.set("rpc.method_original", original);
    }
}

/// Describe a call that arrived.
pub(crate) fn describe_server(span: &mut Active, method: &str, path: &str, authority: Option<&Authority>, peer: &Peer) {
    set_method(span, method, path);
    if let Some(authority) = authority {
        span.set(
            "server.address",
            authority.host().chars().take(NAMES).collect::<String>(),
        );
        if let Some(port) = authority.port_u16() {
            span.set("server.port", i64::from(port));
        }
    }
    match address_of(&peer.address) {
        Some((host, port)) => {
            span.set("client.address", host.to_owned());
            span.set("client.port", port);
            span.set("network.peer.address", host.to_owned());
            span.set("network.peer.port", port);
            span.set("network.transport", "tcp");
        }
        None => span.set("network.transport", "unix"),
    }
    if let Some(id) = &peer.spiffe_id {
        span.set("peer.spiffe_id", id.to_string());
    }
}

/// Describe a call that goes out to `target`.
pub(crate) fn describe_client(span: &mut Active, method: &str, path: &str, target: &str) {
    set_method(span, method, path);
    let (host, port) = server_of(target);
    span.set("server.address", host.to_owned());
    if let Some(port) = port {
        span.set("server.port", port);
    }
}

/// Say how a call ended: at a server some codes are its failure, at a client all but OK.
pub(crate) fn describe_end(span: &mut Active, code: Code, message: &str, is_client: bool) {
    span.set("rpc.response.status_code", name_of(code));
    let is_failure = if is_client {
        code != Code::Ok
    } else {
        is_server_failure(code)
    };
    if is_failure {
        span.set("error.type", name_of(code));
        span.fail(message.to_owned());
    }
}

/// Host and port of an address as grpcio writes it (`ipv4:127.0.0.1:40000`, `ipv6:[::1]:40000`); nothing for sockets.
fn address_of(address: &str) -> Option<(&str, i64)> {
    let (host, port) = address
        .strip_prefix("ipv4:")
        .or_else(|| address.strip_prefix("ipv6:"))?
        .rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port.parse().ok()?))
}

/// Name and port of a channel's target, as gRPC writes it; of several addresses all of them, without one port.
pub fn server_of(target: &str) -> (&str, Option<i64>) {
    let strip = |schemes: [&str; 2]| schemes.iter().find_map(|scheme| target.strip_prefix(scheme));
    if let Some(path) = strip(["unix:", "unix-abstract:"]) {
        return (path, None);
    }
    let target = strip(["ipv4:", "ipv6:"]).unwrap_or(target);
    if target.contains(',') {
        return (target, None);
    }
    let authority = target.rsplit('/').next().unwrap_or(target);
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => (host.trim_matches(['[', ']']), port.parse().ok()),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(address_of("ipv4:127.0.0.1:40000"), Some(("127.0.0.1", 40000)));
        assert_eq!(address_of("ipv6:[::1]:40000"), Some(("::1", 40000)));
        assert_eq!(address_of("unix:"), None);
        assert_eq!(server_of("a.example:443"), ("a.example", Some(443)));
        assert_eq!(server_of("dns:///a.example:443"), ("a.example", Some(443)));
        assert_eq!(server_of("[::1]:443"), ("::1", Some(443)));
        assert_eq!(server_of("unix:/run/a.sock"), ("/run/a.sock", None));
        assert_eq!(server_of("a.example"), ("a.example", None));
        assert_eq!(server_of("ipv4:10.0.0.1:80"), ("10.0.0.1", Some(80)));
        assert_eq!(server_of("ipv6:[::1]:80"), ("::1", Some(80)));
        assert_eq!(
            server_of("ipv4:10.0.0.1:80,10.0.0.2:80"),
            ("10.0.0.1:80,10.0.0.2:80", None)
        );
        assert_eq!(server_of("unix-abstract:a"), ("a", None));
    }
}
