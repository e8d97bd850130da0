//! The limits of a server and of a channel: every one has a default, and every one answers in a way the peer can read.

use std::time::Duration;

/// What one server (or channel) takes at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one message, in either direction; a longer one ends its call with RESOURCE_EXHAUSTED.
    pub message_size: usize,
    /// Bytes of all metadata of a call (HTTP/2 SETTINGS_MAX_HEADER_LIST_SIZE); more is refused by HTTP/2 (431).
    pub metadata_size: u32,
    /// Calls at a time on one connection; the peer queues further ones (HTTP/2 SETTINGS_MAX_CONCURRENT_STREAMS).
    pub concurrent_streams: u32,
    /// Connections at a time; a further one is accepted and closed at once.
    pub connections: usize,
    /// Calls at a time that the [`Fallback`](crate::Fallback) works on; a further one ends with RESOURCE_EXHAUSTED.
    pub pending_calls: usize,
    /// Time for the TLS handshake and the HTTP/2 preface; then the connection is closed.
    pub handshake: Duration,
    /// Bytes that a peer may send ahead of the reader, for one call (HTTP/2 flow control). With `concurrent_streams`
    /// it bounds what a connection can hold.
    pub stream_window: u32,
    /// The same for all calls of a connection together. The h2 crate ends a connection with more unread small frames
    /// than half of this divided by 256 (not to be set otherwise), so that it must be far larger than a few calls
    /// whose readers are slow: gRPC's messages are often small.
    pub connection_window: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: 4 << 20, // as grpcio and grpc-go
            metadata_size: 16 << 10,
            concurrent_streams: 1000,
            connections: 4096,
            pending_calls: 8192,
            handshake: Duration::from_secs(10),
            stream_window: 64 << 10,
            connection_window: 64 << 20,
        }
    }
}
