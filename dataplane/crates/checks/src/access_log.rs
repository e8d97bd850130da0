//! Envoy's access logs as Mixer attributes, one record an entry. While the record queue is full the stream isn't read:
//! HTTP/2's flow control then makes Envoy keep its entries, and drop its own oldest when its buffer is full.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::RequestMethod;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::CertificateProperties;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::certificate_properties::subject_alt_name::San;
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, HttpAccessLogEntry, ResponseFlags, TcpAccessLogEntry,
};
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogService;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value;
use meshwright_api::istio::mixer::v1::attributes::{AttributeValue, StringMap};
use meshwright_api::meshwright::mixer::v1::record::Kind;
use meshwright_policy::Attributes;
use meshwright_serve::{CallContext, Peer};
use tonic::{Request, Response, Status, Streaming};

use crate::attributes;
use crate::counters;
use crate::state::State;

#[derive(Debug)]
pub(crate) struct AccessLog {
    state: Arc<State>,
}

impl AccessLog {
    pub(crate) fn new(state: Arc<State>) -> Self {
        AccessLog { state }
    }

    async fn take(&self, kind: Kind, attributes: Attributes, peer: Option<&Peer>) {
        let state = &self.state;
        counters::add(&state.counters.access_log_entries);
        match state.record(&state.engine.program(), kind, attributes, peer) {
            Ok(Some(record)) => {
                if state.records.is_full_for(&record) {
                    counters::add(&state.counters.access_log_waits);
                }
                state.records.put(record).await;
                counters::add(&state.counters.records_queued);
            }
            Ok(None) => {}
            Err(_) => counters::add(&state.counters.reports_invalid),
        }
    }
}

