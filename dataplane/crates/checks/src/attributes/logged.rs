//! Reads an entry of Envoy's access log, HTTP or TCP.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::CertificateProperties;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::certificate_properties::subject_alt_name::San;
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties,
    HttpResponseProperties, TcpAccessLogEntry, TlsProperties,
};
use envoy_types::pb::google::protobuf::{Duration, Timestamp};
use meshwright_policy::{Attributes, Time, Value};

use super::metadata::{self, Claims};
use super::{checked, flags, given, plain, query, table};

/// Envoy's filters leave mixer's answer under the one of their names that asked.
const AUTHORIZERS: [&str; 2] = ["envoy.filters.http.ext_authz", "envoy.filters.network.ext_authz"];

/// One entry.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    pub(super) common: AccessLogCommon,
    pub(super) http: Option<HttpAccessLogEntry>,
    pub(super) connection: Option<ConnectionProperties>,
    is_tcp: bool,
    /// Who logs.
    reporter: Arc<Reporter>,
    /// What a connection received and sent since its last entry.
    pub(crate) since_last: Option<(i64, i64)>,
    query: OnceLock<HashMap<String, String>>,
    claims: OnceLock<Option<Claims>>,
    metadata: OnceLock<HashMap<String, String>>,
    flags: OnceLock<String>,
}

/// The proxy behind a stream, from its first message.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    pub(super) uid: String,
    pub(super) version: String,
}

impl Reporter {
    pub(crate) fn new(node: &Node) -> Self {
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => match &build.version {
                Some(version) => format!("{}.{}.{}", version.major_number, version.minor_number, version.patch),
                None => String::new(),
            },
            None => String::new(),
        };
        Reporter {
            uid: node.id.clone(),
            version,
        }
    }
}

impl Logged {
    pub(crate) fn http(mut entry: HttpAccessLogEntry, reporter: &Arc<Reporter>) -> Self {
        Logged {
            common: entry.common_properties.take().unwrap_or_default(),
            http: Some(entry),
            reporter: reporter.clone(),
            ..Logged::default()
        }
    }

    pub(crate) fn tcp(entry: TcpAccessLogEntry, reporter: &Arc<Reporter>) -> Self {
        Logged {
            common: entry.common_properties.unwrap_or_default(),
            connection: entry.connection_properties,
            is_tcp: true,
            reporter: reporter.clone(),
            ..Logged::default()
        }
    }

