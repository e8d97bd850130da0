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
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn subtract(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}
