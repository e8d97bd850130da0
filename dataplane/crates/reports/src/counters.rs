//! What happened on the way, in numbers: Python reads them for its metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),* $(,)?) => {
        /// Counters since the start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: AtomicU64,)*
            sinks: Mutex<BTreeMap<String, SinkCounts>>,
        }

        impl Counters {
            /// All of them by name.
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed))),*]
            }
        }
    };
}
counters! {
    /// Records that the queue took.
    records_stored,
    /// Messages that the queue took.
    record_batches_stored,
    /// Bytes of those messages.
    record_bytes_stored,
    /// Nanoseconds from sending those messages to their acknowledgement, together.
    record_store_nanos,
    /// Records in attempts to store them that failed.
    records_retried,
    /// Records that every handler took.
    records_acknowledged,
    /// Messages that every handler took.
    record_batches_acknowledged,
    /// Records given back to the queue to come again, to all handlers or to those that refused them.
    records_returned,
    /// Records that came more than once.
    records_redelivered,
    /// Records that no rule wants any more, or never did.
    records_unclaimed,
    /// Messages and records of the queue that can't be read; dropped.
    records_unreadable,
    /// Report instances left out because the record lacks something they need.
    emissions_failed,
    /// Report instances left out by sampling or because their rule is in dry run.
    emissions_withheld,
    /// Series that a Prometheus handler had no room for: additions that were lost.
    prometheus_series_refused,
}

/// Of one native handler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// The adapter's name.
    pub adapter: String,
    /// Instances that it took.
    pub handled: u64,
    /// Batches that it refused.
    pub failed: u64,
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn stored(&self, records: u64, bytes: usize, took: Duration) {
        add(&self.records_stored, records);
        add(&self.record_batches_stored, 1);
        add(&self.record_bytes_stored, bytes as u64);
        add(
            &self.record_store_nanos,
            u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        );
    }

    pub(crate) fn retry(&self, records: u64) {
        add(&self.records_retried, records);
    }

    pub(crate) fn sink(&self, handler: &str, adapter: &str, handled: u64, failed: u64) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = match sinks.get_mut(handler) {
            Some(counts) => counts,
            None => sinks.entry(handler.to_owned()).or_default(),
        };
        if counts.adapter != adapter {
            adapter.clone_into(&mut counts.adapter);
        }
        counts.handled += handled;
        counts.failed += failed;
    }

    /// Of each native handler, by name.
    pub fn sinks(&self) -> Vec<(String, SinkCounts)> {
        let sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        sinks
            .iter()
            .map(|(name, counts)| (name.clone(), counts.clone()))
            .collect()
    }
}