    /// Everything that the entry tells. What the proxy's configuration gives by name comes first, what Envoy saw on the
    /// wire replaces it.
    pub(crate) fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        let metadata = metadata::attributes(self.common.metadata.as_ref());
        let named = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let tags = self.common.custom_tags.iter();
        let tags = tags.map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, text) in named.clone().chain(tags.clone()) {
            if let Some(value) = given::value(text, table::kind(name)) {
                plain::set(&mut attributes, name, value);
            }
        }
        for (name, entries) in given::maps(named.chain(tags)) {
            plain::set_map(&mut attributes, name, entries);
        }
        let namespaces = ["destination.workload.namespace", "destination.service.namespace"];
        if !attributes.contains_key("destination.namespace")
            && let Some(namespace) = namespaces.iter().find_map(|name| attributes.get(*name).cloned())
        {
            attributes.insert("destination.namespace".to_owned(), namespace);
        }
        for row in table::ROWS {
            if let Some(value) = (row.log)(self) {
                plain::set(&mut attributes, row.name, value);
            }
        }
        attributes
    }

    pub(super) fn request(&self) -> Option<&HttpRequestProperties> {
        self.http.as_ref()?.request.as_ref()
    }

    pub(super) fn response(&self) -> Option<&HttpResponseProperties> {
        self.http.as_ref()?.response.as_ref()
    }

    /// The path that came: Envoy's is the one that it routed by.
    pub(super) fn path(&self) -> Option<&str> {
        let request = self.request()?;
        Some(match request.original_path.as_str() {
            "" => &request.path,
            original => original,
        })
    }

    pub(super) fn query(&self) -> Option<&HashMap<String, String>> {
        let path = self.path()?;
        Some(self.query.get_or_init(|| query::parameters(path)))
    }

    /// A gRPC status travels in the trailers, or in the headers of an answer without a message.
    pub(super) fn grpc(&self, name: &str) -> Option<&str> {
        let response = self.response()?;
        let found = response.response_trailers.get(name);
        found.or(response.response_headers.get(name)).map(String::as_str)
    }

    pub(super) fn protocol(&self) -> &'static str {
        if self.is_tcp {
            return "tcp";
        }
        let content_type = self
            .request()
            .and_then(|request| request.request_headers.get("content-type"));
        match self.grpc("grpc-status") {
            Some(_) => "grpc",
            None => super::protocol(content_type.map(String::as_str)),
        }
    }

    pub(super) fn tls(&self) -> Option<&TlsProperties> {
        self.common.tls_properties.as_ref()
    }

    /// The SPIFFE ID of who called, over mutual TLS.
    pub(super) fn peer(&self) -> Option<&str> {
        uri(self.tls()?.peer_certificate_properties.as_ref()?)
    }

    pub(super) fn local(&self) -> Option<&str> {
        uri(self.tls()?.local_certificate_properties.as_ref()?)
    }

    /// Envoy's duration of the whole; older ones tell only when the last byte went downstream.
    pub(super) fn duration(&self) -> Option<Value<'_>> {
        let common = &self.common;
        let duration = common.duration.as_ref();
        duration
            .or(common.time_to_last_downstream_tx_byte.as_ref())
            .map(span)
            .map(Value::Duration)
    }

    pub(super) fn time(&self) -> Option<Value<'_>> {
        self.common.start_time.as_ref().map(moment).map(Value::Time)
    }

    /// When the first byte of the response came from upstream.
    pub(super) fn response_time(&self) -> Option<Value<'_>> {
        let Time { seconds, nanos } = moment(self.common.start_time.as_ref()?);
        let after = span(self.common.time_to_first_upstream_rx_byte.as_ref()?);
        let nanos = i64::from(nanos).saturating_add(after);
        let carried = nanos.div_euclid(1_000_000_000);
        let rest = nanos.rem_euclid(1_000_000_000) as i32;
        Some(Value::Time(Time::new(seconds.saturating_add(carried), rest)))
    }

    /// Where a connection, or a stream that is logged while it lasts, stands.
    pub(super) fn event(&self) -> Option<&'static str> {
        match AccessLogType::try_from(self.common.access_log_type).unwrap_or_default() {
            AccessLogType::TcpUpstreamConnected
            | AccessLogType::TcpConnectionStart
            | AccessLogType::DownstreamStart
            | AccessLogType::UpstreamPoolReady
            | AccessLogType::DownstreamTunnelSuccessfullyEstablished
            | AccessLogType::UdpTunnelUpstreamConnected => Some("open"),
            AccessLogType::TcpPeriodic
            | AccessLogType::DownstreamPeriodic
            | AccessLogType::UpstreamPeriodic
            | AccessLogType::UdpPeriodic => Some("continue"),
            AccessLogType::NotSet if !self.is_tcp => None,
            AccessLogType::NotSet if self.is_intermediate() => Some("continue"),
            AccessLogType::NotSet
            | AccessLogType::TcpConnectionEnd
            | AccessLogType::DownstreamEnd
            | AccessLogType::UpstreamEnd
            | AccessLogType::UdpSessionEnd => Some("close"),
        }
    }

    /// What Envoy said before it named the type of an entry.
    #[expect(deprecated)]
    fn is_intermediate(&self) -> bool {
        self.common.intermediate_log_entry
    }

    /// Bytes so far, received and sent; of a connection that is logged.
    pub(crate) fn bytes(&self) -> Option<(&str, i64, i64)> {
        let connection = self.connection.as_ref()?;
        let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (received, sent) = (count(connection.received_bytes), count(connection.sent_bytes));
        Some((&self.common.stream_id, received, sent))
    }

    pub(crate) fn is_last(&self) -> bool {
        self.event() == Some("close")
    }

    pub(super) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    pub(super) fn flags(&self) -> &str {
        let flags = self.common.response_flags.as_ref();
        self.flags.get_or_init(|| flags.map(flags::names).unwrap_or_default())
    }

    pub(super) fn claims(&self) -> Option<&Claims> {
        let metadata = self.common.metadata.as_ref();
        self.claims.get_or_init(|| metadata::claims(metadata)).as_ref()
    }

    pub(super) fn metadata(&self) -> Option<Value<'_>> {
        checked::flat(&self.metadata, self.common.metadata.as_ref())
    }

    /// What mixer answered when this request was checked.
    pub(super) fn decision(&self, name: &str) -> Option<String> {
        let metadata = self.common.metadata.as_ref();
        AUTHORIZERS
            .iter()
            .find_map(|filter| metadata::field(metadata, filter, name))
            .and_then(metadata::flat)
    }
}

/// The first URI of a certificate: the SPIFFE ID, as a workload's certificate has no other.
fn uri(certificate: &CertificateProperties) -> Option<&str> {
    certificate.subject_alt_name.iter().find_map(|name| match &name.san {
        Some(San::Uri(uri)) => Some(uri.as_str()),
        _ => None,
    })
}

pub(super) fn moment(time: &Timestamp) -> Time {
    Time::new(time.seconds, time.nanos)
}

/// In nanoseconds.
fn span(duration: &Duration) -> i64 {
    let seconds = duration.seconds.saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.nanos.into())
}

/// An address as text with its port.
pub(super) fn endpoint((address, port): (IpAddr, i64)) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}
