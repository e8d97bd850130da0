//! How many calls a channel has under way, and since when it has none: what idleness and a graceful close go by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Activity {
    calls: AtomicUsize,
    begun: Instant,
    /// Milliseconds after `begun` when the last call ended.
    last: AtomicU64,
    quiet: Notify,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            begun: Instant::now(),
            last: AtomicU64::new(0),
            quiet: Notify::new(),
        })
    }

    /// A call begins; it ends with what this returns.
    pub(crate) fn begin(self: &Arc<Self>) -> Underway {
        self.calls.fetch_add(1, Ordering::AcqRel);
        Underway(self.clone())
    }

    /// How many calls are under way.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Count the time without calls from now on.
    pub(crate) fn touch(&self) {
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(passed, Ordering::AcqRel);
    }

    /// When there will have been no call for `duration`, as it looks now.
    pub(crate) fn quiet_since(&self, duration: Duration) -> Instant {
        if self.calls.load(Ordering::Acquire) > 0 {
            return Instant::now() + duration;
        }
        self.begun + Duration::from_millis(self.last.load(Ordering::Acquire)) + duration
    }

    /// Whether there has been no call for `duration`.
    pub(crate) fn is_quiet(&self, duration: Duration) -> bool {
        self.quiet_since(duration) <= Instant::now()
    }

    /// Wait until no call is under way.
    pub(crate) async fn ended(&self) {
        loop {
            let quiet = self.quiet.notified();
            if self.calls.load(Ordering::Acquire) == 0 {
                return;
            }
            quiet.await;
        }
    }
}

/// One call under way.
#[derive(Debug)]
pub(crate) struct Underway(Arc<Activity>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.touch();
        if self.0.calls.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.quiet.notify_waiters();
        }
    }
}
