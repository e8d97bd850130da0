//! Records of calls for Python, which writes them to the log.

use std::sync::Arc;

use meshwright_serve::telemetry::access_log::{AccessLog, Record, Which};
use meshwright_serve::telemetry::meter::name_of;
use meshwright_serve::telemetry::span;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The access log that rules of ("/path.prefix", "off", "failed" or "all") describe.
pub(crate) fn access_log(rules: Vec<(String, String)>) -> PyResult<Arc<AccessLog>> {
    let rules = rules.into_iter().map(|(prefix, which)| match which.as_str() {
        "off" => Ok((prefix, Which::Off)),
        "failed" => Ok((prefix, Which::Failed)),
        "all" => Ok((prefix, Which::All)),
        other => Err(PyValueError::new_err(format!(
            "access_log: {other:?} is none of \"off\", \"failed\" and \"all\""
        ))),
    });
    Ok(AccessLog::new(rules.collect::<PyResult<Vec<_>>>()?))
}

/// A call that ended.
#[pyclass(frozen)]
pub(crate) struct AccessRecord(pub(crate) Record);

#[pymethods]
impl AccessRecord {
    #[getter]
    fn unix_ns(&self) -> u64 {
        self.0.at
    }

    #[getter]
    fn path(&self) -> &str {
        &self.0.path
    }

    #[getter]
    fn principal(&self) -> &str {
        &self.0.principal
    }

    #[getter]
    fn address(&self) -> &str {
        &self.0.address
    }

    #[getter]
    fn status(&self) -> &'static str {
        name_of(self.0.code)
    }

    #[getter]
    fn seconds(&self) -> f64 {
        self.0.took.as_secs_f64()
    }

    #[getter]
    fn request_messages(&self) -> u64 {
        self.0.request.messages
    }

    #[getter]
    fn request_bytes(&self) -> u64 {
        self.0.request.bytes
    }

    #[getter]
    fn response_messages(&self) -> u64 {
        self.0.response.messages
    }

    #[getter]
    fn response_bytes(&self) -> u64 {
        self.0.response.bytes
    }

    /// The trace's and the span's id in hexadecimal; nothing when the caller has no trace.
    #[getter]
    fn trace(&self) -> Option<(String, String)> {
        self.0
            .trace
            .map(|place: span::Context| (place.trace_hex(), place.span_hex()))
    }
}
