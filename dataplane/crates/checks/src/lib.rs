//! The policy engine's gRPC side: handlers for Mixer's own API, for Envoy's ext_authz and access logs, and for the
//! charges that mixer replicas forward to one another. They run where the bytes arrive; Python only drains records.
#![forbid(unsafe_code)]

mod access_log;
mod attributes;
mod authorization;
mod counters;
mod mixer;
mod peers;
mod quota_peer;
mod raw;
mod records;
mod state;

pub use counters::Counters;
pub use records::Queue;
pub use state::{Settings, State};

use std::sync::Arc;

use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogServiceServer;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use meshwright_api::meshwright::mixer::v1::quota_peer_server::QuotaPeerServer;
use meshwright_serve::Services;

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
        .add(QuotaPeerServer::new(quota_peer::Owner::new(state.clone())), &["Charge"])
}
