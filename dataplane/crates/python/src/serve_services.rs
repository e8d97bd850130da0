//! Native handlers on their way from other native modules, through Python, to a server.

use meshwright_serve::Services;
use pyo3::prelude::*;

type Add = dyn Fn(Services) -> Services + Send + Sync;

/// A set of gRPC services written in Rust: `NativeServer(native=[...])` takes it.
#[pyclass(frozen)]
pub(crate) struct NativeServices(Box<Add>);

impl NativeServices {
    /// For other native modules: `NativeServices::new(move |services| services.add(MixerServer::new(mixer.clone()), &["Check"]))`.
    #[allow(dead_code, reason = "used by the modules that define native services")]
    pub(crate) fn new(add: impl Fn(Services) -> Services + Send + Sync + 'static) -> Self {
        Self(Box::new(add))
    }

    pub(crate) fn add_to(&self, services: Services) -> Services {
        (self.0)(services)
    }
}

#[pymethods]
impl NativeServices {
    /// The full names, e.g. "istio.mixer.v1.Mixer".
    #[getter]
    fn names(&self) -> Vec<&'static str> {
        self.add_to(Services::default()).names().collect()
    }

    /// The paths of their methods, e.g. "/istio.mixer.v1.Mixer/Check".
    #[getter]
    fn methods(&self) -> Vec<String> {
        self.add_to(Services::default()).methods().collect()
    }
}
