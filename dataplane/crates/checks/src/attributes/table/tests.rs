//! Walks the table: every row is made by a real message, and no row that a message doesn't have.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::address::Address as Form;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, Metadata, Node, SocketAddress};
use envoy_types::pb::envoy::data::accesslog::v3 as log;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Duration, Struct, Timestamp, UInt32Value, Value as Any};
use log::tls_properties::CertificateProperties;
use log::tls_properties::certificate_properties::SubjectAltName;
use log::tls_properties::certificate_properties::subject_alt_name::San;
use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value as Plain;
use meshwright_policy::Attributes;

use super::*;
use crate::attributes::logged::Reporter;
use crate::attributes::telemetry::{self, Texts};
use crate::otlp::writer;

const SHOP: &str = "spiffe://mesh.local/ns/demo/sa/shop";
const CATALOG: &str = "spiffe://mesh.local/ns/store/sa/catalog";

type Told = BTreeMap<&'static str, String>;

fn told(rows: impl Iterator<Item = (&'static str, Type, Option<Plain>)>) -> Told {
    let found = rows.filter_map(|(name, kind, value)| {
        let value = value?;
        assert!(is(&value, kind), "{name} is {value:?}");
        Some((name, text(value)))
    });
    found.collect()
}

fn is(value: &Plain, kind: Type) -> bool {
    match value {
        Plain::StringValue(_) => kind == Type::String,
        Plain::Int64Value(_) => kind == Type::Int64,
        Plain::DoubleValue(_) => kind == Type::Double,
        Plain::BoolValue(_) => kind == Type::Bool,
        Plain::BytesValue(_) => kind == Type::IpAddress,
        Plain::TimestampValue(_) => kind == Type::Timestamp,
        Plain::DurationValue(_) => kind == Type::Duration,
        Plain::StringMapValue(_) => kind == Type::StringMap,
    }
}

fn text(value: Plain) -> String {
    match value {
        Plain::StringValue(text) => text,
        Plain::Int64Value(number) => number.to_string(),
        Plain::DoubleValue(number) => number.to_string(),
        Plain::BoolValue(value) => value.to_string(),
        Plain::BytesValue(bytes) => {
            let octets: [u8; 4] = bytes.as_ref().try_into().expect("IPv4");
            IpAddr::from(octets).to_string()
        }
        Plain::TimestampValue(time) => format!("{}.{:03}", time.seconds, time.nanos / 1_000_000),
        Plain::DurationValue(duration) => format!("{}.{:03}s", duration.seconds, duration.nanos / 1_000_000),
        Plain::StringMapValue(map) => {
            let sorted: BTreeMap<_, _> = map.entries.into_iter().collect();
            let pairs: Vec<_> = sorted.iter().map(|(key, value)| format!("{key}={value}")).collect();
            pairs.join(" ")
        }
    }
}

fn plain(value: Value<'_>) -> Option<Plain> {
    let mut attributes = Attributes::new();
    crate::attributes::plain::set(&mut attributes, "x", value);
    attributes.remove("x")?.value
}

/// What is expected of a column, compared with what came and with what the document says.
fn compare(column: &str, found: Told, documented: impl Fn(&Row) -> bool, expected: &[(&'static str, &str)]) {
    let expected: Told = expected
        .iter()
        .map(|(name, text)| (*name, (*text).to_owned()))
        .collect();
    assert_eq!(found, expected, "{column}");
    let documented: Vec<_> = ROWS.iter().filter(|row| documented(row)).map(|row| row.name).collect();
    for name in &documented {
        assert!(
            expected.contains_key(name),
            "{column}: {name} is documented, and no message has it"
        );
    }
    for name in expected.keys() {
        assert!(documented.contains(name), "{column}: {name} isn't documented");
    }
}

fn address(ip: &str, port: u32) -> Option<Address> {
    Some(Address {
        address: Some(Form::SocketAddress(SocketAddress {
            address: ip.into(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    })
}

fn any(text: &str) -> Any {
    Any {
        kind: Some(Kind::StringValue(text.into())),
    }
}

fn fields<const N: usize>(fields: [(&str, Any); N]) -> Struct {
    Struct {
        fields: fields.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

fn metadata(authorizer: &str) -> Option<Metadata> {
    let token = fields([
        ("iss", any("https://id")),
        ("sub", any("ann")),
        ("aud", any("shop")),
        ("azp", any("app")),
    ]);
    let token = Any {
        kind: Some(Kind::StructValue(token)),
    };
    let decision = fields([
        ("decision_id", any("a1-7")),
        ("rule", any("deny.mesh")),
        (
            "code",
            Any {
                kind: Some(Kind::NumberValue(7.0)),
            },
        ),
        ("message", any("no")),
    ]);
    Some(Metadata {
        filter_metadata: HashMap::from([
            ("envoy.filters.http.jwt_authn".to_owned(), fields([("payload", token)])),
            (authorizer.to_owned(), decision),
        ]),
        ..Default::default()
    })
}

const FLAT: &str = "envoy.filters.http.jwt_authn/payload.aud=shop envoy.filters.http.jwt_authn/payload.azp=app \
    envoy.filters.http.jwt_authn/payload.iss=https://id envoy.filters.http.jwt_authn/payload.sub=ann";

#[test]
fn ext_authz() {
    let peer = |ip: &str, port, principal: &str| {
        Some(Peer {
            address: address(ip, port),
            service: format!("service-{port}"),
            labels: [("app".to_owned(), port.to_string())].into(),
            principal: principal.into(),
            ..Default::default()
        })
    };
    let headers = [("user-agent", "curl"), ("referer", "/from"), ("x-request-id", "r-1")];
    let http = HttpRequest {
        id: "1".into(),
        method: "GET".into(),
        headers: headers.map(|(name, value)| (name.into(), value.into())).into(),
        path: "/a?b=c%20d".into(),
        host: "catalog".into(),
        scheme: "https".into(),
        size: 12,
        protocol: "HTTP/2".into(),
        body: "hello".into(),
        ..Default::default()
    };
    let mut token = metadata("envoy.filters.http.ext_authz").unwrap();
    token.filter_metadata.remove("envoy.filters.http.ext_authz");
    let context = AttributeContext {
        source: peer("10.0.0.1", 4000, SHOP),
        destination: peer("10.0.0.2", 80, CATALOG),
        request: Some(Request {
            time: Some(Timestamp { seconds: 100, nanos: 0 }),
            http: Some(http),
        }),
        metadata_context: Some(token),
        route_metadata_context: Some(Metadata {
            filter_metadata: [("team".to_owned(), fields([("owner", any("ops"))]))].into(),
            ..Default::default()
        }),
        tls_session: Some(TlsSession { sni: "catalog".into() }),
        ..Default::default()
    };
    let mut checked = Checked::new(context, None);
    checked.caller = Some(CATALOG.into());
    let found = told(
        ROWS.iter()
            .map(|row| (row.name, row.kind, (row.check.read)(&checked).and_then(plain))),
    );
    compare(
        "ext_authz",
        found,
        |row| !row.check.from.is_empty(),
        &[
            ("source.ip", "10.0.0.1"),
            ("source.port", "4000"),
            ("source.principal", SHOP),
            ("source.user", SHOP),
            ("source.namespace", "demo"),
            ("source.serviceAccount", "shop"),
            ("source.service", "service-4000"),
            ("source.labels", "app=4000"),
            ("destination.ip", "10.0.0.2"),
            ("destination.port", "80"),
            ("destination.principal", CATALOG),
            ("destination.namespace", "store"),
            ("destination.service", "service-80"),
            ("destination.labels", "app=80"),
            ("request.time", "100.000"),
            ("request.id", "r-1"),
            ("request.method", "GET"),
            ("request.path", "/a?b=c%20d"),
            ("request.url_path", "/a"),
            ("request.query", "b=c%20d"),
            ("request.query_params", "b=c d"),
            ("request.host", "catalog"),
            ("request.scheme", "https"),
            ("request.protocol", "HTTP/2"),
            ("request.useragent", "curl"),
            ("request.referer", "/from"),
            ("request.headers", "referer=/from user-agent=curl x-request-id=r-1"),
            ("request.size", "12"),
            ("request.body", "hello"),
            ("request.auth.principal", "https://id/ann"),
            ("request.auth.audiences", "shop"),
            ("request.auth.presenter", "app"),
            ("request.auth.claims", "aud=shop azp=app iss=https://id sub=ann"),
            (
                "request.auth.raw_claims",
                r#"{"aud":"shop","azp":"app","iss":"https://id","sub":"ann"}"#,
            ),
            ("connection.mtls", "true"),
            ("connection.requested_server_name", "catalog"),
            ("xds.route_metadata", "team/owner=ops"),
            ("context.metadata", FLAT),
            ("context.protocol", "http"),
            ("context.time", "100.000"),
            ("context.reporter.kind", "inbound"),
        ],
    );
}

fn common(authorizer: &str, kind: log::AccessLogType) -> Option<log::AccessLogCommon> {
    let certificate = |id: &str| {
        Some(CertificateProperties {
            subject_alt_name: vec![SubjectAltName {
                san: Some(San::Uri(id.into())),
            }],
            ..Default::default()
        })
    };
    let span = |millis: i32| {
        Some(Duration {
            seconds: 0,
            nanos: millis * 1_000_000,
        })
    };
    Some(log::AccessLogCommon {
        downstream_remote_address: address("10.0.0.1", 4000),
        downstream_local_address: address("10.0.0.2", 80),
        tls_properties: Some(log::TlsProperties {
            tls_version: log::tls_properties::TlsVersion::TlSv13.into(),
            tls_sni_hostname: "catalog".into(),
            local_certificate_properties: certificate(CATALOG),
            peer_certificate_properties: certificate(SHOP),
            ..Default::default()
        }),
        start_time: Some(Timestamp {
            seconds: 100,
            nanos: 900_000_000,
        }),
        time_to_first_upstream_rx_byte: span(200),
        duration: span(300),
        upstream_remote_address: address("127.0.0.1", 8080),
        upstream_cluster: "local".into(),
        response_flags: Some(log::ResponseFlags {
            upstream_request_timeout: true,
            rate_limited: true,
            ..Default::default()
        }),
        metadata: metadata(authorizer),
        upstream_transport_failure_reason: "refused".into(),
        route_name: "all".into(),
        upstream_request_attempt_count: 2,
        connection_termination_details: "idle".into(),
        stream_id: "s-1".into(),
        downstream_transport_failure_reason: "tls".into(),
        access_log_type: kind.into(),
        ..Default::default()
    })
}

fn reporter() -> Arc<Reporter> {
    Arc::new(Reporter::new(&Node {
        id: "proxy-1".into(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion("1.40".into())),
        ..Default::default()
    }))
}

/// What both kinds of entries have.
fn shared(filter: &str) -> Vec<(&'static str, String)> {
    let rows = [
        ("source.ip", "10.0.0.1"),
        ("source.port", "4000"),
        ("source.principal", SHOP),
        ("source.user", SHOP),
        ("source.namespace", "demo"),
        ("source.serviceAccount", "shop"),
        ("destination.ip", "10.0.0.2"),
        ("destination.port", "80"),
        ("destination.principal", CATALOG),
        ("connection.id", "s-1"),
        ("connection.event", "continue"),
        ("connection.mtls", "true"),
        ("connection.requested_server_name", "catalog"),
        ("connection.tls_version", "TLSv1.3"),
        ("connection.termination_details", "idle"),
        ("connection.transport_failure_reason", "tls"),
        ("upstream.address", "127.0.0.1:8080"),
        ("upstream.transport_failure_reason", "refused"),
        ("upstream.request_attempt_count", "2"),
        ("xds.cluster_name", "local"),
        ("xds.route_name", "all"),
        ("context.time", "100.900"),
        ("context.proxy_error_code", "UT,RL"),
        ("context.proxy_version", "1.40"),
        ("context.reporter.uid", "proxy-1"),
        ("check.decision_id", "a1-7"),
        ("check.rule", "deny.mesh"),
        ("check.error_code", "7"),
        ("check.error_message", "no"),
    ];
    let decision = format!("{filter}/code=7 {filter}/decision_id=a1-7 {filter}/message=no {filter}/rule=deny.mesh");
    let flat = match filter < "envoy.filters.http.jwt_authn" {
        true => format!("{decision} {FLAT}"),
        false => format!("{FLAT} {decision}"),
    };
    let mut rows: Vec<_> = rows.map(|(name, text)| (name, text.to_owned())).into();
    rows.push(("context.metadata", flat));
    rows
}

fn logged(entry: &Logged) -> Told {
    told(
        ROWS.iter()
            .map(|row| (row.name, row.kind, (row.log)(entry).and_then(plain))),
    )
}

#[test]
fn access_log_http() {
    let headers = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        pairs.collect()
    };
    let filter = "envoy.filters.http.ext_authz";
    let entry = log::HttpAccessLogEntry {
        common_properties: common(filter, log::AccessLogType::DownstreamPeriodic),
        protocol_version: log::http_access_log_entry::HttpVersion::Http2.into(),
        request: Some(log::HttpRequestProperties {
            request_method: 3,
            scheme: "https".into(),
            authority: "catalog".into(),
            path: "/rewritten".into(),
            original_path: "/a?b=c%20d".into(),
            user_agent: "curl".into(),
            referer: "/from".into(),
            request_id: "r-1".into(),
            request_headers_bytes: 10,
            request_body_bytes: 20,
            request_headers: headers(&[("content-type", "application/grpc")]),
            ..Default::default()
        }),
        response: Some(log::HttpResponseProperties {
            response_code: Some(UInt32Value { value: 200 }),
            response_headers_bytes: 30,
            response_body_bytes: 40,
            response_headers: headers(&[("server", "x")]),
            response_trailers: headers(&[("grpc-status", "7"), ("grpc-message", "no")]),
            response_code_details: "via_upstream".into(),
            ..Default::default()
        }),
    };
    let entry = Logged::http(entry, &reporter());
    let mut expected = shared(filter);
    let rows = [
        ("request.time", "100.900"),
        ("request.id", "r-1"),
        ("request.method", "POST"),
        ("request.path", "/a?b=c%20d"),
        ("request.url_path", "/a"),
        ("request.query", "b=c%20d"),
        ("request.query_params", "b=c d"),
        ("request.host", "catalog"),
        ("request.scheme", "https"),
        ("request.protocol", "HTTP/2"),
        ("request.useragent", "curl"),
        ("request.referer", "/from"),
        ("request.headers", "content-type=application/grpc"),
        ("request.size", "20"),
        ("request.total_size", "30"),
        ("request.auth.principal", "https://id/ann"),
        ("request.auth.audiences", "shop"),
        ("request.auth.presenter", "app"),
        ("request.auth.claims", "aud=shop azp=app iss=https://id sub=ann"),
        (
            "request.auth.raw_claims",
            r#"{"aud":"shop","azp":"app","iss":"https://id","sub":"ann"}"#,
        ),
        ("response.time", "101.100"),
        ("response.duration", "0.300s"),
        ("response.code", "200"),
        ("response.code_details", "via_upstream"),
        ("response.size", "40"),
        ("response.total_size", "70"),
        ("response.headers", "server=x"),
        ("response.trailers", "grpc-message=no grpc-status=7"),
        ("response.grpc_status", "7"),
        ("response.grpc_message", "no"),
        ("context.protocol", "grpc"),
    ];
    expected.extend(rows.map(|(name, text)| (name, text.to_owned())));
    let expected: Vec<_> = expected.iter().map(|(name, text)| (*name, text.as_str())).collect();
    compare(
        "access log, HTTP",
        logged(&entry),
        |row| !row.http.is_empty(),
        &expected,
    );
}

#[test]
fn access_log_tcp() {
    let filter = "envoy.filters.network.ext_authz";
    let mut common = common(filter, log::AccessLogType::TcpPeriodic);
    // No token comes over TCP.
    let metadata = common.as_mut().and_then(|common| common.metadata.as_mut());
    metadata.unwrap().filter_metadata.remove("envoy.filters.http.jwt_authn");
    let entry = log::TcpAccessLogEntry {
        common_properties: common,
        connection_properties: Some(log::ConnectionProperties {
            received_bytes: 100,
            sent_bytes: 200,
        }),
    };
    let mut entry = Logged::tcp(entry, &reporter());
    entry.since_last = Some((10, 20));
    let mut expected = shared(filter);
    expected.pop();
    let rows = [
        ("connection.duration", "0.300s"),
        ("connection.received.bytes_total", "100"),
        ("connection.sent.bytes_total", "200"),
        ("connection.received.bytes", "10"),
        ("connection.sent.bytes", "20"),
        ("context.protocol", "tcp"),
        (
            "context.metadata",
            "envoy.filters.network.ext_authz/code=7 envoy.filters.network.ext_authz/decision_id=a1-7 \
             envoy.filters.network.ext_authz/message=no envoy.filters.network.ext_authz/rule=deny.mesh",
        ),
    ];
    expected.extend(rows.map(|(name, text)| (name, text.to_owned())));
    let expected: Vec<_> = expected.iter().map(|(name, text)| (*name, text.as_str())).collect();
    compare("access log, TCP", logged(&entry), |row| !row.tcp.is_empty(), &expected);
}

#[test]
fn rate_limit() {
    let entries = [("source_cluster", "shop"), ("destination_cluster", "catalog")]
        .into_iter()
        .chain([("remote_address", "10.0.0.1"), ("method", "GET"), ("path", "/a")])
        .map(|(key, value)| Entry {
            key: key.into(),
            value: value.into(),
        });
    let limited = Limited::new("edge".into(), entries.collect(), 3, Some(CATALOG.into()));
    let found = told(ROWS.iter().map(|row| {
        let value = match &row.limit {
            Limit::Nowhere => None,
            Limit::Entry(keys) => keys
                .iter()
                .find_map(|key| limited.entry(key))
                .and_then(|text| super::super::given::value(text, row.kind)),
            Limit::Itself(column) => (column.read)(&limited),
        };
        (row.name, row.kind, value.and_then(plain))
    }));
    compare(
        "rate limit",
        found,
        |row| !matches!(row.limit, Limit::Nowhere),
        &[
            ("source.ip", "10.0.0.1"),
            ("source.service", "shop"),
            ("destination.service", "catalog"),
            ("destination.namespace", "store"),
            ("request.method", "GET"),
            ("request.url_path", "/a"),
            ("context.reporter.kind", "inbound"),
            ("ratelimit.domain", "edge"),
            (
                "ratelimit.descriptor",
                "destination_cluster=catalog method=GET path=/a remote_address=10.0.0.1 source_cluster=shop",
            ),
            ("ratelimit.hits", "3"),
        ],
    );
}

#[test]
fn otlp() {
    for row in ROWS {
        let Otlp::Key(keys) = &row.otlp else { continue };
        let sample = match row.kind {
            Type::Int64 => "404",
            Type::Bool => "true",
            Type::IpAddress => "10.0.0.1",
            _ => "text",
        };
        for key in *keys {
            let pair = writer::text_attribute(key, sample);
            let mut texts = Texts::default();
            texts.add([&pair[..]].into_iter());
            let mut attributes = texts.attributes("logs", None);
            let value = attributes.remove(row.name).and_then(|value| value.value);
            let value = value.unwrap_or_else(|| panic!("{} of {key}", row.name));
            assert!(is(&value, row.kind), "{} of {key}", row.name);
            assert_eq!(text(value), sample);
        }
    }
    let resource = [
        writer::text_attribute("k8s.pod.label.app", "shop"),
        writer::text_attribute("source.principal", "spiffe://mesh.local/ns/other/sa/forged"),
    ];
    let mut texts = Texts::default();
    texts.add(resource.iter().map(|pair| &pair[..]));
    let mut span = Vec::new();
    writer::bytes(&mut span, 1, &[0xab; 16]);
    writer::bytes(&mut span, 2, &[0xcd; 8]);
    writer::bytes(&mut span, 5, b"GET /a");
    span.extend([7 << 3 | 1].into_iter().chain(1_500_000_000u64.to_le_bytes()));
    span.extend([8 << 3 | 1].into_iter().chain(1_800_000_000u64.to_le_bytes()));
    let mut attributes = texts.attributes("traces", Some(SHOP));
    telemetry::span(&mut attributes, &span);
    let mut record = Vec::new();
    let mut body = Vec::new();
    writer::bytes(&mut body, 1, b"it works");
    writer::bytes(&mut record, 3, b"INFO");
    writer::bytes(&mut record, 5, &body);
    let mut only_logs = Attributes::new();
    telemetry::log(&mut only_logs, &record);
    only_logs.remove("otlp.item");
    attributes.extend(only_logs);
    let found = told(ROWS.iter().filter(|row| matches!(row.otlp, Otlp::Field(_))).map(|row| {
        let value = attributes.get(row.name).and_then(|value| value.value.clone());
        (row.name, row.kind, value)
    }));
    compare(
        "OTLP",
        found,
        |row| matches!(row.otlp, Otlp::Field(_)),
        &[
            ("source.principal", SHOP),
            ("source.user", SHOP),
            ("source.namespace", "demo"),
            ("source.serviceAccount", "shop"),
            ("source.labels", "app=shop"),
            ("request.time", "1.500"),
            ("response.duration", "0.300s"),
            ("context.protocol", "otlp"),
            ("context.time", "1.500"),
            ("context.reporter.kind", "outbound"),
            ("otlp.signal", "traces"),
            ("otlp.item", "span"),
            ("otlp.name", "GET /a"),
            ("otlp.severity", "INFO"),
            ("otlp.body", "it works"),
            (
                "otlp.attributes",
                "k8s.pod.label.app=shop source.principal=spiffe://mesh.local/ns/other/sa/forged",
            ),
            ("meshwright.trace.id", "abababababababababababababababab"),
            ("meshwright.span.id", "cdcdcdcdcdcdcdcd"),
        ],
    );
}

#[test]
fn names_come_once_and_the_document_has_the_table() {
    let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/attributes.md");
    let text = std::fs::read_to_string(path).expect(path);
    let (begin, end) = ("<!-- table: begin -->\n", "<!-- table: end -->");
    let start = text.find(begin).expect("where the table begins") + begin.len();
    let stop = text.find(end).expect("where the table ends");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, format!("{}{}{}", &text[..start], document(), &text[stop..])).expect(path);
        return;
    }
    assert!(
        text[start..stop] == document(),
        "docs/attributes.md: run UPDATE_GOLDEN=1 cargo test -p meshwright-checks"
    );
}