#[tonic::async_trait]
impl AccessLogService for AccessLog {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let peer = CallContext::of(&request).map(|context| context.peer.clone());
        let mut stream = request.into_inner();
        while let Some(message) = stream.message().await? {
            match message.log_entries {
                Some(LogEntries::HttpLogs(entries)) => {
                    for entry in entries.log_entry {
                        self.take(Kind::HttpAccess, http(entry), peer.as_deref()).await;
                    }
                }
                Some(LogEntries::TcpLogs(entries)) => {
                    for entry in entries.log_entry {
                        self.take(Kind::TcpAccess, tcp(entry), peer.as_deref()).await;
                    }
                }
                None => {}
            }
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

/// Attributes under way; empty text and what isn't there is left out, as absent.
#[derive(Default)]
struct Builder(Attributes);

impl Builder {
    fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), AttributeValue { value: Some(value) });
    }

    fn text(&mut self, name: &str, text: String) {
        if !text.is_empty() {
            self.set(name, Value::StringValue(text));
        }
    }

    fn integer(&mut self, name: &str, value: u64) {
        self.set(name, Value::Int64Value(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn map(&mut self, name: &str, entries: HashMap<String, String>) {
        if !entries.is_empty() {
            self.set(name, Value::StringMapValue(StringMap { entries }));
        }
    }

    fn socket(&mut self, ip: &str, port: &str, socket: Option<(IpAddr, i64)>) {
        if let Some((address, number)) = socket {
            let bytes = match address.to_canonical() {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            self.set(ip, Value::BytesValue(bytes.into()));
            self.set(port, Value::Int64Value(number));
        }
    }

    fn common(&mut self, common: AccessLogCommon) {
        // The manager names its tags as attributes.
        for (name, value) in common.custom_tags {
            if value != "-" {
                self.text(&name, value);
            }
        }
        let namespace = ["destination.workload.namespace", "destination.service.namespace"];
        if !self.0.contains_key("destination.namespace")
            && let Some(namespace) = namespace.iter().find_map(|name| self.0.get(*name).cloned())
        {
            self.0.insert("destination.namespace".to_owned(), namespace);
        }
        self.socket(
            "source.ip",
            "source.port",
            attributes::socket(common.downstream_remote_address.as_ref()),
        );
        self.socket(
            "destination.ip",
            "destination.port",
            attributes::socket(common.downstream_local_address.as_ref()),
        );
        if let Some(tls) = common.tls_properties {
            let (source, destination) = (
                uri(tls.peer_certificate_properties),
                uri(tls.local_certificate_properties),
            );
            self.set("connection.mtls", Value::BoolValue(source.is_some()));
            if let Some(source) = source {
                self.text(
                    "source.namespace",
                    attributes::namespace(&source).unwrap_or_default().to_owned(),
                );
                self.text("source.user", source.clone());
                self.text("source.principal", source);
            }
            self.text("destination.principal", destination.unwrap_or_default());
            self.text("connection.requested_server_name", tls.tls_sni_hostname);
        } else {
            self.set("connection.mtls", Value::BoolValue(false));
        }
        if let Some(time) = common.start_time {
            let time = prost_types::Timestamp {
                seconds: time.seconds,
                nanos: time.nanos,
            };
            self.set("request.time", Value::TimestampValue(time));
            self.set("context.time", Value::TimestampValue(time));
        }
        self.text(
            "context.proxy_error_code",
            common.response_flags.map(flags).unwrap_or_default(),
        );
    }
}

/// Envoy's duration of the whole request; older ones tell only when the last byte went downstream.
fn duration(common: &AccessLogCommon) -> Option<Value> {
    let duration = common
        .duration
        .as_ref()
        .or(common.time_to_last_downstream_tx_byte.as_ref())?;
    Some(Value::DurationValue(prost_types::Duration {
        seconds: duration.seconds,
        nanos: duration.nanos,
    }))
}

fn http(entry: HttpAccessLogEntry) -> Attributes {
    let mut builder = Builder::default();
    let mut protocol = "http";
    if let Some(common) = entry.common_properties {
        if let Some(duration) = duration(&common) {
            builder.set("response.duration", duration);
        }
        builder.common(common);
    }
    if let Some(request) = entry.request {
        let method = RequestMethod::try_from(request.request_method).unwrap_or_default();
        if method != RequestMethod::MethodUnspecified {
            builder.text("request.method", method.as_str_name().to_owned());
        }
        protocol = attributes::protocol(request.request_headers.get("content-type").map(String::as_str));
        // Envoy logs the path that it routed by; the one that came is the caller's.
        let path = if request.original_path.is_empty() {
            request.path
        } else {
            request.original_path
        };
        builder.text("request.url_path", attributes::url_path(&path).to_owned());
        builder.text("request.path", path);
        builder.text("request.host", request.authority);
        builder.text("request.scheme", request.scheme);
        builder.text("request.useragent", request.user_agent);
        builder.text("request.referer", request.referer);
        builder.text("request.id", request.request_id);
        builder.integer("request.size", request.request_body_bytes);
        builder.integer(
            "request.total_size",
            request.request_body_bytes.saturating_add(request.request_headers_bytes),
        );
        builder.map("request.headers", request.request_headers);
    }
    if let Some(response) = entry.response {
        if let Some(code) = response.response_code {
            builder.integer("response.code", code.value.into());
        }
        let grpc = |name: &str| {
            response
                .response_trailers
                .get(name)
                .or(response.response_headers.get(name))
                .cloned()
        };
        if let Some(status) = grpc("grpc-status") {
            protocol = "grpc";
            builder.text("response.grpc_status", status);
        }
        builder.text("response.grpc_message", grpc("grpc-message").unwrap_or_default());
        builder.integer("response.size", response.response_body_bytes);
        builder.integer(
            "response.total_size",
            response
                .response_body_bytes
                .saturating_add(response.response_headers_bytes),
        );
        builder.map("response.headers", response.response_headers);
    }
    builder.text("context.protocol", protocol.to_owned());
    builder.0
}

fn tcp(entry: TcpAccessLogEntry) -> Attributes {
    let mut builder = Builder::default();
    if let Some(common) = entry.common_properties {
        if let Some(duration) = duration(&common) {
            builder.set("connection.duration", duration);
        }
        builder.common(common);
    }
    if let Some(connection) = entry.connection_properties {
        builder.integer("connection.received.bytes_total", connection.received_bytes);
        builder.integer("connection.sent.bytes_total", connection.sent_bytes);
    }
    builder.text("context.protocol", "tcp".to_owned());
    builder.0
}

/// The first URI of a certificate: the SPIFFE ID, as a workload's certificate has no other.
fn uri(certificate: Option<CertificateProperties>) -> Option<String> {
    certificate?
        .subject_alt_name
        .into_iter()
        .find_map(|name| match name.san {
            Some(San::Uri(uri)) => Some(uri),
            _ => None,
        })
}

/// Envoy's short names, as in its text logs.
fn flags(flags: ResponseFlags) -> String {
    let unauthorized = flags.unauthorized_details.is_some();
    let named = [
        (flags.failed_local_healthcheck, "LH"),
        (flags.no_healthy_upstream, "UH"),
        (flags.upstream_request_timeout, "UT"),
        (flags.local_reset, "LR"),
        (flags.upstream_remote_reset, "UR"),
        (flags.upstream_connection_failure, "UF"),
        (flags.upstream_connection_termination, "UC"),
        (flags.upstream_overflow, "UO"),
        (flags.no_route_found, "NR"),
        (flags.delay_injected, "DI"),
        (flags.fault_injected, "FI"),
        (flags.rate_limited, "RL"),
        (unauthorized, "UAEX"),
        (flags.rate_limit_service_error, "RLSE"),
        (flags.downstream_connection_termination, "DC"),
        (flags.upstream_retry_limit_exceeded, "URX"),
        (flags.stream_idle_timeout, "SI"),
        (flags.invalid_envoy_request_headers, "IH"),
        (flags.downstream_protocol_error, "DPE"),
        (flags.upstream_max_stream_duration_reached, "UMSDR"),
        (flags.no_filter_config_found, "NFCF"),
        (flags.duration_timeout, "DT"),
        (flags.upstream_protocol_error, "UPE"),
        (flags.no_cluster_found, "NC"),
        (flags.overload_manager, "OM"),
        (flags.dns_resolution_failure, "DF"),
        (flags.downstream_remote_reset, "DR"),
    ];
    let set: Vec<&str> = named
        .into_iter()
        .filter(|(is_set, _)| *is_set)
        .map(|(_, name)| name)
        .collect();
    set.join(",")
}
