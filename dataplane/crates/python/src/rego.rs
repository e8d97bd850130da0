//! Rego for adapter `opa`.

use std::time::Duration;

use meshwright_rego::{Error, Policy, Version};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// Modules of Rego and the rule that decides.
#[pyclass(frozen, name = "RegoPolicy", module = "meshwright.dataplane._native")]
pub(crate) struct RegoPolicy(Policy);

#[pymethods]
impl RegoPolicy {
    #[new]
    fn new(modules: Vec<(String, String)>, rule: &str, is_v1: bool, limit_seconds: f64) -> PyResult<Self> {
        let version = if is_v1 { Version::V1 } else { Version::V0 };
        let limit =
            Duration::try_from_secs_f64(limit_seconds).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let modules = modules.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        match Policy::new(modules, rule, version, limit) {
            Ok(policy) => Ok(RegoPolicy(policy)),
            Err(error) => Err(PyValueError::new_err(error.to_string())),
        }
    }

    fn allows(&self, py: Python<'_>, input: &str) -> PyResult<bool> {
        py.detach(|| self.0.allows(input)).map_err(|error| match error {
            Error::Input(_) => PyValueError::new_err(error.to_string()),
            _ => PyRuntimeError::new_err(error.to_string()),
        })
    }
}
