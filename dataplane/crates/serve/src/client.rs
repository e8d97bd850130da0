//! The client: calls of a target over the connections to its addresses.

pub(crate) mod attempt;
pub(crate) mod balancer;
pub mod channel;
pub(crate) mod dialer;
pub(crate) mod health;
pub(crate) mod hedge;
pub(crate) mod link;
pub mod options;
pub mod outgoing;
pub(crate) mod replay;
pub(crate) mod resolver;
pub(crate) mod retry;
pub mod service_config;
pub(crate) mod subchannel;
pub mod target;
