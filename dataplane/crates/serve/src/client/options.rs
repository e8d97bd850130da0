//! How a channel behaves beside its limits: keep-alive, idleness, back-off, and the service config.

use std::time::Duration;

use crate::client::service_config::ServiceConfig;

/// Options of a channel.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// Load balancing, retries and the defaults of methods.
    pub service_config: ServiceConfig,
    /// A ping goes to the server after this time without a word from it; nothing: none.
    pub keep_alive: Option<Duration>,
    /// Without an answer to a ping in this time the connection is broken.
    pub keep_alive_timeout: Duration,
    /// Whether to ping while no call is under way.
    pub keep_alive_without_calls: bool,
    /// After this time without a call the connections are closed until the next one.
    pub idle: Duration,
    /// A name is looked up again not earlier than this after the last time.
    pub resolve_interval: Duration,
    /// The pause after the first failure to connect; each further one doubles it.
    pub first_back_off: Duration,
    /// The longest pause.
    pub longest_back_off: Duration,
    /// Bytes of requests that a call keeps for another attempt; a call that sent more is not repeated.
    pub retry_buffer: usize,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            service_config: ServiceConfig::default(),
            // Servers of grpc-go and grpcio close a connection that pings more often than every five minutes.
            keep_alive: Some(Duration::from_secs(310)),
            keep_alive_timeout: Duration::from_secs(20),
            keep_alive_without_calls: false,
            idle: Duration::from_secs(30 * 60),         // as grpcio
            resolve_interval: Duration::from_secs(30),  // as grpcio
            first_back_off: Duration::from_millis(100), // a mesh's servers come back in milliseconds, not seconds
            longest_back_off: Duration::from_secs(5),
            retry_buffer: 256 << 10, // as grpcio
        }
    }
}
