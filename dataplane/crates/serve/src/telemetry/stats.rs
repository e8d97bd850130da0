//! What a server counts: read for metrics, written with relaxed atomics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),* $(,)?) => {
        /// The counters of one server.
        #[derive(Debug, Default)]
        pub struct Stats { $($(#[doc = $doc])+ pub $name: AtomicU64,)* }

        impl Stats {
            /// All counters by name.
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed))),*]
            }
        }
    };
}
counters! {
    /// Connections accepted since the start.
    connections_accepted,
    /// Connections closed at once because there were too many.
    connections_refused,
    /// Connections closed because their peer has too many.
    connections_refused_peer,
    /// Times that no connection could be accepted: out of descriptors or memory.
    accepts_failed,
    /// Connections ended because their peer broke HTTP/2's rules.
    connections_broken,
    /// Connections ended because of too many PINGs or other frames that only cost.
    connections_flooding,
    /// Connections told to go because they had no calls for long.
    connections_idle,
    /// Connections told to go because of their age.
    connections_aged,
    /// Connections open now.
    connections_open,
    /// TLS handshakes that failed: plain text, a foreign authority, no SPIFFE ID, too slow.
    handshakes_failed,
    /// TLS handshakes that resumed a session.
    handshakes_resumed,
    /// Calls begun since the start.
    calls_started,
    /// Calls under way now.
    calls_open,
    /// Calls that ended with another status than OK.
    calls_failed,
    /// Calls refused by the authorization rules.
    calls_denied,
    /// Calls refused because too many were under way.
    calls_shed,
    /// Calls refused because others waited too long for their handlers.
    calls_shed_waiting,
    /// Calls refused, or ended, because too many bytes were held.
    calls_shed_memory,
    /// Calls refused because their peer makes too many a second.
    calls_limited,
    /// Bytes of messages held now: arrived and not taken by a handler, or answered and not taken by the network.
    bytes_held,
    /// Descriptors that came beside the bytes of Unix sockets, each time that they came.
    descriptors_received,
    /// Descriptors that a handler has taken.
    descriptors_claimed,
    /// Descriptors that were closed because nobody took them: in time, before newer ones, before the connection's end.
    descriptors_closed,
    /// Descriptors that went to callers.
    descriptors_sent,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn subtract(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}
