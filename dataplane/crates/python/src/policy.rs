//! The policy engine for Python: it loads policies and starts the way of reports; decisions never come here.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use meshwright_checks::guard::{BreakerState, Failure};
use meshwright_checks::{Settings, State};
use meshwright_policy::{Host, Lease, Program, Want};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::policy_questions::QuestionBox;
use crate::policy_records::{RecordBatch, RecordQueue};
use crate::serve_descriptors::seconds;
use crate::serve_identity::{self, PyIdentity};
use crate::serve_runtime::runtime;
use crate::serve_services::NativeServices;
use crate::serve_telemetry::recorder;

/// The engine of one mixer process with its gRPC handlers.
#[pyclass(frozen)]
pub(crate) struct PolicyEngine {
    state: Arc<State>,
    /// Policies that were replaced, for as long as requests use them.
    replaced: Mutex<Vec<Weak<Program>>>,
}

#[pymethods]
impl PolicyEngine {
    #[new]
    #[pyo3(signature = (identity, record_bytes))]
    fn new(identity: Option<&PyIdentity>, record_bytes: usize) -> Self {
        Self {
            state: State::new(Settings {
                identities: identity.map(PyIdentity::identities),
                record_bytes,
            }),
            replaced: Mutex::default(),
        }
    }

    fn load(&self, py: Python<'_>, compiled: &[u8]) -> PyResult<()> {
        py.detach(|| {
            let before = Arc::downgrade(&self.state.engine.program());
            self.state.load(compiled)?;
            self.replaced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(before);
            Ok(())
        })
        .map_err(|reason: String| PyValueError::new_err(reason))
    }

