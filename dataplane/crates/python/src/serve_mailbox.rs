//! The hand-over from Rust's threads to one asyncio loop: a queue and an eventfd that the loop watches.
//!
//! Rust only rings the eventfd when the queue goes from empty to non-empty, so that all that arrives together wakes
//! the loop once, and no thread of ours ever waits for the GIL. The queue needs no bound of its own: each call posts
//! what its own bounds allow (one opening, one awaited read or write, one end).

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use pyo3::prelude::*;

type Letter = Box<dyn FnOnce(Python<'_>) -> PyResult<()> + Send>;

/// The sending half, for Rust.
pub(crate) struct Post {
    queue: Mutex<Queue>,
    bell: EventFd,
}

#[derive(Default)]
struct Queue {
    letters: Vec<Letter>,
    closed: bool,
}

impl Post {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Have `letter` run on the loop's thread, with the GIL.
    pub(crate) fn send(&self, letter: impl FnOnce(Python<'_>) -> PyResult<()> + Send + 'static) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        queue.letters.push(Box::new(letter));
        let is_first = queue.letters.len() == 1;
        drop(queue);
        if is_first {
            // Fails only when the counter would overflow: it rings already then.
            let _ = self.bell.write(1);
        }
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
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(std::io::Error::from)?;
        Ok(Self {
            post: Arc::new(Post {
                queue: Mutex::default(),
                bell,
            }),
        })
    }

    fn fileno(&self) -> RawFd {
        self.post.bell.as_raw_fd()
    }

    /// Run all that has arrived.
    fn drain(&self, py: Python<'_>) {
        let _ = self.post.bell.read(); // nothing to read: another drain was faster
        let letters = std::mem::take(&mut self.post.lock().letters);
        for letter in letters {
            if let Err(error) = letter(py) {
                error.write_unraisable(py, None);
            }
        }
    }

    /// Drop what has arrived and all that will.
    fn close(&self) {
        let letters = {
            let mut queue = self.post.lock();
            queue.closed = true;
            std::mem::take(&mut queue.letters)
        };
        drop(letters);
    }
}
