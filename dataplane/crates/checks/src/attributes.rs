//! Mixer attributes of Envoy's and OpenTelemetry's messages, by one table.

pub(crate) mod checked;
mod flags;
mod given;
pub(crate) mod limited;
pub(crate) mod logged;
mod metadata;
mod plain;
mod query;
pub(crate) mod table;
pub(crate) mod telemetry;

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::Address;
use envoy_types::pb::envoy::config::core::v3::address::Address as Form;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use meshwright_policy::Value;

/// IP address and port; none for a Unix socket.
fn socket(address: Option<&Address>) -> Option<(IpAddr, i64)> {
    let Some(Form::SocketAddress(socket)) = &address?.address else {
        return None;
    };
    let port = match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => i64::from(port),
        _ => 0,
    };
    Some((socket.address.parse().ok()?, port))
}

fn address(of: Option<&Address>) -> Option<Value<'_>> {
    socket(of).map(|(address, _)| Value::Address(address.to_canonical()))
}

fn port(of: Option<&Address>) -> Option<Value<'_>> {
    socket(of).map(|(_, port)| Value::Int(port))
}

/// The namespace in a SPIFFE ID `spiffe://domain/ns/NAMESPACE/sa/ACCOUNT`.
pub(crate) fn namespace(id: &str) -> Option<&str> {
    let (_, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    let mut parts = path.split('/');
    (parts.next() == Some("ns"))
        .then(|| parts.next())?
        .filter(|namespace| !namespace.is_empty())
}

/// The service account in a SPIFFE ID `spiffe://domain/ns/NAMESPACE/sa/ACCOUNT`.
pub(crate) fn service_account(id: &str) -> Option<&str> {
    let (_, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    match *path.split('/').collect::<Vec<_>>() {
        ["ns", _, "sa", account] if !account.is_empty() => Some(account),
        _ => None,
    }
}

/// A path without its query.
fn url_path(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or(path)
}

/// Mixer's name for a protocol, told by the content type.
fn protocol(content_type: Option<&str>) -> &'static str {
    if content_type.is_some_and(|kind| kind.starts_with("application/grpc")) {
        "grpc"
    } else {
        "http"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_and_account_are_the_identitys() {
        let shop = "spiffe://mesh.local/ns/demo/sa/shop";
        assert_eq!((namespace(shop), service_account(shop)), (Some("demo"), Some("shop")));
        for other in [
            "",
            "spiffe://mesh.local",
            "spiffe://mesh.local/vm/7",
            "spiffe://mesh.local/ns/",
            "demo",
        ] {
            assert_eq!((namespace(other), service_account(other)), (None, None), "{other}");
        }
        assert_eq!(service_account("spiffe://mesh.local/ns/demo/sa/shop/x"), None);
    }

    #[test]
    fn a_path_ends_at_its_query() {
        assert_eq!(url_path("/a/b?c=/d"), "/a/b");
        assert_eq!(url_path("/a"), "/a");
    }
}
