//! Finished spans for Python, which exports them.

use std::sync::{Arc, OnceLock};

use meshwright_serve::telemetry::span::{Kind, Recorder, Span, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::serve_descriptors::seconds;

/// Spans that wait for the exporter at most; then new ones are dropped and counted.
const CAPACITY: usize = 8192;

/// The process's one queue of finished spans; calls get none before somebody comes for them.
pub(crate) fn recorder() -> Arc<Recorder> {
    static RECORDER: OnceLock<Arc<Recorder>> = OnceLock::new();
    RECORDER.get_or_init(|| Recorder::from_first_drain(CAPACITY)).clone()
}

/// A finished span.
#[pyclass(frozen)]
pub(crate) struct NativeSpan(Span);

#[pymethods]
impl NativeSpan {
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    fn trace_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.context.trace_id)
    }

    #[getter]
    fn span_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.context.span_id)
    }

    #[getter]
    fn parent_span_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.parent.map(|id| PyBytes::new(py, &id))
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match self.0.kind {
            Kind::Internal => "internal",
            Kind::Server => "server",
            Kind::Client => "client",
            Kind::Consumer => "consumer",
        }
    }

    #[getter]
    fn start_unix_ns(&self) -> u64 {
        self.0.start
    }

    #[getter]
    fn end_unix_ns(&self) -> u64 {
        self.0.end
    }

    #[getter]
    fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }

    #[getter]
    fn attributes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in &self.0.attributes {
            match value {
                Value::Text(text) => dict.set_item(name, text.as_ref())?,
                Value::Integer(number) => dict.set_item(name, number)?,
                Value::Bool(truth) => dict.set_item(name, truth)?,
                Value::Float(number) => dict.set_item(name, number)?,
            }
        }
        Ok(dict)
    }
}

/// Take up to `most` finished spans; wait up to `timeout` seconds for the first.
#[pyfunction]
pub(crate) fn drain_spans(py: Python<'_>, most: usize, timeout: f64) -> PyResult<Vec<NativeSpan>> {
    let timeout = seconds("timeout", timeout)?;
    Ok(py
        .detach(|| recorder().drain(most, timeout))
        .into_iter()
        .map(NativeSpan)
        .collect())
}

/// How many spans were dropped because the queue was full.
#[pyfunction]
pub(crate) fn dropped_spans() -> u64 {
    recorder().dropped()
}
