//! What handlers need to make Mixer attributes of Envoy's messages.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::Address;
use envoy_types::pb::envoy::config::core::v3::address::Address as Form;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value;
use meshwright_policy::Attributes;
use meshwright_serve::telemetry::span::Context;

/// IP address and port; none for a Unix socket.
pub(crate) fn socket(address: Option<&Address>) -> Option<(IpAddr, i64)> {
    let Some(Form::SocketAddress(socket)) = &address?.address else {
        return None;
    };
    let port = match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => i64::from(port),
        _ => 0,
    };
    Some((socket.address.parse().ok()?, port))
}

/// The namespace in a SPIFFE ID `spiffe://domain/ns/NAMESPACE/sa/ACCOUNT`.
pub(crate) fn namespace(id: &str) -> Option<&str> {
    let (_, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    let mut parts = path.split('/');
    (parts.next() == Some("ns"))
        .then(|| parts.next())?
        .filter(|namespace| !namespace.is_empty())
}

/// Whether a report says that its request was decided by the client's own cache (Mixer's `check.cache_hit`).
pub(crate) fn is_cached_decision(attributes: &Attributes) -> bool {
    let hit = attributes.get("check.cache_hit").and_then(|hit| hit.value.as_ref());
    matches!(hit, Some(Value::BoolValue(true)))
}

/// A path without its query.
pub(crate) fn url_path(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or(path)
}

/// Mixer's name for a protocol, told by the content type.
pub(crate) fn protocol(content_type: Option<&str>) -> &'static str {
    if content_type.is_some_and(|kind| kind.starts_with("application/grpc")) {
        "grpc"
    } else {
        "http"
    }
}

/// Trace and span id in hexadecimal, from the request headers of a report: W3C's header, else B3's.
pub(crate) fn trace(attributes: &Attributes) -> Option<(String, String)> {
    let Some(Value::StringMapValue(headers)) = &attributes.get("request.headers")?.value else {
        return None;
    };
    if let Some(context) = headers
        .entries
        .get("traceparent")
        .and_then(|header| Context::parse(header))
    {
        let (trace, span) = (
            u128::from_be_bytes(context.trace_id),
            u64::from_be_bytes(context.span_id),
        );
        return Some((format!("{trace:032x}"), format!("{span:016x}")));
    }
    let (trace, span) = (
        headers.entries.get("x-b3-traceid")?,
        headers.entries.get("x-b3-spanid")?,
    );
    let trace = u128::from_str_radix(trace, 16).ok().filter(|_| trace.len() <= 32)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|_| span.len() <= 16)?;
    Some((format!("{trace:032x}"), format!("{span:016x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_the_identitys() {
        assert_eq!(namespace("spiffe://mesh.local/ns/demo/sa/shop"), Some("demo"));
        for other in [
            "",
            "spiffe://mesh.local",
            "spiffe://mesh.local/vm/7",
            "spiffe://mesh.local/ns/",
            "demo",
        ] {
            assert_eq!(namespace(other), None, "{other}");
        }
    }

    #[test]
    fn a_path_ends_at_its_query() {
        assert_eq!(url_path("/a/b?c=/d"), "/a/b");
        assert_eq!(url_path("/a"), "/a");
    }
}
