//! Compression as Python names it ("gzip", "deflate", None), and messages framed outside the GIL where that takes time.

use bytes::Bytes;
use meshwright_serve::{Encoding, wire::frame};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Bytes from which compressing takes longer than passing the GIL on and taking it back.
const LONG: usize = 1024;

/// "gzip" or "deflate".
pub(crate) struct PyEncoding(pub(crate) Encoding);

impl FromPyObject<'_, '_> for PyEncoding {
    type Error = PyErr;

    fn extract(name: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        match name.extract()? {
            "gzip" => Ok(Self(Encoding::Gzip)),
            "deflate" => Ok(Self(Encoding::Deflate)),
            other => Err(PyValueError::new_err(format!(
                "compression: {other:?} is unknown; choose \"gzip\", \"deflate\" or None"
            ))),
        }
    }
}

/// A message in its frame.
pub(crate) fn frame(py: Python<'_>, encoding: Option<Encoding>, message: &[u8]) -> Bytes {
    if encoding.is_some() && message.len() >= LONG {
        py.detach(|| frame::encode_as(encoding, message))
    } else {
        frame::encode_as(encoding, message)
    }
}
