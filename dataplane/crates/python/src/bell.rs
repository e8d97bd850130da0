//! An eventfd that an asyncio loop watches, rung from Rust's threads.
//!
//! The runtime's threads ring when what else is ready has had its turn: on a shared core the kernel would at once run
//! the loop's thread in their place, for the first of many calls. For a call that is alone they ring at once: there it
//! is what they would wait for.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Whether the loop found one letter only when it last looked. With few calls under way that may be chance, with one
    /// and this it hardly is.
    was_lone: AtomicBool,
    /// Whether the letter that comes next is of the only call under way.
    is_lone: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            eventfd: Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?),
            begun: Instant::now(),
            rung: AtomicU64::new(0),
            was_lone: AtomicBool::new(false),
            is_lone: AtomicBool::new(false),
        })
    }

    pub(crate) fn fileno(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Say whether the next letter is of the only call under way.
    pub(crate) fn expect(&self, is_lone: bool) {
        self.is_lone.store(is_lone, Ordering::Relaxed);
    }

    /// Say how many letters the loop has found.
    pub(crate) fn found(&self, letters: usize) {
        self.was_lone.store(letters == 1, Ordering::Relaxed);
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
        if self.is_lone.swap(false, Ordering::Relaxed) && self.was_lone.load(Ordering::Relaxed) {
            let _ = self.eventfd.write(1); // as below
            return;
        }
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
