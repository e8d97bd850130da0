//! What calls took, for Python, which shows it as metrics.

use std::sync::{Arc, OnceLock};

use meshwright_serve::telemetry::meter::{self, Meter, name_of};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The process's one meter of its servers.
pub(crate) fn server_meter() -> Arc<Meter> {
    static METER: OnceLock<Arc<Meter>> = OnceLock::new();
    METER.get_or_init(Meter::new).clone()
}

/// The process's one meter of its channels.
pub(crate) fn client_meter() -> Arc<Meter> {
    static METER: OnceLock<Arc<Meter>> = OnceLock::new();
    METER.get_or_init(Meter::new).clone()
}

/// The calls of one method.
#[pyclass(frozen, get_all)]
pub(crate) struct MethodCalls {
    method: String,
    address: String,
    started: u64,
    ended: Vec<Py<StatusCalls>>,
}

/// The calls of one method that ended with one status.
#[pyclass(frozen)]
pub(crate) struct StatusCalls(meter::Status);

#[pymethods]
impl StatusCalls {
    #[getter]
    fn status(&self) -> &'static str {
        name_of(self.0.code)
    }

    /// Calls in each bucket of `call_duration_bounds()`, and those beyond the last.
    #[getter]
    fn counts(&self) -> Vec<u64> {
        self.0.counts.to_vec()
    }

    #[getter]
    fn seconds(&self) -> f64 {
        self.0.seconds
    }

    /// A recorded call of each bucket: (seconds, trace id, span id, Unix time in ns), or nothing.
    #[getter]
    fn exemplars<'py>(&self, py: Python<'py>) -> Vec<Option<ExemplarTuple<'py>>> {
        let to_python = |exemplar: &meter::Exemplar| {
            let context = exemplar.context;
            let (trace, span) = (PyBytes::new(py, &context.trace_id), PyBytes::new(py, &context.span_id));
            (exemplar.seconds, trace, span, exemplar.at)
        };
        self.0
            .exemplars
            .iter()
            .map(|exemplar| exemplar.as_ref().map(to_python))
            .collect()
    }
}

type ExemplarTuple<'py> = (f64, Bound<'py, PyBytes>, Bound<'py, PyBytes>, u64);

/// Everything counted so far at a side, "server" or "client", by method.
#[pyfunction]
pub(crate) fn read_calls(py: Python<'_>, side: &str) -> PyResult<Vec<MethodCalls>> {
    let meter = match side {
        "server" => server_meter(),
        "client" => client_meter(),
        _ => return Err(PyValueError::new_err("side: must be \"server\" or \"client\"")),
    };
    let to_python = |reading: meter::Reading| {
        let ended = reading.statuses.into_iter();
        Ok(MethodCalls {
            method: reading.method.into(),
            address: reading.address.into(),
            started: reading.started,
            ended: ended
                .map(|status| Py::new(py, StatusCalls(status)))
                .collect::<PyResult<_>>()?,
        })
    };
    meter.read().into_iter().map(to_python).collect()
}

/// The upper bounds of the buckets, in seconds.
#[pyfunction]
pub(crate) fn call_duration_bounds() -> Vec<f64> {
    meter::BOUNDS.to_vec()
}

/// The name and port of the server that a channel's target names, as spans and metrics say them.
#[pyfunction]
pub(crate) fn server_of(target: &str) -> (&str, Option<i64>) {
    meshwright_serve::telemetry::conventions::server_of(target)
}