    /// How many replaced policies requests still use.
    fn outdated(&self) -> usize {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|program| program.strong_count() > 0);
        replaced.len()
    }

    /// Ask adapters in Python through `questions`.
    fn ask_python(&self, questions: &QuestionBox) {
        self.state.set_ask(Host::Python, questions.way());
    }

    fn check<'py>(&self, py: Python<'py>, request: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let response = py.detach(|| self.state.engine.check(request, self.state.now()));
        response
            .map(|response| PyBytes::new(py, &response))
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[pyo3(signature = (request, at, charge))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        at: Option<u64>,
        charge: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let now = at.unwrap_or_else(|| self.state.now());
        py.detach(|| meshwright_checks::explain(&self.state.engine, request, now, charge))
            .map(|response| PyBytes::new(py, &response))
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn attributes<'py>(&self, py: Python<'py>, prefix: &str) -> Bound<'py, PyBytes> {
        let response = py.detach(|| self.state.sampler.read(prefix));
        PyBytes::new(py, &response)
    }

    fn decisions<'py>(&self, py: Python<'py>, start: u64) -> Bound<'py, PyBytes> {
        let batch = py.detach(|| self.state.log.read(start));
        PyBytes::new(py, &batch)
    }

    fn trials(&self) -> Vec<(String, u64)> {
        self.state.log.trials()
    }

    /// Begins to store reports and to deliver them; without a queue they stay in this process.
    #[pyo3(signature = (queue, *, memory_bytes, batch_records, batch_seconds, rest_seconds))]
    fn carry_records(
        &self,
        py: Python<'_>,
        queue: Option<&RecordQueue>,
        memory_bytes: usize,
        batch_records: usize,
        batch_seconds: f64,
        rest_seconds: f64,
    ) -> PyResult<()> {
        let settings = meshwright_reports::Settings {
            nats: queue.map(|queue| queue.0.clone()),
            memory_bytes,
            batch_records,
            batch_wait: seconds("batch_seconds", batch_seconds)?,
            longest_rest: seconds("rest_seconds", rest_seconds)?,
            recorder: recorder(),
        };
        py.detach(|| runtime().block_on(self.state.carry(settings)))
            .map_err(PyValueError::new_err)
    }

    fn take_records(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<RecordBatch>> {
        let timeout = seconds("timeout", timeout)?;
        let task = py.detach(|| self.state.reports.handover.take(timeout));
        Ok(task.map(RecordBatch::new))
    }

    fn finish_records(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds("timeout", timeout)?;
        Ok(py.detach(|| runtime().block_on(self.state.reports.finish(timeout))))
    }

    fn record_faults(&self) -> Vec<(String, String)> {
        self.state.reports.faults()
    }

    /// (handler, adapter, instances taken, batches refused) of each native handler.
    fn record_handlers(&self) -> Vec<(String, String, u64, u64)> {
        let counts = self.state.reports.counters.sinks().into_iter();
        counts
            .map(|(name, counts)| (name, counts.adapter, counts.handled, counts.failed))
            .collect()
    }

    fn prometheus(&self, py: Python<'_>, openmetrics: bool) -> String {
        py.detach(|| self.state.reports.exposition(openmetrics))
    }

    /// The value of a remote handler's authorization entry; None: there is none at present.
    fn set_authorization(&self, handler: &str, value: Option<&str>) -> PyResult<()> {
        let set = self.state.remotes.set_authorization(handler, value);
        set.map_err(PyValueError::new_err)
    }

    /// The session that a remote handler's adapter keeps for it; None: there is none at present.
    fn set_session(&self, handler: &str, id: Option<&str>) -> PyResult<()> {
        self.state
            .remotes
            .set_session(handler, id)
            .map_err(PyValueError::new_err)
    }

    /// What became of the questions to remote adapters, by handler.
    fn remote_statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (handler, statistics) in self.state.remotes.statistics() {
            let each = PyDict::new(py);
            each.set_item("asked", statistics.asked)?;
            let failures = PyDict::new(py);
            for (failure, count) in Failure::ALL.iter().zip(statistics.failures) {
                failures.set_item(failure.name(), count)?;
            }
            each.set_item("failures", failures)?;
            each.set_item("durations", statistics.durations.to_vec())?;
            each.set_item("duration_micros", statistics.duration_micros)?;
            each.set_item("in_flight", statistics.in_flight)?;
            let breaker = match statistics.breaker {
                BreakerState::Closed => "closed",
                BreakerState::HalfOpen => "half_open",
                BreakerState::Open => "open",
            };
            each.set_item("breaker", breaker)?;
            all.set_item(handler, each)?;
        }
        Ok(all)
    }

    fn set_replicas(&self, py: Python<'_>, own_id: &str, replicas: Vec<(String, String)>) -> PyResult<()> {
        py.detach(|| {
            // Channels begin their work on the runtime.
            let _runtime = runtime().enter();
            self.state.set_replicas(own_id, &replicas)
        })
        .map_err(serve_identity::to_python)
    }

    fn set_rate_limit_headers(&self, are_sent: bool) {
        self.state.rate_limit_headers.store(are_sent, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.state.now()
    }

    #[allow(clippy::type_complexity, reason = "a tuple is what Python takes apart")]
    fn wanted_leases<'py>(
        &self,
        py: Python<'py>,
        timeout: f64,
    ) -> PyResult<Vec<(Bound<'py, PyBytes>, u64, i64, u64, bool, i64, u64, Vec<(u64, i64, u64)>)>> {
        let timeout = Duration::try_from_secs_f64(timeout)
            .map_err(|error| PyValueError::new_err(format!("timeout: {error}; give seconds from 0 on")))?;
        let wanted = py.detach(|| self.state.wanted_leases(timeout));
        let tuple = |want: Want| {
            let settled = want.settled.iter().map(|slice| (slice.id, slice.used, slice.counted));
            (
                PyBytes::new(py, &want.cell),
                want.id,
                want.max,
                want.window,
                want.is_fixed,
                want.amount,
                want.life,
                settled.collect(),
            )
        };
        Ok(wanted.into_iter().map(tuple).collect())
    }

    fn leased(&self, py: Python<'_>, cell: &[u8], id: u64, lease: Option<(i64, u64, u64, u64)>) {
        let lease = lease.map(|(amount, until, counted, more_at)| Lease {
            id,
            amount,
            until,
            counted,
            more_at,
        });
        py.detach(|| self.state.leased(cell, id, lease));
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        for (name, value) in self
            .state
            .counters
            .read()
            .into_iter()
            .chain(self.state.reports.counters.read())
        {
            stats.set_item(name, value)?;
        }
        let (cells, refused_full) = self.state.engine.cells.statistics();
        stats.set_item("quota_cells", cells)?;
        let (found, kept) = self.state.replies();
        stats.set_item("replies_reused", found)?;
        stats.set_item("replies_kept", kept)?;
        stats.set_item("quota_cells_refused_full", refused_full)?;
        stats.set_item("records_waiting", self.state.reports.outbox.waiting())?;
        stats.set_item("rules", self.state.engine.program().rule_count())?;
        Ok(stats)
    }

    #[getter]
    fn revision(&self) -> String {
        self.state.engine.program().revision().to_owned()
    }

    #[getter]
    fn services(&self) -> NativeServices {
        let state = self.state.clone();
        NativeServices::new(move |services| meshwright_checks::add_to(services, &state))
    }
}
