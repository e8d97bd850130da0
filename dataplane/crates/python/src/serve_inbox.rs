//! Messages on their way to Python: a task reads ahead, a handler or caller takes one at a time.
//!
//! Bounded to [`AHEAD`] bytes and [`MESSAGES`] messages: the task stops reading when Python is slow, and HTTP/2's flow
//! control then stops the peer.

use std::sync::Arc;

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
}

impl Inbox {
    pub(crate) fn new(post: Arc<Post>) -> Arc<Self> {
        Arc::new(Self {
            post,
            messages: handover::Inbox::new(AHEAD, MESSAGES),
        })
    }

    /// Hand over a message; waits while Python is behind.
    pub(crate) async fn put(self: &Arc<Self>, message: Bytes) {
        let size = message.len();
        if self.messages.put(message, size).await {
            self.wake();
        }
    }

    /// No more messages follow.
    pub(crate) fn end(self: &Arc<Self>) {
        if self.messages.end() {
            self.wake();
        }
    }

    /// Have the loop serve whoever waits. Which future gets which message is decided there and then: the one that
    /// waits now may have been cancelled by that time, and its message must not be lost.
    fn wake(self: &Arc<Self>) {
        let inbox = self.clone();
        self.post.send(move |py| match inbox.messages.deliver() {
            Some(future) => inbox.take(future.into_bound(py)),
            None => Ok(()),
        });
    }

    /// Complete `future` with the next message (bytes) or with None at the end, now or later. One at a time.
    pub(crate) fn take(&self, future: Bound<'_, PyAny>) -> PyResult<()> {
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
}
