//! The policy engine's gRPC side: handlers for Mixer's own API, for what Envoy speaks (ext_authz, rate limits, access
//! logs), for OpenTelemetry's, and for the charges that mixer replicas forward to one another. They run where the bytes
//! arrive, never in Python.
#![forbid(unsafe_code)]

mod access_log;
mod ask;
mod attributes;
mod authorization;
mod counters;
mod decision;
mod decision_log;
mod explain;
pub mod guard;
#[cfg(feature = "inside")]
pub mod inside;
mod kept;
mod leases;
mod mixer;
mod otlp;
mod peers;
mod quota_peer;
mod rate_limit;
mod raw;
mod records;
mod remote;
mod remote_answer;
mod remote_link;
mod remote_plan;
mod sampler;
mod secrets;
mod state;

pub use ask::{Ask, Asking};
pub use counters::Counters;
pub use decision::DecisionId;
pub use decision_log::DecisionLog;
pub use explain::explain;
pub use remote::Remotes;
pub use sampler::Sampler;
pub use state::{Settings, State};

use std::sync::Arc;

use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogServiceServer;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use meshwright_api::meshwright::mixer::v1::quota_peer_server::QuotaPeerServer;
use meshwright_serve::Services;

/// Which field of Envoy's and OpenTelemetry's messages becomes which attribute, as docs/attributes.md has it.
pub fn attribute_table() -> String {
    attributes::table::document()
}

/// Adds every handler to a server's services.
pub fn add_to(services: Services, state: &Arc<State>) -> Services {
    services
        .add(mixer::MixerServer::new(state.clone()), &["Check", "Report"])
        .add(
            AuthorizationServer::new(authorization::Authorize::new(state.clone())),
            &["Check"],
        )
        .add(
            AccessLogServiceServer::new(access_log::AccessLog::new(state.clone())),
            &["StreamAccessLogs"],
        )
        .add(
            RateLimitServiceServer::new(rate_limit::RateLimits::new(state.clone())),
            &["ShouldRateLimit"],
        )
        .add(otlp::OtlpServer::new(state.clone(), otlp::Traces), &["Export"])
        .add(otlp::OtlpServer::new(state.clone(), otlp::Metrics), &["Export"])
        .add(otlp::OtlpServer::new(state.clone(), otlp::Logs), &["Export"])
        .add(QuotaPeerServer::new(quota_peer::Owner::new(state.clone())), &["Charge"])
}
