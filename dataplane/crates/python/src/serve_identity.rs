//! The identity in use, for Python: handed to servers and channels, and rotated by whoever renews it.

use std::sync::Arc;

use meshwright_serve::{Error, Identities, Identity};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

/// An X.509 identity that may be replaced while servers and channels use it.
#[pyclass(frozen, name = "Identity")]
pub(crate) struct PyIdentity {
    identities: Arc<Identities>,
}

impl PyIdentity {
    /// For other native code that opens channels of its own.
    pub(crate) fn identities(&self) -> Arc<Identities> {
        self.identities.clone()
    }
}

#[pymethods]
impl PyIdentity {
    #[new]
    fn new(py: Python<'_>, cert_chain_pem: &[u8], key_pem: &[u8], bundle_pem: &[u8]) -> PyResult<Self> {
        let read = py.detach(|| Identity::from_pem(cert_chain_pem, key_pem, bundle_pem));
        Ok(Self {
            identities: Identities::new(read.map_err(to_python)?),
        })
    }

    /// Use another identity from the next handshake on.
    fn rotate(&self, py: Python<'_>, cert_chain_pem: &[u8], key_pem: &[u8], bundle_pem: &[u8]) -> PyResult<()> {
        let read = py.detach(|| Identity::from_pem(cert_chain_pem, key_pem, bundle_pem));
        self.identities.rotate(read.map_err(to_python)?);
        Ok(())
    }

    #[getter]
    fn spiffe_id(&self) -> String {
        self.identities.current().id().to_string()
    }
}

/// An address that can't be bound is an `OSError`; all else is a wrong value.
pub(crate) fn to_python(error: Error) -> PyErr {
    match &error {
        Error::Bind { source, .. } => match source.raw_os_error() {
            Some(number) => PyOSError::new_err((number, error.to_string())),
            None => PyOSError::new_err(error.to_string()),
        },
        Error::Served { .. } => PyOSError::new_err((libc::EADDRINUSE, error.to_string())),
        _ => PyValueError::new_err(error.to_string()),
    }
}
