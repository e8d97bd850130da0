//! The load generator for Python: one call a run, without the GIL but for the moments of its progress.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use meshwright_load::{Address, Arrivals, Error, Plan, Protocol, Report, Security};
use meshwright_serve::tls::spiffe::Expected;
use pyo3::exceptions::{PyConnectionError, PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::serve_identity::{self, PyIdentity};

const NANOSECONDS: f64 = 1e9;

/// What a run found. Latencies are in seconds.
#[pyclass(frozen, name = "LoadReport")]
pub(crate) struct LoadReport(Report);

#[pymethods]
impl LoadReport {
    /// The latency that this share (0 to 1) of the requests doesn't exceed.
    fn quantile(&self, share: f64) -> f64 {
        self.0.latencies.quantile(share) as f64 / NANOSECONDS
    }

    /// The same of the time from when a request was due to when it was sent.
    fn lag_quantile(&self, share: f64) -> f64 {
        self.0.lag.quantile(share) as f64 / NANOSECONDS
    }

    /// (from, to, count) of each range that has any.
    fn buckets(&self) -> Vec<(f64, f64, u64)> {
        let seconds = |nanoseconds: u64| nanoseconds as f64 / NANOSECONDS;
        let buckets = self.0.latencies.buckets();
        buckets
            .iter()
            .map(|bucket| (seconds(bucket.start), seconds(bucket.end), bucket.count))
            .collect()
    }

    #[getter]
    fn count(&self) -> u64 {
        self.0.latencies.count()
    }

    #[getter]
    fn min(&self) -> f64 {
        self.0.latencies.min() as f64 / NANOSECONDS
    }

    #[getter]
    fn max(&self) -> f64 {
        self.0.latencies.max() as f64 / NANOSECONDS
    }

    #[getter]
    fn mean(&self) -> f64 {
        self.0.latencies.mean() / NANOSECONDS
    }

    #[getter]
    fn deviation(&self) -> f64 {
        self.0.latencies.deviation() / NANOSECONDS
    }

    #[getter]
    fn statuses(&self) -> BTreeMap<u16, u64> {
        self.0.statuses.clone()
    }

    #[getter]
    fn failures(&self) -> BTreeMap<String, u64> {
        self.0.failures.clone()
    }

    #[getter]
    fn unsent(&self) -> u64 {
        self.0.unsent
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes
    }

    #[getter]
    fn reconnects(&self) -> u64 {
        self.0.reconnects
    }

    #[getter]
    fn warm_up(&self) -> u64 {
        self.0.warm_up
    }

    #[getter]
    fn elapsed(&self) -> f64 {
        self.0.elapsed.as_secs_f64()
    }
}

/// Run a load and return what it found. `on_progress(elapsed, answered, failed)` is called about ten times a second; a
/// true answer ends the run early, what it raises as well.
#[pyfunction]
#[pyo3(signature = (
    *, target, url, grpc, method, headers, body, rate, poisson, connections, streams, duration, warm_up, timeout, threads,
    authorities, identity, peer, on_progress
))]
#[allow(clippy::too_many_arguments)] // by name only, from one typed class of Python's
pub(crate) fn run_load(
    py: Python<'_>,
    target: &str,
    url: &str,
    grpc: bool,
    method: &str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    rate: f64,
    poisson: bool,
    connections: usize,
    streams: usize,
    duration: f64,
    warm_up: f64,
    timeout: f64,
    threads: usize,
    authorities: Option<Vec<u8>>,
    identity: Option<&PyIdentity>,
    peer: &str,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<LoadReport> {
    let uri: http::Uri = url.parse().map_err(|error| refuse("url", &error))?;
    let security = match (identity, authorities) {
        (Some(identity), _) => Security::Mesh {
            identities: identity.identities(),
            expected: Expected::parse(peer).map_err(serve_identity::to_python)?,
        },
        (None, Some(pem)) => Security::Authorities {
            pem,
            host: uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
        },
        (None, None) => Security::Plain,
    };
    let plan = Plan {
        address: match target.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(target.to_owned()),
        },
        security,
        protocol: if grpc { Protocol::Grpc } else { Protocol::Http1 },
        uri,
        method: method.parse().map_err(|error| refuse("method", &error))?,
        headers,
        body: Bytes::from(body),
        rate,
        arrivals: if poisson { Arrivals::Poisson } else { Arrivals::Constant },
        connections,
        streams,
        duration: seconds("duration", duration)?,
        warm_up: seconds("warm_up", warm_up)?,
        timeout: seconds("timeout", timeout)?,
        threads,
    };
    let mut raised = None;
    let found = py.detach(|| {
        meshwright_load::run(plan, |progress| {
            let heard = Python::attach(|py| {
                py.check_signals()?;
                let Some(on_progress) = &on_progress else {
                    return Ok(false);
                };
                let arguments = (progress.elapsed.as_secs_f64(), progress.answered, progress.failed);
                on_progress.call1(py, arguments)?.is_truthy(py)
            });
            match heard {
                Ok(false) => ControlFlow::Continue(()),
                Ok(true) => ControlFlow::Break(()),
                Err(error) => {
                    raised = Some(error);
                    ControlFlow::Break(())
                }
            }
        })
    });
    match raised {
        Some(error) => Err(error),
        None => found.map(LoadReport).map_err(to_python),
    }
}

fn seconds(field: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|error| refuse(field, &error))
}

fn refuse(field: &str, error: &dyn std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{field}: {error}"))
}

fn to_python(error: Error) -> PyErr {
    match error {
        Error::Plan { .. } => PyValueError::new_err(error.to_string()),
        Error::Connect { .. } => PyConnectionError::new_err(error.to_string()),
        Error::Machine(_) => PyOSError::new_err(error.to_string()),
    }
}
