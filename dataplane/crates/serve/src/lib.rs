//! One gRPC server and channel under every service: HTTP/2, mutual TLS by SPIFFE ID with live rotation, and file
//! descriptors beside the bytes of Unix sockets.
//!
//! Ordinary generated tonic services are added to [`Services`]; every other path goes to the [`Fallback`] (the Python
//! handlers). What a handler knows of its caller is the [`CallContext`].

mod activity;
pub mod busy_poll;
pub mod client;
pub mod error;
#[cfg(feature = "inside")]
pub mod inside;
pub mod limits;
pub mod listener;
pub mod peer;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod wire;

pub use busy_poll::BusyPoll;
pub use client::balancer::State;
pub use client::channel::{Answer, Call, Channel, Messages};
pub use client::link::{Link, Picker};
pub use client::options::ChannelOptions;
pub use client::outgoing::Outbound;
pub use client::service_config::ServiceConfig;
pub use client::target::Target;
pub use error::Error;
pub use limits::{CallRate, Limits};
pub use listener::Listener;
pub use peer::{ConnectionId, Peer};
pub use server::authorize::Rules;
pub use server::call::{Fallback, is_health_check};
pub use server::context::CallContext;
pub use server::load::Load;
pub use server::services::Services;
pub use server::{Builder, End, Notice, Running, Server};
pub use telemetry::access_log::AccessLog;
pub use telemetry::meter::Meter;
pub use telemetry::queue::Queue;
pub use telemetry::stats::Stats;
pub use telemetry::tally::RequestBody;
pub use tls::identity::{Identities, Identity, Versions};
pub use tls::outside::Outside;
pub use wire::compression::Encoding;
pub use wire::deadline::Deadline;
pub use wire::descriptors::Descriptors;
pub use wire::outcome::Outcome;
