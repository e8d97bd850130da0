//! The hand-over from Rust's threads to one asyncio loop: a queue and an eventfd that the loop watches.
//!
//! Rust only rings the eventfd when the queue goes from empty to non-empty, so that all that arrives together wakes
//! the loop once, and no thread of ours ever waits for the GIL. The queue needs no bound of its own: each call posts
//! what its own bounds allow (one opening, one awaited read or write, one end).

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use meshwright_handover as handover;
use pyo3::prelude::*;

use crate::bell::Bell;

type Letter = Box<dyn FnOnce(Python<'_>) -> PyResult<()> + Send>;

/// The sending half, for Rust.
pub(crate) struct Post(handover::Post<Letter, Bell>);

impl Post {
    /// Have `letter` run on the loop's thread, with the GIL.
    pub(crate) fn send(&self, letter: impl FnOnce(Python<'_>) -> PyResult<()> + Send + 'static) {
        self.0.send(Box::new(letter));
    }

    /// The same for the beginning of a call; `is_lone`: no other is under way, so that nothing else is about to come.
    pub(crate) fn send_call(&self, is_lone: bool, letter: impl FnOnce(Python<'_>) -> PyResult<()> + Send + 'static) {
        self.0.bell().expect(is_lone);
        self.0.send(Box::new(letter));
    }

    /// For how long letters have waited for the loop; nothing when none wait.
    pub(crate) fn waited(&self) -> Option<Duration> {
        self.0.bell().waited()
    }

    /// Complete an asyncio future with what `value` makes, unless somebody has given up on it.
    pub(crate) fn complete<F>(&self, future: Py<PyAny>, value: F)
    where
        F: FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        self.send(move |py| complete(py, future.bind(py), value(py)));
    }
}

/// Set a future's result or exception, unless it is done.
pub(crate) fn complete(py: Python<'_>, future: &Bound<'_, PyAny>, value: PyResult<Py<PyAny>>) -> PyResult<()> {
    if future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match value {
        Ok(value) => future.call_method1(pyo3::intern!(py, "set_result"), (value,))?,
        Err(error) => future.call_method1(pyo3::intern!(py, "set_exception"), (error,))?,
    };
    Ok(())
}

/// The receiving half, for one asyncio loop: `loop.add_reader(mailbox.fileno(), mailbox.drain)`.
#[pyclass(frozen)]
pub(crate) struct Mailbox {
    post: Arc<Post>,
}

impl Mailbox {
    pub(crate) fn post(&self) -> Arc<Post> {
        self.post.clone()
    }
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self {
            post: Arc::new(Post(handover::Post::new(Bell::new()?))),
        })
    }

    fn fileno(&self) -> RawFd {
        self.post.0.bell().fileno()
    }

    /// Run all that has arrived.
    fn drain(&self, py: Python<'_>) {
        let letters = self.post.0.drain();
        self.post.0.bell().found(letters.len());
        for letter in letters {
            if let Err(error) = letter(py) {
                error.write_unraisable(py, None);
            }
        }
    }

    /// Drop what has arrived and all that will.
    fn close(&self) {
        self.post.0.close();
    }
}
