//! Notices that a loop doesn't get round: a handler blocks it.
//!
//! No call pays for it. A task of ours looks at intervals at how long the mailbox's letters have waited; while calls are
//! under way it puts in an empty letter, so that a loop that nobody else writes to is watched as well.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::serve_handlers::Handlers;

/// Looks for each limit: a stall is known when two looks in the same one are nearly the limit apart.
const LOOKS: u32 = 4;

/// Look after the loop of `handlers` for as long as these live. `on_stall(waited, held)` is called on a thread of its
/// own at each look: for how long letters have waited, and for how long the GIL kept this look waiting.
pub(crate) async fn watch_loop(handlers: Weak<Handlers>, limit: Duration, on_stall: Py<PyAny>) {
    if limit.is_zero() {
        return;
    }
    let pause = limit / LOOKS;
    let on_stall = Arc::new(on_stall); // cloning a Py needs the GIL, which this thread never takes
    loop {
        tokio::time::sleep(pause).await;
        let Some(handlers) = handlers.upgrade() else {
            return;
        };
        let Some(waited) = handlers.post.waited() else {
            if handlers.pending.load(Ordering::Relaxed) > 0 {
                handlers.post.send(|_| Ok(()));
            }
            continue;
        };
        if waited < pause {
            continue;
        }
        let seen = Instant::now();
        let on_stall = on_stall.clone();
        let look = tokio::task::spawn_blocking(move || {
            Python::try_attach(|py| {
                // Waiting for the GIL is part of it: a handler may block in native code that holds it.
                let held = seen.elapsed();
                if let Err(error) = on_stall.call1(py, ((waited + held).as_secs_f64(), held.as_secs_f64())) {
                    error.write_unraisable(py, None);
                }
            });
        });
        let _ = look.await; // it doesn't panic
    }
}
