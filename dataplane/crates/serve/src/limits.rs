//! The limits of a server and of a channel: every one has a default, and every one answers in a way the peer can read.

use std::time::Duration;

/// What one server (or channel) takes at most. docs/limits.md says what a peer sees of each.
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
    /// Connections at a time of one peer, by SPIFFE ID, user id or address; further ones are closed at once.
    pub connections_per_peer: usize,
    /// Calls at a time that the [`Fallback`](crate::Fallback) works on; a further one ends with RESOURCE_EXHAUSTED.
    pub pending_calls: usize,
    /// Calls a second of one peer, all its connections together; calls beyond it end with RESOURCE_EXHAUSTED and say
    /// when to try again. Nothing: as many as it likes.
    pub call_rate: Option<CallRate>,
    /// Once calls have waited for the [`Fallback`](crate::Fallback) longer than this, for as long again, new ones end
    /// with RESOURCE_EXHAUSTED. Nothing: they wait.
    pub queue_delay: Option<Duration>,
    /// Bytes of messages that have arrived and that no handler has taken, and of answers that the network hasn't taken,
    /// of all connections together. At this new calls end with RESOURCE_EXHAUSTED, and those under way aren't read on.
    pub memory: usize,
    /// The same of one peer's connections: one that reads nothing must not hold all of [`memory`](Self::memory).
    pub memory_per_peer: usize,
    /// Time for the TLS handshake and the HTTP/2 preface; then the connection is closed.
    pub handshake: Duration,
    /// How long a connection may be without a call; then it gets GOAWAY.
    pub idle: Option<Duration>,
    /// How old a connection may get (± 10 %), e.g. so that callers spread over new replicas; then it gets GOAWAY.
    pub age: Option<Duration>,
    /// How long calls may go on after that GOAWAY; then the connection is closed.
    pub age_grace: Duration,
    /// How often the server asks by a PING whether its peer is still there.
    pub keep_alive: Duration,
    /// How long it waits for the answer; then the connection is closed.
    pub keep_alive_timeout: Duration,
    /// PINGs that come faster than this, with no answer to a call in between, are strikes; the third ends the
    /// connection with GOAWAY ENHANCE_YOUR_CALM "too_many_pings".
    pub ping_interval: Duration,
    /// Frames a second that cost the server more than the peer (PING, SETTINGS, RST_STREAM, PRIORITY, empty and unknown
    /// ones) on one connection, ten times as many at once; more ends it with GOAWAY ENHANCE_YOUR_CALM.
    pub control_frames: u32,
    /// Bytes that a peer may send ahead of the reader, for one call (HTTP/2 flow control). With `concurrent_streams`
    /// it bounds what a connection can hold.
    pub stream_window: u32,
    /// The same for all calls of a connection together. The h2 crate ends a connection with more unread small frames
    /// than half of this divided by 256 (not to be set otherwise), so that it must be far larger than a few calls
    /// whose readers are slow: gRPC's messages are often small.
    pub connection_window: u32,
}

/// A rate of calls that one peer may keep up.
#[derive(Clone, Copy, Debug)]
pub struct CallRate {
    /// Calls a second.
    pub per_second: f64,
    /// Calls at once, after a while without any.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: 4 << 20, // as grpcio and grpc-go
            metadata_size: 16 << 10,
            concurrent_streams: 1000,
            connections: 4096,
            connections_per_peer: 1024,
            pending_calls: 8192,
            call_rate: None,
            queue_delay: Some(Duration::from_secs(1)),
            memory: 256 << 20,
            memory_per_peer: 64 << 20,
            handshake: Duration::from_secs(10),
            idle: Some(Duration::from_secs(30 * 60)),
            age: None,
            age_grace: Duration::from_secs(60),
            keep_alive: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(20),
            ping_interval: Duration::from_secs(5),
            control_frames: 1000,
            stream_window: 64 << 10,
            connection_window: 64 << 20,
        }
    }
}
