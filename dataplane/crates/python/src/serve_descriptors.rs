//! Descriptors for Python: numbers on the surface, owned descriptors inside.

use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use meshwright_serve::Descriptors;
use meshwright_serve::wire::descriptors::Refused;
use pyo3::exceptions::{PyConnectionError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;

use crate::serve_mailbox::Post;
use crate::serve_runtime::runtime;

/// Complete `future` with the number of the descriptor of (dev, ino), which Python then owns.
pub(crate) fn take(
    post: Arc<Post>,
    from: Descriptors,
    key: (u64, u64),
    timeout: f64,
    future: Py<PyAny>,
) -> PyResult<()> {
    let timeout = seconds("timeout", timeout)?;
    runtime().spawn(async move {
        let taken = from.take(key, timeout).await;
        // Handed over only if the future still waits: otherwise the descriptor closes here.
        post.send(move |py| {
            let future = future.bind(py);
            if future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? {
                return Ok(());
            }
            match taken {
                Ok(descriptor) => future.call_method1(pyo3::intern!(py, "set_result"), (descriptor.into_raw_fd(),))?,
                Err(refused) => future.call_method1(pyo3::intern!(py, "set_exception"), (to_python(&refused),))?,
            };
            Ok(())
        });
    });
    Ok(())
}

/// A duplicate of Python's descriptor number: the caller keeps its own.
pub(crate) fn duplicate(number: RawFd) -> PyResult<OwnedFd> {
    if number < 0 {
        return Err(PyValueError::new_err("descriptor: a descriptor isn't negative"));
    }
    // SAFETY: only borrowed for the duplication; a number that isn't open gives EBADF.
    Ok(unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?)
}

pub(crate) fn to_python(refused: &Refused) -> PyErr {
    match refused {
        Refused::Missing(..) => PyTimeoutError::new_err(refused.to_string()),
        Refused::Closed | Refused::Full => PyConnectionError::new_err(refused.to_string()),
    }
}

/// A duration from Python's seconds.
pub(crate) fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    // Negative is "already over", as in grpcio; a century is as good as for ever and can't overflow a clock.
    Duration::try_from_secs_f64(value.clamp(0.0, 3.2e9))
        .map_err(|_| PyValueError::new_err(format!("{name}: {value} is no number of seconds")))
}

/// How many descriptors all connections of this process hold now.
#[pyfunction]
pub(crate) fn open_descriptors() -> usize {
    meshwright_serve::wire::descriptors::open()
}
