//! Doors to what reads Envoy's and OpenTelemetry's messages, for the fuzz targets (crate `fuzzed`) only: behind the feature
//! `inside`, which nothing that is shipped turns on.

use std::sync::Arc;

use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use prost::Message;
use tonic::Request;

use crate::attributes::checked::Checked;
use crate::attributes::logged::{Logged, Reporter};
use crate::attributes::table::ROWS;
use crate::otlp::{Logs, Metrics, Traces};
use crate::state::State;
use crate::{authorization, otlp, rate_limit};

/// Any bytes as an ext_authz CheckRequest, through the handler; every row of the table is read.
pub async fn authorization(state: &Arc<State>, bytes: &[u8]) {
    let Ok(request) = CheckRequest::decode(bytes) else {
        return;
    };
    let checked = Checked::new(request.attributes.clone().unwrap_or_default(), None);
    for row in ROWS {
        let _ = (row.check.read)(&checked);
    }
    let handler = authorization::Authorize::new(state.clone());
    if let Ok(answer) = handler.check(Request::new(request)).await {
        let answer = answer.into_inner();
        let is_ok = answer.status.is_none_or(|status| status.code == 0);
        let allows = !matches!(
            answer.http_response,
            Some(envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse::DeniedResponse(_))
        );
        assert_eq!(is_ok, allows, "the status and the response say the same");
    }
}

/// Any bytes as a RateLimitRequest, through the handler.
pub async fn rate_limit(state: &Arc<State>, bytes: &[u8]) {
    let Ok(request) = RateLimitRequest::decode(bytes) else {
        return;
    };
    let descriptors = request.descriptors.len();
    let handler = rate_limit::RateLimits::new(state.clone());
    if let Ok(answer) = handler.should_rate_limit(Request::new(request)).await {
        let answer = answer.into_inner();
        assert_eq!(answer.statuses.len(), descriptors, "every descriptor has its status");
    }
}

/// Any bytes as a message of an access log stream; every entry becomes attributes.
pub fn access_log(bytes: &[u8]) {
    let Ok(message) = StreamAccessLogsMessage::decode(bytes) else {
        return;
    };
    let node = message.identifier.and_then(|identifier| identifier.node);
    let reporter = Arc::new(node.as_ref().map(Reporter::new).unwrap_or_default());
    let entries: Vec<Logged> = match message.log_entries {
        Some(LogEntries::HttpLogs(logs)) => {
            let entries = logs.log_entry.into_iter();
            entries.map(|entry| Logged::http(entry, &reporter)).collect()
        }
        Some(LogEntries::TcpLogs(logs)) => {
            let entries = logs.log_entry.into_iter();
            entries.map(|entry| Logged::tcp(entry, &reporter)).collect()
        }
        None => Vec::new(),
    };
    for entry in entries {
        let _ = entry.attributes();
    }
}

/// Any bytes as a request of OTLP, the first of them choosing the signal: what is forwarded is one in its turn, with
/// nothing lost.
pub fn otlp(bytes: &[u8]) {
    let Some((signal, request)) = bytes.split_first() else {
        return;
    };
    match signal % 3 {
        0 => otlp::round_trip::<Traces>(request),
        1 => otlp::round_trip::<Metrics>(request),
        _ => otlp::round_trip::<Logs>(request),
    }
}
