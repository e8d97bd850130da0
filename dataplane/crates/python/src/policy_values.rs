//! Values of attributes, as Python has them and as the wire has them.

use std::collections::HashMap;

use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value;
use meshwright_api::istio::mixer::v1::attributes::{AttributeValue, StringMap};
use prost_types::{Duration, Timestamp};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString, PyType};

static ADDRESS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static EPOCH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static DATETIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static TIMEDELTA: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Bytes of an address's length are an address, as the engine sends no others.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &AttributeValue) -> PyResult<Bound<'py, PyAny>> {
    Ok(match &value.value {
        None => PyString::new(py, "").into_any(),
        Some(Value::StringValue(text)) => PyString::new(py, text).into_any(),
        Some(Value::Int64Value(number)) => number.into_pyobject(py)?.into_any(),
        Some(Value::DoubleValue(number)) => PyFloat::new(py, *number).into_any(),
        Some(Value::BoolValue(truth)) => PyBool::new(py, *truth).to_owned().into_any(),
        Some(Value::BytesValue(octets)) => {
            let octets = PyBytes::new(py, octets);
            match octets.as_bytes().len() {
                4 | 16 => ADDRESS.import(py, "ipaddress", "ip_address")?.call1((octets,))?,
                _ => octets.into_any(),
            }
        }
        Some(Value::TimestampValue(time)) => {
            let since = span(py, time.seconds, time.nanos)?;
            epoch(py)?.call_method1(pyo3::intern!(py, "__add__"), (since,))?
        }
        Some(Value::DurationValue(duration)) => span(py, duration.seconds, duration.nanos)?,
        Some(Value::StringMapValue(map)) => {
            let dict = PyDict::new(py);
            for (key, value) in &map.entries {
                dict.set_item(key, value)?;
            }
            dict.into_any()
        }
    })
}

/// What an adapter put out; TypeError names what can't be an attribute.
pub(crate) fn from_python(value: &Bound<'_, PyAny>) -> PyResult<AttributeValue> {
    let py = value.py();
    let value = if let Ok(text) = value.cast::<PyString>() {
        Value::StringValue(text.to_cow()?.into_owned())
    } else if let Ok(truth) = value.cast::<PyBool>() {
        Value::BoolValue(truth.is_true()) // before int, which it is one of
    } else if value.is_instance_of::<PyInt>() {
        Value::Int64Value(value.extract()?)
    } else if let Ok(number) = value.cast::<PyFloat>() {
        Value::DoubleValue(number.value())
    } else if let Ok(octets) = value.cast::<PyBytes>() {
        Value::BytesValue(octets.as_bytes().to_vec().into())
    } else if value.is_instance(DATETIME.import(py, "datetime", "datetime")?)? {
        let (seconds, nanos) = parts(&value.sub(epoch(py)?)?)?;
        Value::TimestampValue(Timestamp { seconds, nanos })
    } else if value.is_instance(TIMEDELTA.import(py, "datetime", "timedelta")?)? {
        let (seconds, nanos) = parts(value)?;
        // Both of one sign, as the wire wants it.
        let carries = seconds < 0 && nanos > 0;
        Value::DurationValue(Duration {
            seconds: if carries { seconds + 1 } else { seconds },
            nanos: if carries { nanos - 1_000_000_000 } else { nanos },
        })
    } else if let Ok(packed) = value.getattr(pyo3::intern!(py, "packed")) {
        Value::BytesValue(packed.cast::<PyBytes>()?.as_bytes().to_vec().into())
    } else if let Ok(entries) = value.extract::<HashMap<String, String>>() {
        Value::StringMapValue(StringMap { entries })
    } else {
        let kind = value.get_type().qualname()?;
        return Err(PyTypeError::new_err(format!(
            "{kind} can't be an attribute's value: use text, numbers, bytes, times, addresses or a mapping of text"
        )));
    };
    Ok(AttributeValue { value: Some(value) })
}

fn epoch(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let epoch = EPOCH.get_or_try_init(py, || {
        let utc = py.import("datetime")?.getattr("UTC")?;
        let epoch = DATETIME
            .import(py, "datetime", "datetime")?
            .call1((1970, 1, 1, 0, 0, 0, 0, utc))?;
        Ok::<_, PyErr>(epoch.unbind())
    })?;
    Ok(epoch.bind(py))
}

fn span(py: Python<'_>, seconds: i64, nanos: i32) -> PyResult<Bound<'_, PyAny>> {
    TIMEDELTA
        .import(py, "datetime", "timedelta")?
        .call1((0, seconds, nanos / 1000))
}

/// Seconds, rounded down, and nanoseconds of a timedelta.
fn parts(delta: &Bound<'_, PyAny>) -> PyResult<(i64, i32)> {
    let py = delta.py();
    let days: i64 = delta.getattr(pyo3::intern!(py, "days"))?.extract()?;
    let seconds: i64 = delta.getattr(pyo3::intern!(py, "seconds"))?.extract()?;
    let micros: i32 = delta.getattr(pyo3::intern!(py, "microseconds"))?.extract()?;
    if days.unsigned_abs() > 100_000_000 {
        return Err(PyValueError::new_err("a time out of range"));
    }
    Ok((days * 86_400 + seconds, micros * 1000))
}
