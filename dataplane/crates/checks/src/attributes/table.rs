//! The one table: which field of Envoy's and OpenTelemetry's messages becomes which attribute. Everything that speaks to
//! the engine reads it, and docs/attributes.md is written from it (`tests/attributes.rs` compares them).

use std::collections::HashMap;
use std::sync::LazyLock;

use envoy_types::pb::envoy::config::core::v3::RequestMethod;
use envoy_types::pb::envoy::data::accesslog::v3::http_access_log_entry::HttpVersion;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::TlsVersion;
use meshwright_api::meshwright::policy::v1::Type;
use meshwright_policy::{Map, Value};

use super::checked::Checked;
use super::limited::Limited;
use super::logged::{self, Logged};
use super::{address, namespace, port, protocol, query, url_path};

/// Takes an attribute's value out of a message; None: absent.
type Read<T> = for<'a> fn(&'a T) -> Option<Value<'a>>;

/// One attribute.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: Type,
    /// ext_authz: where in AttributeContext, for people, and the same for the engine.
    pub(crate) check: Column<Checked>,
    /// Access log: where in the entry, for people.
    pub(crate) http: &'static str,
    pub(crate) tcp: &'static str,
    pub(crate) log: Read<Logged>,
    pub(crate) limit: Limit,
    pub(crate) otlp: Otlp,
}

pub(crate) struct Column<T> {
    pub(crate) from: &'static str,
    pub(crate) read: Read<T>,
}

/// Where a rate limit request has it.
pub(crate) enum Limit {
    Nowhere,
    /// The first of these keys that the descriptor has.
    Entry(&'static [&'static str]),
    Itself(Column<Limited>),
}

/// Where OpenTelemetry has it.
pub(crate) enum Otlp {
    Nowhere,
    /// The first of these attributes that the item has, else its resource.
    Key(&'static [&'static str]),
    /// A field of its own, read by the receiver.
    Field(&'static str),
}

/// For rows to name only what they have.
const NO: Row = Row {
    name: "",
    kind: Type::String,
    check: Column {
        from: "",
        read: |_| None,
    },
    http: "",
    tcp: "",
    log: |_| None,
    limit: Limit::Nowhere,
    otlp: Otlp::Nowhere,
};

const fn at<T>(from: &'static str, read: Read<T>) -> Column<T> {
    Column { from, read }
}

/// The type of an attribute; STRING for one that isn't here, as text is what configuration gives.
pub(crate) fn kind(name: &str) -> Type {
    static KINDS: LazyLock<HashMap<&str, Type>> =
        LazyLock::new(|| ROWS.iter().map(|row| (row.name, row.kind)).collect());
    KINDS.get(name).copied().unwrap_or(Type::String)
}

/// The attributes that are maps.
pub(crate) fn maps() -> impl Iterator<Item = &'static str> {
    ROWS.iter()
        .filter(|row| row.kind == Type::StringMap)
        .map(|row| row.name)
}

fn text(text: &str) -> Option<Value<'_>> {
    (!text.is_empty()).then(|| Value::text(text))
}

fn owned<'a>(text: String) -> Option<Value<'a>> {
    (!text.is_empty()).then(|| Value::Text(text.into()))
}

fn map(entries: &HashMap<String, String>) -> Option<Value<'_>> {
    (!entries.is_empty()).then_some(Value::Map(Map::Entries(entries)))
}

fn count<'a>(number: u64) -> Option<Value<'a>> {
    Some(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)))
}

