//! Metadata between Python's pairs and HTTP/2 headers: keys that end in `-bin` carry bytes, all others text.

use http::HeaderMap;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue, KeyAndValueRef, MetadataKey, MetadataMap};

/// Headers of the protocol itself, which are no metadata.
const OWN: [&str; 8] = [
    "te",
    "content-type",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
    "grpc-status",
    "grpc-message",
    "host",
];

/// Headers from Python's sequence of (key, value).
pub(crate) fn from_python(pairs: Option<&Bound<'_, PyAny>>) -> PyResult<HeaderMap> {
    let Some(pairs) = pairs else {
        return Ok(HeaderMap::new());
    };
    let mut metadata = MetadataMap::new();
    for pair in pairs.try_iter()? {
        let (key, value): (String, Bound<'_, PyAny>) = pair?.extract()?;
        if OWN.contains(&key.as_str()) {
            return Err(PyValueError::new_err(format!(
                "metadata key {key:?} belongs to the protocol; choose another"
            )));
        }
        let refuse = |reason: String| PyValueError::new_err(format!("metadata {key:?}: {reason}"));
        if key.ends_with("-bin") {
            let bytes = value.cast::<PyBytes>().map_err(|_| wrong_type(&key, "bytes"))?;
            let name = MetadataKey::from_bytes(key.as_bytes()).map_err(|error| refuse(error.to_string()))?;
            metadata.append_bin(name, BinaryMetadataValue::from_bytes(bytes.as_bytes()));
        } else {
            // grpcio takes ASCII as bytes too.
            let text: Vec<u8> = match value.cast::<PyBytes>() {
                Ok(bytes) => bytes.as_bytes().to_vec(),
                Err(_) => value
                    .cast::<PyString>()
                    .map_err(|_| wrong_type(&key, "str"))?
                    .to_str()?
                    .as_bytes()
                    .to_vec(),
            };
            let name = MetadataKey::from_bytes(key.as_bytes()).map_err(|error| refuse(error.to_string()))?;
            let value = AsciiMetadataValue::try_from(text).map_err(|error| refuse(error.to_string()))?;
            metadata.append(name, value);
        }
    }
    Ok(metadata.into_headers())
}

fn wrong_type(key: &str, expected: &str) -> PyErr {
    PyTypeError::new_err(format!("metadata {key:?}: the value must be {expected}"))
}

/// Python's list of (key, value) from headers; what can't be decoded is left out.
pub(crate) fn to_python<'py>(py: Python<'py>, headers: &HeaderMap) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    let metadata = MetadataMap::from_headers(headers.clone());
    for entry in metadata.iter() {
        let pair = match entry {
            KeyAndValueRef::Ascii(key, _) if OWN.contains(&key.as_str()) => continue,
            KeyAndValueRef::Ascii(key, value) => match value.to_str() {
                Ok(text) => PyTuple::new(py, [PyString::new(py, key.as_str()), PyString::new(py, text)])?,
                Err(_) => continue,
            },
            KeyAndValueRef::Binary(key, value) => match value.to_bytes() {
                Ok(bytes) => PyTuple::new(
                    py,
                    [
                        PyString::new(py, key.as_str()).into_any(),
                        PyBytes::new(py, &bytes).into_any(),
                    ],
                )?,
                Err(_) => continue,
            },
        };
        list.append(pair)?;
    }
    Ok(list)
}
