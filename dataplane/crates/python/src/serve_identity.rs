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
/// Chains and their keys.
type Named = Vec<(PyBackedBytes, PyBackedBytes)>;

fn read(
    py: Python<'_>,
    cert_chain_pem: &[u8],
    key_pem: &[u8],
    bundle_pem: &[u8],
    federated: Federated,
    named: Named,
) -> PyResult<Identity> {
    let federated: Vec<_> = federated
        .into_iter()
        .map(|(domain, bundle)| (domain, bundle.to_vec()))
        .collect();
    let named: Vec<_> = named
        .iter()
        .map(|(chain, key)| (chain.to_vec(), key.to_vec()))
        .collect();
    py.detach(|| Identity::from_pem_named(cert_chain_pem, key_pem, bundle_pem, &federated, &named))
        .map_err(to_python)
}

#[pymethods]
impl PyIdentity {
    /// `federated` has the bundles of other trust domains by name; `named` further certificates of a server, for the DNS
    /// names that clients ask for; `tls_versions` has "1.3" and perhaps "1.2".
    #[new]
    #[pyo3(signature = (cert_chain_pem, key_pem, bundle_pem, federated, tls_versions, named = Vec::new()))]
    fn new(
        py: Python<'_>,
        cert_chain_pem: &[u8],
        key_pem: &[u8],
        bundle_pem: &[u8],
        federated: Federated,
        tls_versions: Vec<PyBackedStr>,
        named: Named,
    ) -> PyResult<Self> {
        let versions = Versions::parse(tls_versions.iter().map(|name| &**name)).map_err(to_python)?;
        let identity = read(py, cert_chain_pem, key_pem, bundle_pem, federated, named)?;
        Ok(Self {
            identities: Identities::with_versions(identity, versions),
        })
    }

    /// Use another identity from the next handshake on.
    #[pyo3(signature = (cert_chain_pem, key_pem, bundle_pem, federated, named = Vec::new()))]
    fn rotate(
        &self,
        py: Python<'_>,
        cert_chain_pem: &[u8],
        key_pem: &[u8],
        bundle_pem: &[u8],
        federated: Federated,
        named: Named,
    ) -> PyResult<()> {
        self.identities
            .rotate(read(py, cert_chain_pem, key_pem, bundle_pem, federated, named)?);
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