/// In the order of the document.
pub(crate) static ROWS: &[Row] = &[
    Row {
        name: "source.ip",
        kind: Type::IpAddress,
        check: at("source.address", |c| address(c.source()?.address.as_ref())),
        http: "common.downstream_remote_address",
        tcp: "common.downstream_remote_address",
        log: |l| address(l.common.downstream_remote_address.as_ref()),
        limit: Limit::Entry(&["remote_address"]),
        otlp: Otlp::Key(&["client.address", "source.address", "network.peer.address"]),
    },
    Row {
        name: "source.port",
        kind: Type::Int64,
        check: at("source.address", |c| port(c.source()?.address.as_ref())),
        http: "common.downstream_remote_address",
        tcp: "common.downstream_remote_address",
        log: |l| port(l.common.downstream_remote_address.as_ref()),
        otlp: Otlp::Key(&["client.port", "source.port", "network.peer.port"]),
        ..NO
    },
    Row {
        name: "source.principal",
        check: at("source.principal", |c| text(&c.source()?.principal)),
        http: "common.tls_properties.peer_certificate_properties, the URI",
        tcp: "common.tls_properties.peer_certificate_properties, the URI",
        log: |l| text(l.peer()?),
        otlp: Otlp::Field("the sender's SPIFFE ID"),
        ..NO
    },
    Row {
        name: "source.user",
        check: at("source.principal", |c| text(&c.source()?.principal)),
        http: "as source.principal",
        tcp: "as source.principal",
        log: |l| text(l.peer()?),
        otlp: Otlp::Field("the sender's SPIFFE ID"),
        ..NO
    },
    Row {
        name: "source.namespace",
        check: at("the namespace in source.principal", |c| {
            text(namespace(&c.source()?.principal)?)
        }),
        http: "the namespace in source.principal",
        tcp: "the namespace in source.principal",
        log: |l| text(namespace(l.peer()?)?),
        otlp: Otlp::Field("the namespace in the sender's SPIFFE ID"),
        ..NO
    },
    Row {
        name: "source.serviceAccount",
        check: at("the service account in source.principal", |c| {
            text(super::service_account(&c.source()?.principal)?)
        }),
        http: "the service account in source.principal",
        tcp: "the service account in source.principal",
        log: |l| text(super::service_account(l.peer()?)?),
        otlp: Otlp::Field("the service account in the sender's SPIFFE ID"),
        ..NO
    },
    Row {
        name: "source.service",
        check: at("source.service", |c| text(&c.source()?.service)),
        limit: Limit::Entry(&["source_cluster"]),
        otlp: Otlp::Key(&["service.name"]),
        ..NO
    },
    Row {
        name: "source.uid",
        otlp: Otlp::Key(&["service.instance.id"]),
        ..NO
    },
    Row {
        name: "source.name",
        otlp: Otlp::Key(&["k8s.pod.name", "host.name"]),
        ..NO
    },
    Row {
        name: "source.workload.name",
        otlp: Otlp::Key(&[
            "k8s.deployment.name",
            "k8s.statefulset.name",
            "k8s.daemonset.name",
            "k8s.job.name",
        ]),
        ..NO
    },
    Row {
        name: "source.workload.namespace",
        otlp: Otlp::Key(&["k8s.namespace.name", "service.namespace"]),
        ..NO
    },
    Row {
        name: "source.labels",
        kind: Type::StringMap,
        check: at("source.labels", |c| map(&c.source()?.labels)),
        otlp: Otlp::Field("k8s.pod.label.*"),
        ..NO
    },
    Row {
        name: "destination.ip",
        kind: Type::IpAddress,
        check: at("destination.address", |c| address(c.destination()?.address.as_ref())),
        http: "common.downstream_local_address",
        tcp: "common.downstream_local_address",
        log: |l| address(l.common.downstream_local_address.as_ref()),
        otlp: Otlp::Key(&["destination.address", "network.local.address"]),
        ..NO
    },
    Row {
        name: "destination.port",
        kind: Type::Int64,
        check: at("destination.address", |c| port(c.destination()?.address.as_ref())),
        http: "common.downstream_local_address",
        tcp: "common.downstream_local_address",
        log: |l| port(l.common.downstream_local_address.as_ref()),
        otlp: Otlp::Key(&["server.port", "destination.port", "network.local.port"]),
        ..NO
    },
    Row {
        name: "destination.principal",
        check: at("destination.principal", |c| text(&c.destination()?.principal)),
        http: "common.tls_properties.local_certificate_properties, the URI",
        tcp: "common.tls_properties.local_certificate_properties, the URI",
        log: |l| text(l.local()?),
        ..NO
    },
    Row {
        name: "destination.namespace",
        check: at("context_extensions, else the caller's identity", |c| {
            text(c.destination_namespace()?)
        }),
        limit: Limit::Itself(at("an entry, else the caller's identity", |l| {
            text(l.destination_namespace()?)
        })),
        ..NO
    },
    Row {
        name: "destination.service",
        check: at("destination.service", |c| text(&c.destination()?.service)),
        limit: Limit::Entry(&["destination_cluster"]),
        ..NO
    },
    Row {
        name: "destination.labels",
        kind: Type::StringMap,
        check: at("destination.labels", |c| map(&c.destination()?.labels)),
        ..NO
    },
    Row {
        name: "request.time",
        kind: Type::Timestamp,
        check: at("request.time", time),
        http: "common.start_time",
        log: |l| l.http.as_ref().and_then(|_| l.time()),
        otlp: Otlp::Field("a span's start, a log record's time"),
        ..NO
    },
    Row {
        name: "request.id",
        check: at("request.http.headers[x-request-id], else request.http.id", |c| {
            text(c.header("x-request-id").unwrap_or(&c.http()?.id))
        }),
        http: "request.request_id",
        log: |l| text(&l.request()?.request_id),
        otlp: Otlp::Key(&["request.id", "http.request.header.x-request-id", "guid:x-request-id"]),
        ..NO
    },
    Row {
        name: "request.method",
        check: at("request.http.method", |c| text(&c.http()?.method)),
        http: "request.request_method",
        log: |l| match RequestMethod::try_from(l.request()?.request_method) {
            Ok(RequestMethod::MethodUnspecified) | Err(_) => None,
            Ok(method) => Some(Value::text(method.as_str_name())),
        },
        limit: Limit::Entry(&["method"]),
        otlp: Otlp::Key(&["http.request.method", "http.method"]),
        ..NO
    },
    Row {
        name: "request.path",
        check: at("request.http.path", |c| text(&c.http()?.path)),
        http: "request.original_path, else request.path",
        log: |l| text(l.path()?),
        otlp: Otlp::Key(&["http.target"]),
        ..NO
    },
    Row {
        name: "request.url_path",
        check: at("request.http.path without its query", |c| {
            text(url_path(&c.http()?.path))
        }),
        http: "request.path without its query",
        log: |l| text(url_path(l.path()?)),
        limit: Limit::Entry(&["path"]),
        otlp: Otlp::Key(&["url.path"]),
        ..NO
    },
    Row {
        name: "request.query",
        check: at("the query of request.http.path", |c| text(query::of(&c.http()?.path))),
        http: "the query of request.path",
        log: |l| text(query::of(l.path()?)),
        otlp: Otlp::Key(&["url.query"]),
        ..NO
    },
    Row {
        name: "request.query_params",
        kind: Type::StringMap,
        check: at("the query of request.http.path, decoded", |c| map(c.query()?)),
        http: "the query of request.path, decoded",
        log: |l| map(l.query()?),
        ..NO
    },
    Row {
        name: "request.host",
        check: at("request.http.host", |c| text(&c.http()?.host)),
        http: "request.authority",
        log: |l| text(&l.request()?.authority),
        otlp: Otlp::Key(&["server.address", "http.host"]),
        ..NO
    },
    Row {
        name: "request.scheme",
        check: at("request.http.scheme", |c| text(&c.http()?.scheme)),
        http: "request.scheme",
        log: |l| text(&l.request()?.scheme),
        otlp: Otlp::Key(&["url.scheme", "http.scheme"]),
        ..NO
    },
    Row {
        name: "request.protocol",
        check: at("request.http.protocol", |c| text(&c.http()?.protocol)),
        http: "protocol_version",
        log: |l| {
            Some(Value::text(
                match HttpVersion::try_from(l.http.as_ref()?.protocol_version).ok()? {
                    HttpVersion::ProtocolUnspecified => return None,
                    HttpVersion::Http10 => "HTTP/1.0",
                    HttpVersion::Http11 => "HTTP/1.1",
                    HttpVersion::Http2 => "HTTP/2",
                    HttpVersion::Http3 => "HTTP/3",
                },
            ))
        },
        otlp: Otlp::Key(&["http.protocol"]),
        ..NO
    },
    Row {
        name: "request.useragent",
        check: at("request.http.headers[user-agent]", |c| text(c.header("user-agent")?)),
        http: "request.user_agent",
        log: |l| text(&l.request()?.user_agent),
        otlp: Otlp::Key(&["user_agent.original", "user_agent", "http.user_agent"]),
        ..NO
    },
    Row {
        name: "request.referer",
        check: at("request.http.headers[referer]", |c| text(c.header("referer")?)),
        http: "request.referer",
        log: |l| text(&l.request()?.referer),
        otlp: Otlp::Key(&["http.request.header.referer"]),
        ..NO
    },
    Row {
        name: "request.headers",
        kind: Type::StringMap,
        check: at("request.http.headers or header_map", |c| {
            // An empty map is there all the same: its keys are absent, it isn't.
            c.headers().map(|headers| Value::Map(Map::Entries(headers)))
        }),
        http: "request.request_headers",
        log: |l| map(&l.request()?.request_headers),
        ..NO
    },
    Row {
        name: "request.size",
        kind: Type::Int64,
        check: at("request.http.size", |c| {
            let size = c.http()?.size;
            (size >= 0).then_some(Value::Int(size))
        }),
        http: "request.request_body_bytes",
        log: |l| count(l.request()?.request_body_bytes),
        otlp: Otlp::Key(&["http.request.body.size", "request_size"]),
        ..NO
    },
    Row {
        name: "request.total_size",
        kind: Type::Int64,
        http: "request.request_body_bytes + request_headers_bytes",
        log: |l| {
            let request = l.request()?;
            count(request.request_body_bytes.saturating_add(request.request_headers_bytes))
        },
        otlp: Otlp::Key(&["http.request.size"]),
        ..NO
    },
    Row {
        name: "request.body",
        check: at("request.http.body or raw_body", |c| {
            let http = c.http()?;
            match http.raw_body.is_empty() {
                true => text(&http.body),
                false => text(std::str::from_utf8(&http.raw_body).ok()?),
            }
        }),
        ..NO
    },
    Row {
        name: "request.auth.principal",
        check: at("metadata envoy.filters.http.jwt_authn: iss/sub", |c| {
            text(&c.claims()?.principal)
        }),
        http: "metadata envoy.filters.http.jwt_authn: iss/sub",
        log: |l| text(&l.claims()?.principal),
        otlp: Otlp::Key(&["enduser.id", "user.id"]),
        ..NO
    },
    Row {
        name: "request.auth.audiences",
        check: at("the same: aud", |c| text(&c.claims()?.audiences)),
        http: "the same: aud",
        log: |l| text(&l.claims()?.audiences),
        ..NO
    },
    Row {
        name: "request.auth.presenter",
        check: at("the same: azp", |c| text(&c.claims()?.presenter)),
        http: "the same: azp",
        log: |l| text(&l.claims()?.presenter),
        ..NO
    },
    Row {
        name: "request.auth.claims",
        kind: Type::StringMap,
        check: at("the same: text, numbers, bools, lists with commas", |c| {
            map(&c.claims()?.entries)
        }),
        http: "the same: text, numbers, bools, lists with commas",
        log: |l| map(&l.claims()?.entries),
        ..NO
    },
    Row {
        name: "request.auth.raw_claims",
        check: at("the same: all as JSON", |c| text(&c.claims()?.raw)),
        http: "the same: all as JSON",
        log: |l| text(&l.claims()?.raw),
        ..NO
    },
    Row {
        name: "response.time",
        kind: Type::Timestamp,
        http: "common.start_time + time_to_first_upstream_rx_byte",
        log: |l| l.http.as_ref().and_then(|_| l.response_time()),
        ..NO
    },
    Row {
        name: "response.duration",
        kind: Type::Duration,
        http: "common.duration, else time_to_last_downstream_tx_byte",
        log: |l| l.http.as_ref().and_then(|_| l.duration()),
        otlp: Otlp::Field("a span's end less its start"),
        ..NO
    },
    Row {
        name: "response.code",
        kind: Type::Int64,
        http: "response.response_code",
        log: |l| count(l.response()?.response_code.as_ref()?.value.into()),
        otlp: Otlp::Key(&["http.response.status_code", "http.status_code"]),
        ..NO
    },
    Row {
        name: "response.code_details",
        http: "response.response_code_details",
        log: |l| text(&l.response()?.response_code_details),
        otlp: Otlp::Key(&["response_code_details"]),
        ..NO
    },
    Row {
        name: "response.size",
        kind: Type::Int64,
        http: "response.response_body_bytes",
        log: |l| count(l.response()?.response_body_bytes),
        otlp: Otlp::Key(&["http.response.body.size", "response_size"]),
        ..NO
    },
    Row {
        name: "response.total_size",
        kind: Type::Int64,
        http: "response.response_body_bytes + response_headers_bytes",
        log: |l| {
            let response = l.response()?;
            count(
                response
                    .response_body_bytes
                    .saturating_add(response.response_headers_bytes),
            )
        },
        otlp: Otlp::Key(&["http.response.size"]),
        ..NO
    },
    Row {
        name: "response.headers",
        kind: Type::StringMap,
        http: "response.response_headers",
        log: |l| map(&l.response()?.response_headers),
        ..NO
    },
    Row {
        name: "response.trailers",
        kind: Type::StringMap,
        http: "response.response_trailers",
        log: |l| map(&l.response()?.response_trailers),
        ..NO
    },
    Row {
        name: "response.grpc_status",
        http: "trailer or header grpc-status",
        log: |l| text(l.grpc("grpc-status")?),
        otlp: Otlp::Key(&["rpc.grpc.status_code", "rpc.response.status_code", "grpc.status_code"]),
        ..NO
    },
    Row {
        name: "response.grpc_message",
        http: "trailer or header grpc-message",
        log: |l| text(l.grpc("grpc-message")?),
        otlp: Otlp::Key(&["grpc.message"]),
        ..NO
    },
    Row {
        name: "connection.id",
        http: "common.stream_id",
        tcp: "common.stream_id",
        log: |l| text(&l.common.stream_id),
        ..NO
    },
    Row {
        name: "connection.event",
        http: "common.access_log_type: open, continue or close; absent for ordinary entries",
        tcp: "common.access_log_type: open, continue or close",
        log: |l| l.event().map(Value::text),
        ..NO
    },
    Row {
        name: "connection.mtls",
        kind: Type::Bool,
        check: at("whether source.principal is there", |c| {
            Some(Value::Bool(!c.source()?.principal.is_empty()))
        }),
        http: "whether source.principal is there",
        tcp: "whether source.principal is there",
        log: |l| Some(Value::Bool(l.peer().is_some())),
        otlp: Otlp::Key(&["tls.mutual"]),
        ..NO
    },
    Row {
        name: "connection.requested_server_name",
        check: at("tls_session.sni", |c| text(&c.context.tls_session.as_ref()?.sni)),
        http: "common.tls_properties.tls_sni_hostname",
        tcp: "common.tls_properties.tls_sni_hostname",
        log: |l| text(&l.tls()?.tls_sni_hostname),
        otlp: Otlp::Key(&["tls.client.server_name", "tls.server_name"]),
        ..NO
    },
    Row {
        name: "connection.tls_version",
        http: "common.tls_properties.tls_version",
        tcp: "common.tls_properties.tls_version",
        log: |l| {
            Some(Value::text(match TlsVersion::try_from(l.tls()?.tls_version).ok()? {
                TlsVersion::VersionUnspecified => return None,
                TlsVersion::TlSv1 => "TLSv1",
                TlsVersion::TlSv11 => "TLSv1.1",
                TlsVersion::TlSv12 => "TLSv1.2",
                TlsVersion::TlSv13 => "TLSv1.3",
            }))
        },
        otlp: Otlp::Key(&["tls.protocol.version"]),
        ..NO
    },
    Row {
        name: "connection.duration",
        kind: Type::Duration,
        tcp: "common.duration, else time_to_last_downstream_tx_byte",
        log: |l| match l.http {
            Some(_) => None,
            None => l.duration(),
        },
        ..NO
    },
    Row {
        name: "connection.received.bytes_total",
        kind: Type::Int64,
        tcp: "connection_properties.received_bytes",
        log: |l| count(l.connection.as_ref()?.received_bytes),
        ..NO
    },
    Row {
        name: "connection.sent.bytes_total",
        kind: Type::Int64,
        tcp: "connection_properties.sent_bytes",
        log: |l| count(l.connection.as_ref()?.sent_bytes),
        ..NO
    },
    Row {
        name: "connection.received.bytes",
        kind: Type::Int64,
        tcp: "the same, since the connection's last entry",
        log: |l| Some(Value::Int(l.since_last?.0)),
        ..NO
    },
    Row {
        name: "connection.sent.bytes",
        kind: Type::Int64,
        tcp: "the same, since the connection's last entry",
        log: |l| Some(Value::Int(l.since_last?.1)),
        ..NO
    },
    Row {
        name: "connection.termination_details",
        http: "common.connection_termination_details",
        tcp: "common.connection_termination_details",
        log: |l| text(&l.common.connection_termination_details),
        ..NO
    },
    Row {
        name: "connection.transport_failure_reason",
        http: "common.downstream_transport_failure_reason",
        tcp: "common.downstream_transport_failure_reason",
        log: |l| text(&l.common.downstream_transport_failure_reason),
        ..NO
    },
    Row {
        name: "upstream.address",
        http: "common.upstream_remote_address, with its port",
        tcp: "common.upstream_remote_address, with its port",
        log: |l| {
            owned(logged::endpoint(super::socket(
                l.common.upstream_remote_address.as_ref(),
            )?))
        },
        ..NO
    },
    Row {
        name: "upstream.transport_failure_reason",
        http: "common.upstream_transport_failure_reason",
        tcp: "common.upstream_transport_failure_reason",
        log: |l| text(&l.common.upstream_transport_failure_reason),
        ..NO
    },
    Row {
        name: "upstream.request_attempt_count",
        kind: Type::Int64,
        http: "common.upstream_request_attempt_count",
        tcp: "common.upstream_request_attempt_count",
        log: |l| match l.common.upstream_request_attempt_count {
            0 => None,
            attempts => count(attempts.into()),
        },
        otlp: Otlp::Key(&["http.request.resend_count"]),
        ..NO
    },
    Row {
        name: "xds.cluster_name",
        http: "common.upstream_cluster",
        tcp: "common.upstream_cluster",
        log: |l| text(&l.common.upstream_cluster),
        otlp: Otlp::Key(&["upstream_cluster"]),
        ..NO
    },
    Row {
        name: "xds.route_name",
        http: "common.route_name",
        tcp: "common.route_name",
        log: |l| text(&l.common.route_name),
        ..NO
    },
    Row {
        name: "xds.route_metadata",
        kind: Type::StringMap,
        check: at("route_metadata_context, by namespace/key.key", |c| c.route_metadata()),
        ..NO
    },
    Row {
        name: "context.metadata",
        kind: Type::StringMap,
        check: at("metadata_context, by namespace/key.key", |c| c.metadata()),
        http: "common.metadata, by namespace/key.key",
        tcp: "common.metadata, by namespace/key.key",
        log: |l| l.metadata(),
        ..NO
    },
    Row {
        name: "context.protocol",
        check: at("http, grpc by the content type, else tcp", |c| {
            Some(Value::text(match c.http() {
                Some(_) => protocol(c.header("content-type")),
                None => "tcp",
            }))
        }),
        http: "http, grpc by the content type or status",
        tcp: "tcp",
        log: |l| Some(Value::text(l.protocol())),
        otlp: Otlp::Field("otlp"),
        ..NO
    },
    Row {
        name: "context.time",
        kind: Type::Timestamp,
        check: at("request.time", time),
        http: "common.start_time",
        tcp: "common.start_time",
        log: |l| l.time(),
        otlp: Otlp::Field("a span's start, a log record's time"),
        ..NO
    },
    Row {
        name: "context.proxy_error_code",
        http: "common.response_flags, short names with commas",
        tcp: "common.response_flags, short names with commas",
        log: |l| text(l.flags()),
        otlp: Otlp::Key(&["response.flags", "response_flags"]),
        ..NO
    },
    Row {
        name: "context.proxy_version",
        http: "identifier.node, its version",
        tcp: "identifier.node, its version",
        log: |l| text(&l.reporter().version),
        ..NO
    },
    Row {
        name: "context.reporter.uid",
        http: "identifier.node.id",
        tcp: "identifier.node.id",
        log: |l| text(&l.reporter().uid),
        ..NO
    },
    Row {
        name: "context.reporter.kind",
        check: at(
            "context_extensions, else inbound where the caller has an identity",
            |c| text(c.reporter_kind()?),
        ),
        limit: Limit::Itself(at("an entry, else inbound where the caller has an identity", |l| {
            text(l.reporter_kind()?)
        })),
        otlp: Otlp::Field("outbound: the sender's namespace counts"),
        ..NO
    },
    Row {
        name: "api.protocol",
        otlp: Otlp::Key(&["rpc.system", "rpc.system.name", "network.protocol.name"]),
        ..NO
    },
    Row {
        name: "api.service",
        otlp: Otlp::Key(&["rpc.service"]),
        ..NO
    },
    Row {
        name: "api.operation",
        otlp: Otlp::Key(&["rpc.method", "http.route"]),
        ..NO
    },
    Row {
        name: "check.decision_id",
        http: "metadata envoy.filters.http.ext_authz: decision_id",
        tcp: "metadata envoy.filters.network.ext_authz: decision_id",
        log: |l| owned(l.decision("decision_id")?),
        ..NO
    },
    Row {
        name: "check.rule",
        http: "the same: rule",
        tcp: "the same: rule",
        log: |l| owned(l.decision("rule")?),
        ..NO
    },
    Row {
        name: "check.error_code",
        kind: Type::Int64,
        http: "the same: code",
        tcp: "the same: code",
        log: |l| l.decision("code")?.parse().ok().map(Value::Int),
        ..NO
    },
    Row {
        name: "check.error_message",
        http: "the same: message",
        tcp: "the same: message",
        log: |l| owned(l.decision("message")?),
        ..NO
    },
    Row {
        name: "ratelimit.domain",
        limit: Limit::Itself(at("domain", |l| text(&l.domain))),
        ..NO
    },
    Row {
        name: "ratelimit.descriptor",
        kind: Type::StringMap,
        limit: Limit::Itself(at("descriptors.entries; of a key that comes twice the first", |l| {
            map(&l.entries)
        })),
        ..NO
    },
    Row {
        name: "ratelimit.hits",
        kind: Type::Int64,
        limit: Limit::Itself(at("descriptors.hits_addend, else hits_addend, else 1", |l| {
            Some(Value::Int(l.hits))
        })),
        ..NO
    },
    Row {
        name: "otlp.signal",
        otlp: Otlp::Field("traces, metrics or logs"),
        ..NO
    },
    Row {
        name: "otlp.item",
        otlp: Otlp::Field("span or log; absent for a whole resource"),
        ..NO
    },
    Row {
        name: "otlp.name",
        otlp: Otlp::Field("a span's name, a log record's event name"),
        ..NO
    },
    Row {
        name: "otlp.severity",
        otlp: Otlp::Field("a log record's severity text"),
        ..NO
    },
    Row {
        name: "otlp.body",
        otlp: Otlp::Field("a log record's body, where it is text"),
        ..NO
    },
    Row {
        name: "otlp.attributes",
        kind: Type::StringMap,
        otlp: Otlp::Field("all attributes of the resource and, over them, the item"),
        ..NO
    },
    Row {
        name: "meshwright.trace.id",
        otlp: Otlp::Field("the item's trace_id"),
        ..NO
    },
    Row {
        name: "meshwright.span.id",
        otlp: Otlp::Field("the item's span_id"),
        ..NO
    },
];

fn time(checked: &Checked) -> Option<Value<'_>> {
    let time = checked.context.request.as_ref()?.time.as_ref()?;
    Some(Value::Time(logged::moment(time)))
}

/// The table of docs/attributes.md.
pub(crate) fn document() -> String {
    let mut document = String::from(
        "| attribute | type | ext_authz | access log, HTTP | access log, TCP | rate limit | OTLP |\n|---|---|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let limit = match &row.limit {
            Limit::Nowhere => String::new(),
            Limit::Entry(keys) => format!("entry {}", keys.join(", ")),
            Limit::Itself(column) => column.from.to_owned(),
        };
        let otlp = match &row.otlp {
            Otlp::Nowhere => String::new(),
            Otlp::Key(keys) => keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
            Otlp::Field(field) => (*field).to_owned(),
        };
        let (name, kind) = (row.name, row.kind.as_str_name());
        let columns = [row.check.from, row.http, row.tcp, &limit, &otlp].join(" | ");
        document += &format!("| `{name}` | {kind} | {columns} |\n");
    }
    document
}

#[cfg(test)]
mod tests;
