//! One gRPC server and channel under every service: HTTP/2, mutual TLS by SPIFFE ID with live rotation, and file
//! descriptors beside the bytes of Unix sockets.
//!
//! Ordinary generated tonic services are added to [`Services`]; every other path goes to the [`Fallback`] (the Python
//! handlers). A handler finds in the request's extensions the [`Peer`], the [`span::Current`] server span and, on a
//! Unix socket, the connection's [`Descriptors`].

pub mod access_log;
mod account;
mod activity;
mod attempt;
mod authority;
pub mod authorize;
mod balancer;
mod body;
mod border;
mod call;
mod certificate;
pub mod channel;
pub mod compression;
mod connection;
pub mod conventions;
mod cork;
mod deadline;
pub mod descriptors;
mod dialer;
pub mod error;
mod flood;
pub mod frame;
mod handshake;
pub mod identity;
#[cfg(feature = "inside")]
pub mod inside;
pub mod limits;
mod link;
pub mod listener;
pub mod load;
pub mod meter;
pub mod options;
pub mod outcome;
pub mod outgoing;
pub mod peer;
mod queue;
mod replay;
mod resolver;
mod retry;
pub mod server;
pub mod service_config;
pub mod services;
pub mod span;
pub mod spiffe;
mod stats;
mod subchannel;
pub mod tally;
pub mod target;
mod transport;
mod trust;
mod verify;
mod watch;

pub use access_log::AccessLog;
pub use authorize::Rules;
pub use balancer::State;
pub use call::{Fallback, is_health_check};
pub use channel::{Answer, Call, Channel, Messages};
pub use compression::Encoding;
pub use deadline::Deadline;
pub use descriptors::Descriptors;
pub use error::Error;
pub use identity::{Identities, Identity, Versions};
pub use limits::{CallRate, Limits};
pub use link::{Link, Picker};
pub use listener::Listener;
pub use load::Load;
pub use meter::Meter;
pub use options::ChannelOptions;
pub use outcome::Outcome;
pub use outgoing::Outbound;
pub use peer::{ConnectionId, Peer};
pub use queue::Queue;
pub use server::{Builder, End, Notice, Running, Server};
pub use service_config::ServiceConfig;
pub use services::Services;
pub use stats::Stats;
pub use tally::RequestBody;
pub use target::Target;
