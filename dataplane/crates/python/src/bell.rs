//! An eventfd that an asyncio loop watches, rung from Rust's threads.
//!
//! The runtime's threads ring when what else is ready has had its turn: on a shared core the kernel would at once run
//! the loop's thread in their place, for the first of many calls.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meshwright_handover as handover;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::runtime::Handle;

/// Rings an eventfd, and knows since when.
pub(crate) struct Bell {
    eventfd: Arc<EventFd>,
    begun: Instant,
    /// When it was rung, in nanoseconds after `begun`; zero: it has been silenced since.
    rung: AtomicU64,
}

impl Bell {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            eventfd: Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?),
            begun: Instant::now(),
            rung: AtomicU64::new(0),
        })
    }

    pub(crate) fn fileno(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// For how long it has rung; nothing when it is silent.
    pub(crate) fn waited(&self) -> Option<Duration> {
        match self.rung.load(Ordering::Relaxed) {
            0 => None,
            rung => Some(self.begun.elapsed().saturating_sub(Duration::from_nanos(rung))),
        }
    }
}

impl handover::Bell for Bell {
    fn ring(&self) {
        let since = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.rung.store(since.max(1), Ordering::Relaxed);
        let eventfd = self.eventfd.clone();
        let ring = move || {
            let _ = eventfd.write(1); // fails only when the counter would overflow: it rings already then
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::task::yield_now().await;
                ring();
            })),
            Err(_) => ring(),
        }
    }

    fn silence(&self) {
        self.rung.store(0, Ordering::Relaxed);
        let _ = self.eventfd.read(); // nothing to read: another drain was faster
    }
}
