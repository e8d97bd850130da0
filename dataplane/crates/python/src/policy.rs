//! The policy engine for Python: it loads policies and drains records; decisions never come here.

use std::sync::Arc;
use std::time::Duration;

use meshwright_checks::{Settings, State};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::serve_identity::{self, PyIdentity};
use crate::serve_runtime::runtime;
use crate::serve_services::NativeServices;

/// The engine of one mixer process with its gRPC handlers.
#[pyclass(frozen)]
pub(crate) struct PolicyEngine(Arc<State>);

#[pymethods]
impl PolicyEngine {
    #[new]
    #[pyo3(signature = (identity, record_bytes))]
    fn new(identity: Option<&PyIdentity>, record_bytes: usize) -> Self {
        Self(State::new(Settings {
            identities: identity.map(PyIdentity::identities),
            record_bytes,
        }))
    }

    fn load(&self, py: Python<'_>, compiled: &[u8]) -> PyResult<()> {
        py.detach(|| self.0.engine.load(compiled))
            .map_err(|refused| PyValueError::new_err(refused.to_string()))
    }

    fn check<'py>(&self, py: Python<'py>, request: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let response = py.detach(|| self.0.engine.check(request, self.0.now()));
        response
            .map(|response| PyBytes::new(py, &response))
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn drain_records<'py>(&self, py: Python<'py>, most: usize, timeout: f64) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let timeout = Duration::try_from_secs_f64(timeout)
            .map_err(|error| PyValueError::new_err(format!("timeout: {error}; give seconds from 0 on")))?;
        let records = py.detach(|| self.0.records.drain(most, timeout));
        Ok(records.iter().map(|record| PyBytes::new(py, record)).collect())
    }

    fn set_replicas(&self, py: Python<'_>, own_id: &str, replicas: Vec<(String, String)>) -> PyResult<()> {
        py.detach(|| {
            // Channels begin their work on the runtime.
            let _runtime = runtime().enter();
            self.0.set_replicas(own_id, &replicas)
        })
        .map_err(serve_identity::to_python)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        for (name, value) in self.0.counters.read() {
            stats.set_item(name, value)?;
        }
        let (cells, refused_full) = self.0.engine.cells.statistics();
        stats.set_item("quota_cells", cells)?;
        stats.set_item("quota_cells_refused_full", refused_full)?;
        stats.set_item("records_waiting", self.0.records.len())?;
        stats.set_item("rules", self.0.engine.program().rule_count())?;
        Ok(stats)
    }

    #[getter]
    fn revision(&self) -> String {
        self.0.engine.program().revision().to_owned()
    }

    #[getter]
    fn services(&self) -> NativeServices {
        let state = self.0.clone();
        NativeServices::new(move |services| meshwright_checks::add_to(services, &state))
    }
}
