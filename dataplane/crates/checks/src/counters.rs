//! What happened, in numbers: Python reads them for its metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),* $(,)?) => {
        /// Counters since the start.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: AtomicU64,)* }

        impl Counters {
            /// All of them by name.
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed))),*]
            }
        }
    };
}
counters! {
    /// Checks of istio.mixer.v1.
    mixer_checks,
    /// Checks of ext_authz.
    authorization_checks,
    /// Requests to the rate limit service.
    rate_limit_checks,
    /// Checks answered with a denial by a rule.
    checks_denied,
    /// Denials by rules in dry run, which weren't enforced.
    checks_tried,
    /// Charges of rules in dry run that would have been refused.
    quotas_tried,
    /// Checks refused because the request was wrong.
    checks_invalid,
    /// Checks that a quota refused, wholly.
    quotas_refused,
    /// Decisions that clients took from their own caches, as they reported.
    checks_cached,
    /// Charges sent to the replica that owns the cell.
    quota_forwarded,
    /// Charges decided by the local cell because the owner couldn't be reached.
    quota_owner_unreachable,
    /// Charges served for other replicas.
    quota_served,
    /// Slices of quotas that the store gave no answer for.
    quota_store_away,
    /// Report calls.
    reports,
    /// Report calls refused because the record queue was full.
    reports_refused_full,
    /// Report calls that weren't answered OK because the queue hadn't stored them in time.
    reports_unconfirmed,
    /// Report elements that couldn't be read.
    reports_invalid,
    /// Access log entries.
    access_log_entries,
    /// Times that reading access logs waited because the record queue was full.
    access_log_waits,
    /// Export calls of OTLP.
    otlp_requests,
    /// Spans, data points and log records forwarded.
    otlp_points,
    /// The same, refused as malformed, too large or wanted by no rule.
    otlp_points_rejected,
    /// Export calls refused because the record queue was full.
    otlp_refused_full,
    /// Records queued.
    records_queued,
    /// Records that no rule wanted.
    records_unwanted,
    /// Records that no message of the queue could hold; dropped.
    records_too_large,
}

/// One more.
pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// So many more.
pub(crate) fn add_many(counter: &AtomicU64, count: usize) {
    if count > 0 {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}
