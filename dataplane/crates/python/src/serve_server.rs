//! The gRPC server for Python; `meshwright.dataplane.grpc.NativeServer` wraps it.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use meshwright_serve::busy_poll::Hold;
use meshwright_serve::{AccessLog, CallRate, End, Limits, Listener, Load, Running, Server, Services, Stats};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::serve_access_log::{self as access_log, AccessRecord};
use crate::serve_compression::PyEncoding;
use crate::serve_descriptors::seconds;
use crate::serve_handlers::{Handlers, Method, PythonFallback};
use crate::serve_identity::{PyIdentity, to_python};
use crate::serve_mailbox::Mailbox;
use crate::serve_metrics::server_meter;
use crate::serve_rules::PyRules;
use crate::serve_runtime::{busy_poll as polling, runtime};
use crate::serve_services::NativeServices;
use crate::serve_stall::watch_loop;
use crate::serve_telemetry::recorder;

/// The limits of `meshwright.dataplane.grpc.Limits`, by attribute.
#[derive(FromPyObject)]
pub(crate) struct PyLimits {
    message_size: usize,
    metadata_size: u32,
    concurrent_streams: u32,
    connections: usize,
    connections_per_peer: usize,
    pending_calls: usize,
    calls_per_second: Option<f64>,
    calls_at_once: u32,
    queue_seconds: Option<f64>,
    memory: usize,
    memory_per_peer: usize,
    handshake_seconds: f64,
    idle_seconds: Option<f64>,
    age_seconds: Option<f64>,
    age_grace_seconds: f64,
    keep_alive_seconds: f64,
    keep_alive_timeout_seconds: f64,
    ping_interval_seconds: f64,
    control_frames: u32,
    busy_poll: f64,
}

impl PyLimits {
    pub(crate) fn to_limits(&self) -> PyResult<Limits> {
        Ok(Limits {
            message_size: self.message_size,
            metadata_size: self.metadata_size,
            concurrent_streams: self.concurrent_streams,
            connections: self.connections,
            pending_calls: self.pending_calls,
            connections_per_peer: self.connections_per_peer,
            call_rate: self.calls_per_second.map(|per_second| CallRate {
                per_second,
                burst: self.calls_at_once,
            }),
            queue_delay: some_seconds("queue_seconds", self.queue_seconds)?,
            memory: self.memory,
            memory_per_peer: self.memory_per_peer,
            handshake: seconds("handshake_seconds", self.handshake_seconds)?,
            idle: some_seconds("idle_seconds", self.idle_seconds)?,
            age: some_seconds("age_seconds", self.age_seconds)?,
            age_grace: seconds("age_grace_seconds", self.age_grace_seconds)?,
            keep_alive: seconds("keep_alive_seconds", self.keep_alive_seconds)?,
            keep_alive_timeout: seconds("keep_alive_timeout_seconds", self.keep_alive_timeout_seconds)?,
            ping_interval: seconds("ping_interval_seconds", self.ping_interval_seconds)?,
            control_frames: self.control_frames,
            ..Limits::default()
        })
    }
}

fn some_seconds(name: &str, value: Option<f64>) -> PyResult<Option<Duration>> {
    value.map(|value| seconds(name, value)).transpose()
}

/// A server that has begun.
#[pyclass(frozen)]
pub(crate) struct GrpcServer {
    running: Mutex<Option<Running>>,
    end: OnceLock<End>,
    addresses: Vec<String>,
    stats: Arc<Stats>,
    access_log: Arc<AccessLog>,
    mailbox: Py<Mailbox>,
    polling: Mutex<Option<Hold>>,
}

