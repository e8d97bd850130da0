//! How other threads get a worker's attention.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Result};

/// Tells a worker that something outside its ports has changed. Cheap to clone, and may outlive the worker.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    changes: AtomicU64,
    event: EventFd,
}

impl Waker {
    pub(crate) fn new() -> Result<Self> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(|errno| Error::system("make an event descriptor", errno))?;
        Ok(Self(Arc::new(Inner {
            changes: AtomicU64::new(1),
            event,
        })))
    }

    /// Make the worker look.
    pub fn wake(&self) {
        self.0.changes.fetch_add(1, Ordering::Release);
        let _ = self.0.event.write(1); // full means that it was woken and hasn't looked yet
    }

    /// How many changes there were; one load of a line that nobody writes to in quiet times.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
