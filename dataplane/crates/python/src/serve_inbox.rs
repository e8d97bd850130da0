//! Messages on their way to Python: a task reads ahead, a handler or caller takes one at a time.
//!
//! Bounded to [`AHEAD`] bytes and [`MESSAGES`] messages: the task stops reading when Python is slow, and HTTP/2's flow
//! control then stops the peer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Notify;

use crate::serve_mailbox::{Post, complete};

/// Bytes after which no further message is read ahead; one message may be longer.
const AHEAD: usize = 64 << 10;
/// Messages that are read ahead at most.
const MESSAGES: usize = 1024;

/// Between the reading task and Python.
pub(crate) struct Inbox {
    post: Arc<Post>,
    state: Mutex<State>,
    room: Notify,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    waiting: Option<Py<PyAny>>,
    delivering: bool,
}

impl Inbox {
    pub(crate) fn new(post: Arc<Post>) -> Arc<Self> {
        Arc::new(Self {
            post,
            state: Mutex::default(),
            room: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hand over a message; waits while Python is behind.
    pub(crate) async fn put(self: &Arc<Self>, message: Bytes) {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.bytes < AHEAD && state.messages.len() < MESSAGES {
                    state.bytes += message.len();
                    state.messages.push_back(message);
                    return self.wake(state);
                }
            }
            room.await;
        }
    }

    /// No more messages follow.
    pub(crate) fn end(self: &Arc<Self>) {
        let mut state = self.lock();
        state.ended = true;
        self.wake(state);
    }

    /// Have the loop serve whoever waits. Which future gets which message is decided there and then: the one that
    /// waits now may have been cancelled by that time, and its message must not be lost.
    fn wake(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.waiting.is_some() && !std::mem::replace(&mut state.delivering, true) {
            drop(state);
            let inbox = self.clone();
            self.post.send(move |py| inbox.deliver(py));
        }
    }

    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock();
        state.delivering = false;
        match state.waiting.take() {
            Some(future) => {
                drop(state);
                self.take(future.into_bound(py))
            }
            None => Ok(()),
        }
    }

    /// Complete `future` with the next message (bytes) or with None at the end, now or later. One at a time.
    pub(crate) fn take(&self, future: Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        if future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        let mut state = self.lock();
        let value = match state.messages.pop_front() {
            Some(message) => {
                state.bytes -= message.len();
                PyBytes::new(py, &message).into_any().unbind()
            }
            None if state.ended => py.None(),
            None => {
                state.waiting = Some(future.unbind());
                return Ok(());
            }
        };
        drop(state);
        self.room.notify_one();
        complete(py, &future, Ok(value))
    }
}
