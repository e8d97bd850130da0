//! Who may call what, for Python: read once, asked by servers in Rust.

use meshwright_serve::Rules;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::serve_identity::to_python;

/// Authorization rules of a server.
#[pyclass(frozen, name = "Rules")]
pub(crate) struct PyRules(pub(crate) Rules);

#[pymethods]
impl PyRules {
    /// `rules` are (path prefix, caller patterns).
    #[new]
    fn new(rules: Vec<(String, Vec<String>)>) -> PyResult<Self> {
        Rules::new(rules).map(Self).map_err(to_python)
    }

    /// Whether a caller with one of `names` may call the method at `path`.
    fn allows(&self, path: &str, names: Vec<PyBackedStr>) -> bool {
        self.0.allow_any(path, names.iter().map(|name| &**name))
    }
}
