//! The gRPC server for Python; `meshwright.dataplane.grpc.NativeServer` wraps it.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use meshwright_serve::{AccessLog, Limits, Listener, Running, Server, Services, Stats};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::serve_access_log::{self as access_log, AccessRecord};
use crate::serve_compression::PyEncoding;
use crate::serve_descriptors::seconds;
use crate::serve_handlers::{Handlers, PythonFallback};
use crate::serve_identity::{PyIdentity, to_python};
use crate::serve_mailbox::Mailbox;
use crate::serve_metrics::server_meter;
use crate::serve_rules::PyRules;
use crate::serve_runtime::runtime;
use crate::serve_services::NativeServices;
use crate::serve_telemetry::recorder;

/// The limits of `meshwright.dataplane.grpc.Limits`, by attribute.
#[derive(FromPyObject)]
pub(crate) struct PyLimits {
    message_size: usize,
    metadata_size: u32,
    concurrent_streams: u32,
    connections: usize,
    pending_calls: usize,
    handshake_seconds: f64,
}

impl PyLimits {
    pub(crate) fn to_limits(&self) -> PyResult<Limits> {
        Ok(Limits {
            message_size: self.message_size,
            metadata_size: self.metadata_size,
            concurrent_streams: self.concurrent_streams,
            connections: self.connections,
            pending_calls: self.pending_calls,
            handshake: seconds("handshake_seconds", self.handshake_seconds)?,
            ..Limits::default()
        })
    }
}

/// A server that has begun.
#[pyclass(frozen)]
pub(crate) struct GrpcServer {
    running: Mutex<Option<Running>>,
    addresses: Vec<String>,
    stats: Arc<Stats>,
    access_log: Arc<AccessLog>,
    mailbox: Py<Mailbox>,
}

#[pymethods]
impl GrpcServer {
    /// Bind and serve. `on_notice(event, peer, reason)` hears of refused connections, on the mailbox's loop.
    #[new]
    #[pyo3(signature = (*, listen, socket_mode, identity, authorize, limits, compression, root_share, metrics, access_log, native,
                        methods, claims_all, mailbox, on_call, on_cancel, on_notice))]
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
        methods: HashMap<String, bool>,
        claims_all: bool,
        mailbox: Py<Mailbox>,
        on_call: Py<PyAny>,
        on_cancel: Py<PyAny>,
        on_notice: Py<PyAny>,
    ) -> PyResult<Self> {
        let limits = limits.to_limits()?;
        let post = mailbox.get().post();
        let handlers = Handlers {
            methods,
            claims_all,
            message_size: limits.message_size,
            pending_calls: limits.pending_calls,
            compression: compression.map(|PyEncoding(encoding)| encoding),
            post: post.clone(),
            on_call,
            on_cancel,
            pending: AtomicUsize::new(0),
        };
        let on_notice = Arc::new(on_notice);
        let services = native
            .iter()
            .fold(Services::default(), |services, native| native.add_to(services));
        let mut builder = Server::builder()
            .limits(limits)
            .services(services)
            .fallback(Arc::new(PythonFallback(Arc::new(handlers))))
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
        let (addresses, stats) = (running.addresses().to_vec(), running.stats());
        Ok(Self {
            running: Mutex::new(Some(running)),
            addresses,
            stats,
            access_log,
            mailbox,
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
        dict.set_item("access_records_dropped", self.access_log.dropped())?;
        Ok(dict)
    }

    /// Take records of calls that ended, at most `most`.
    fn access_records(&self, most: usize) -> Vec<AccessRecord> {
        self.access_log.take(most).into_iter().map(AccessRecord).collect()
    }

    /// Accept no more, give calls `grace` seconds, end the rest, and complete `future`.
    fn stop(&self, grace: f64, future: Py<PyAny>) -> PyResult<()> {
        let grace = seconds("grace", grace)?;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let running = running.ok_or_else(|| PyRuntimeError::new_err("the server has been stopped already"))?;
        let post = self.mailbox.get().post();
        runtime().spawn(async move {
            running.stop(grace).await;
            post.complete(future, |py| Ok(py.None()));
        });
        Ok(())
    }
}
