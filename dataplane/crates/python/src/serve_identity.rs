//! The identity in use, for Python: handed to servers and channels, and rotated by whoever renews it.

use std::collections::HashMap;
use std::sync::Arc;

use meshwright_serve::{Error, Identities, Identity, Versions};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};

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

type Federated = HashMap<String, PyBackedBytes>;

fn read(
    py: Python<'_>,
    cert_chain_pem: &[u8],
    key_pem: &[u8],
    bundle_pem: &[u8],
    federated: Federated,
) -> PyResult<Identity> {
    let federated: Vec<_> = federated
        .into_iter()
        .map(|(domain, bundle)| (domain, bundle.to_vec()))
        .collect();
    py.detach(|| Identity::from_pem_federated(cert_chain_pem, key_pem, bundle_pem, &federated))
        .map_err(to_python)
}

#[pymethods]
impl PyIdentity {
    /// `federated` has the bundles of other trust domains by name; `tls_versions` has "1.3" and perhaps "1.2".
    #[new]
    #[pyo3(signature = (cert_chain_pem, key_pem, bundle_pem, federated, tls_versions))]
    fn new(
        py: Python<'_>,
        cert_chain_pem: &[u8],
        key_pem: &[u8],
        bundle_pem: &[u8],
        federated: Federated,
        tls_versions: Vec<PyBackedStr>,
    ) -> PyResult<Self> {
        let versions = Versions::parse(tls_versions.iter().map(|name| &**name)).map_err(to_python)?;
        let identity = read(py, cert_chain_pem, key_pem, bundle_pem, federated)?;
        Ok(Self {
            identities: Identities::with_versions(identity, versions),
        })
    }

    /// Use another identity from the next handshake on.
    fn rotate(
        &self,
        py: Python<'_>,
        cert_chain_pem: &[u8],
        key_pem: &[u8],
        bundle_pem: &[u8],
        federated: Federated,
    ) -> PyResult<()> {
        self.identities
            .rotate(read(py, cert_chain_pem, key_pem, bundle_pem, federated)?);
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
