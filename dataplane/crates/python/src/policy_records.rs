//! The way of reports for Python: it starts the way, takes batches for its adapters, and asks what happened.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use meshwright_reports::{Nats, Task};
use prost::Message;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Where NATS is, and the stream's limits.
#[pyclass(frozen)]
pub(crate) struct RecordQueue(pub(crate) Nats);

#[pymethods]
impl RecordQueue {
    #[new]
    #[pyo3(signature = (servers, tls, user, *, max_bytes, replicas))]
    fn new(servers: Vec<String>, tls: Option<PathBuf>, user: String, max_bytes: i64, replicas: usize) -> Self {
        Self(Nats {
            servers,
            tls,
            user,
            bytes: max_bytes,
            replicas,
        })
    }
}

/// Records for adapters in Python, until they are settled; dropped unsettled, they come again.
#[pyclass(frozen)]
pub(crate) struct RecordBatch(Mutex<Option<Task>>);

impl RecordBatch {
    pub(crate) fn new(task: Task) -> Self {
        Self(Mutex::new(Some(task)))
    }
}

#[pymethods]
impl RecordBatch {
    /// Serialised records, and whether each may have been handled before.
    #[getter]
    fn records<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, bool)> {
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(task) = &*task else { return Vec::new() };
        let serialised = |(record, redelivered): &(meshwright_api::meshwright::mixer::v1::Record, bool)| {
            (PyBytes::new(py, &record.encode_to_vec()), *redelivered)
        };
        task.records.iter().map(serialised).collect()
    }

    fn settle(&self, refused: Vec<String>) -> PyResult<()> {
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = task.ok_or_else(|| PyValueError::new_err("the batch is settled already"))?;
        task.settle(refused);
        Ok(())
    }
}
