//! How threads hand things to one another in the gRPC front, without what is handed over: no Python, no runtime, no
//! descriptors. So loom can walk through every order in which the threads may run (`tests/loom.rs`).
//!
//! With `--cfg loom` the locks are loom's; otherwise they are the standard library's.
#![forbid(unsafe_code)]

pub mod claims;
pub mod inbox;
pub mod post;

pub use claims::Claims;
pub use inbox::{Inbox, Taken};
pub use post::{Bell, Post};

/// The locks of the build: loom's or the standard library's.
mod sync {
    #[cfg(loom)]
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    #[cfg(not(loom))]
    pub(crate) use std::sync::{Mutex, MutexGuard};

    /// Lock; a panic elsewhere leaves nothing half done here, so that what it held may be used on.
    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
