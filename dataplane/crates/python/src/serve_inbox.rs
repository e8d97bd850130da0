//! Messages on their way to Python: a task reads ahead, a handler or caller takes one at a time.
//!
//! Bounded to [`AHEAD`] bytes and [`MESSAGES`] messages: the task stops reading when Python is slow, and HTTP/2's flow
//! control then stops the peer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use meshwright_handover as handover;
use meshwright_handover::Taken;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::serve_mailbox::{Post, complete};

/// Bytes after which no further message is read ahead; one message may be longer.
const AHEAD: usize = 64 << 10;
/// Messages that are read ahead at most.
const MESSAGES: usize = 1024;

/// Between the reading task and Python.
pub(crate) struct Inbox {
    post: Arc<Post>,
    messages: handover::Inbox<Bytes, Py<PyAny>>,
    /// Threads that wait in `take_blocking`.
    blocked: AtomicUsize,
    /// True: the call is over, and nothing will come.
    broken: Mutex<bool>,
    arrived: Condvar,
}

impl Inbox {
    pub(crate) fn new(post: Arc<Post>) -> Arc<Self> {
        Arc::new(Self {
            post,
            messages: handover::Inbox::new(AHEAD, MESSAGES),
            blocked: AtomicUsize::new(0),
            broken: Mutex::new(false),
            arrived: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hand over a message; waits while Python is behind.
    pub(crate) async fn put(self: &Arc<Self>, message: Bytes) {
        let size = message.len();
        let asks = self.messages.put(message, size).await;
        self.wake(asks);
    }

    /// No more messages follow.
    pub(crate) fn end(self: &Arc<Self>) {
        let asks = self.messages.end();
        self.wake(asks);
    }

    /// The call is over: a thread that waits for a message must not wait on. (A task is cancelled instead.)
    pub(crate) fn break_off(&self) {
        *self.lock() = true;
        if self.blocked.load(Ordering::Relaxed) > 0 {
            self.arrived.notify_all(); // a thread that counts itself later sees `broken`
        }
    }

    /// Have the loop serve whoever waits there, if it `asks`. Which future gets which message is decided there and
    /// then: the one that waits now may have been cancelled by that time, and its message must not be lost.
    fn wake(self: &Arc<Self>, asks: bool) {
        // A thread counts itself before it looks for a message, and both look under the messages' own lock.
        if self.blocked.load(Ordering::Relaxed) > 0 {
            drop(self.lock()); // it waits by now, or will see the message
            self.arrived.notify_all();
        }
        if asks {
            let inbox = self.clone();
            self.post.send(move |py| match inbox.messages.deliver() {
                Some(future) => inbox.take_later(future.into_bound(py)),
                None => Ok(()),
            });
        }
    }

    /// What has arrived: a message, the end, or [`Taken::Later`].
    pub(crate) fn take(&self) -> Taken<Bytes, ()> {
        self.messages.poll()
    }

    /// Complete `future` with the next message (bytes) or with None at the end, now or later. One at a time.
    pub(crate) fn take_later(&self, future: Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        if future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        let (value, future) = match self.messages.take(future.unbind()) {
            Taken::Message(message, future) => (PyBytes::new(py, &message).into_any().unbind(), future),
            Taken::End(future) => (py.None(), future),
            Taken::Later => return Ok(()),
        };
        complete(py, future.bind(py), Ok(value))
    }

    /// The next message, or nothing after the last; blocks this thread, which doesn't hold the GIL. `Err` when the
    /// call was broken off.
    pub(crate) fn take_blocking(&self) -> Result<Option<Bytes>, ()> {
        self.blocked.fetch_add(1, Ordering::Relaxed);
        let mut broken = self.lock();
        let taken = loop {
            match self.messages.poll() {
                Taken::Message(message, ()) => break Ok(Some(message)),
                Taken::End(()) => break Ok(None),
                Taken::Later if *broken => break Err(()),
                Taken::Later => broken = self.arrived.wait(broken).unwrap_or_else(PoisonError::into_inner),
            }
        };
        self.blocked.fetch_sub(1, Ordering::Relaxed);
        taken
    }
}