#[pymethods]
impl GrpcServer {
    /// Bind and serve. `on_notice(event, peer, reason)` hears of refused connections, on the mailbox's loop.
    #[new]
    #[pyo3(signature = (*, listen, socket_mode, identity, authorize, limits, compression, root_share, metrics, access_log,
                        native, methods, begin_other, mailbox, on_cancel, on_notice, stall, on_stall))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of the wrapper's one call")]
    fn new(
        py: Python<'_>,
        listen: Vec<String>,
        socket_mode: u32,
        identity: Option<&PyIdentity>,
        authorize: Option<&PyRules>,
        limits: PyLimits,
        compression: Option<PyEncoding>,
        root_share: f64,
        metrics: bool,
        access_log: Vec<(String, String)>,
        native: Vec<PyRef<'_, NativeServices>>,
        methods: HashMap<String, (bool, Py<PyAny>)>,
        begin_other: Option<Py<PyAny>>,
        mailbox: Py<Mailbox>,
        on_cancel: Py<PyAny>,
        on_notice: Py<PyAny>,
        stall: f64,
        on_stall: Py<PyAny>,
    ) -> PyResult<Self> {
        let busy_poll = seconds("busy_poll", limits.busy_poll)?;
        let limits = limits.to_limits()?;
        let load = Load::new(&limits);
        let post = mailbox.get().post();
        let stall = seconds("stall_seconds", stall)?;
        let known = |(path, (streams, begin)): (String, _)| (path.clone(), Method::new(path, streams, begin));
        let handlers = Arc::new(Handlers {
            load: load.clone(),
            methods: methods.into_iter().map(known).collect(),
            other: begin_other.map(|begin| Method::new("*".to_owned(), true, begin)),
            message_size: limits.message_size,
            pending_calls: limits.pending_calls,
            compression: compression.map(|PyEncoding(encoding)| encoding),
            post: post.clone(),
            on_cancel,
            pending: AtomicUsize::new(0),
        });
        let on_notice = Arc::new(on_notice);
        let services = native
            .iter()
            .fold(Services::default(), |services, native| native.add_to(services));
        let mut builder = Server::builder()
            .limits(limits)
            .load(load)
            .services(services)
            .fallback(Arc::new(PythonFallback(handlers.clone())))
            .spans(recorder(), root_share)
            .on_notice(move |notice| {
                let on_notice = on_notice.clone();
                post.send(move |py| {
                    on_notice
                        .call1(py, (notice.event, notice.peer, notice.reason))
                        .map(drop)
                });
            });
        let access_log = access_log::access_log(access_log)?;
        builder = builder.access_log(access_log.clone());
        if metrics {
            builder = builder.meter(server_meter());
        }
        if let Some(identity) = identity {
            builder = builder.identity(identity.identities());
        }
        if let Some(rules) = authorize {
            builder = builder.authorize(rules.0.clone());
        }
        let running = py
            .detach(|| {
                let _runtime = runtime().enter();
                let bind = |address: &String| Listener::bind(address, socket_mode);
                let listeners = listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
                Ok(builder.serve(listeners))
            })
            .map_err(to_python)?;
        runtime().spawn(watch_loop(Arc::downgrade(&handlers), stall, on_stall));
        // Where there is no /proc nothing polls, and all else is as ever.
        let polling = Some(busy_poll)
            .filter(|wish| !wish.is_zero())
            .and_then(|wish| polling().hold(wish, runtime().handle()).ok());
        let (addresses, stats) = (running.addresses().to_vec(), running.stats());
        Ok(Self {
            running: Mutex::new(Some(running)),
            end: OnceLock::new(),
            addresses,
            stats,
            access_log,
            mailbox,
            polling: Mutex::new(polling),
        })
    }

    /// Where it listens, with the ports that the kernel chose.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// The counters by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.stats.read() {
            dict.set_item(name, value)?;
        }
        let (hits, misses) = polling().found();
        dict.set_item("busy_polls_hit", hits)?;
        dict.set_item("busy_polls_missed", misses)?;
        dict.set_item("access_records_dropped", self.access_log.dropped())?;
        Ok(dict)
    }

    /// Take records of calls that ended, at most `most`.
    fn access_records(&self, most: usize) -> Vec<AccessRecord> {
        self.access_log.take(most).into_iter().map(AccessRecord).collect()
    }

    /// Accept no more, let calls finish, and complete `future` when the last connection has ended. Once.
    fn drain(&self, future: Py<PyAny>) -> PyResult<()> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let running = running.ok_or_else(|| PyRuntimeError::new_err("the server drains already"))?;
        let (end, closed) = running.drain();
        let polling = self.polling.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.end.set(end); // there is one: `running` was there once
        let post = self.mailbox.get().post();
        runtime().spawn(async move {
            closed.await;
            drop(polling);
            post.complete(future, |py| Ok(py.None()));
        });
        Ok(())
    }

    /// End what a server that drains still has.
    fn end(&self) {
        if let Some(end) = self.end.get() {
            end.now();
        }
    }
}
