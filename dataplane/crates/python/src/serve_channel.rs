//! The gRPC channel for Python; `meshwright.dataplane.grpc.NativeChannel` wraps it.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use meshwright_serve::tls::spiffe::Expected;
use meshwright_serve::{
    Answer, Call, Channel, ChannelOptions, Encoding, Messages, Outbound, Outcome, Outside, Peer, ServiceConfig, State,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;

use crate::serve_compression::{self, PyEncoding};
use crate::serve_descriptors::{self, seconds};
use crate::serve_identity::{PyIdentity, to_python};
use crate::serve_inbox::Inbox;
use crate::serve_mailbox::{Mailbox, Post};
use crate::serve_metadata;
use crate::serve_metrics::client_meter;
use crate::serve_outbox::{Finish, Outbox, Said, SaidBody, outbox};
use crate::serve_runtime::runtime;
use crate::serve_server::PyLimits;
use crate::serve_telemetry::recorder;

/// The options of `meshwright.dataplane.grpc.ChannelOptions`, by attribute.
#[derive(FromPyObject)]
pub(crate) struct PyChannelOptions {
    keep_alive_seconds: Option<f64>,
    keep_alive_timeout_seconds: f64,
    keep_alive_without_calls: bool,
    idle_seconds: f64,
    resolve_interval_seconds: f64,
    first_back_off_seconds: f64,
    longest_back_off_seconds: f64,
    retry_buffer: usize,
}

/// The files of `meshwright.dataplane.grpc.OutsideTls`, by attribute.
#[derive(FromPyObject)]
pub(crate) struct PyOutsideTls {
    authorities: String,
    certificate: String,
    key: String,
    server_name: String,
}

impl PyOutsideTls {
    fn into_outside(self) -> Outside {
        Outside {
            authorities: self.authorities.into(),
            own: (!self.certificate.is_empty()).then(|| (self.certificate.into(), self.key.into())),
            server_name: self.server_name,
        }
    }
}

impl PyChannelOptions {
    fn to_options(&self, service_config: ServiceConfig) -> PyResult<ChannelOptions> {
        let keep_alive = self.keep_alive_seconds;
        Ok(ChannelOptions {
            service_config,
            keep_alive: keep_alive
                .map(|interval| some_time("keep_alive_seconds", interval))
                .transpose()?,
            keep_alive_timeout: some_time("keep_alive_timeout_seconds", self.keep_alive_timeout_seconds)?,
            keep_alive_without_calls: self.keep_alive_without_calls,
            idle: some_time("idle_seconds", self.idle_seconds)?,
            resolve_interval: seconds("resolve_interval_seconds", self.resolve_interval_seconds)?,
            first_back_off: some_time("first_back_off_seconds", self.first_back_off_seconds)?,
            longest_back_off: some_time("longest_back_off_seconds", self.longest_back_off_seconds)?,
            retry_buffer: self.retry_buffer,
        })
    }
}

/// How grpc.aio describes calls that end with their channel; whoever awaits one gets CancelledError.
const CANCELLED: &str = "Locally cancelled by application!";

/// A time of which nothing would mean without a pause.
fn some_time(field: &str, value: f64) -> PyResult<Duration> {
    match seconds(field, value)? {
        time if time < Duration::from_millis(1) => Err(PyValueError::new_err(format!(
            "{field}: must be 0.001 or more, not {value}"
        ))),
        time => Ok(time),
    }
}

/// A client of one target.
#[pyclass(frozen)]
pub(crate) struct GrpcChannel {
    channel: Channel,
    outbound: Outbound,
}

#[pymethods]
impl GrpcChannel {
    #[new]
    #[pyo3(signature = (target, *, identity, peer, outside, limits, options, service_config))]
    fn new(
        target: &str,
        identity: Option<&PyIdentity>,
        peer: &str,
        outside: Option<PyOutsideTls>,
        limits: PyLimits,
        options: PyChannelOptions,
        service_config: Option<&str>,
    ) -> PyResult<Self> {
        let _runtime = runtime().enter();
        let expected = Expected::parse(peer).map_err(to_python)?;
        let identities = identity.map(PyIdentity::identities);
        let config = service_config
            .map(ServiceConfig::parse)
            .transpose()
            .map_err(to_python)?;
        let options = options.to_options(config.unwrap_or_default())?;
        let limits = limits.to_limits()?;
        let channel = match outside {
            None => Channel::with_options(target, identities, expected, limits, options),
            Some(files) => Channel::outside(target, files.into_outside(), limits, options),
        }
        .map_err(to_python)?;
        let outbound = Outbound::new(target, client_meter(), recorder());
        Ok(Self { channel, outbound })
    }

    /// Begin a call of one request and one response. `future` gets (initial metadata, message or None, code, details,
    /// trailing metadata).
    #[pyo3(signature = (path, message, metadata, traceparent, timeout, wait_for_ready, compression, mailbox, future))]
    #[allow(clippy::too_many_arguments, reason = "what a call consists of")]
    fn unary(
        &self,
        py: Python<'_>,
        path: &str,
        message: &[u8],
        metadata: Option<&Bound<'_, PyAny>>,
        traceparent: Option<&str>,
        timeout: Option<f64>,
        wait_for_ready: Option<bool>,
        compression: Option<PyEncoding>,
        mailbox: &Mailbox,
        future: Py<PyAny>,
    ) -> PyResult<Running> {
        let mut call = self.new_call(path, metadata, timeout, wait_for_ready, compression)?;
        let mut watch = self.outbound.begin(path, traceparent, &mut call.metadata);
        let limit = self.request_limit(path);
        let messages = Messages::Whole(serve_compression::frame(py, call.compression, message));
        let too_long = too_long(message, limit);
        let (channel, post) = (self.channel.clone(), mailbox.post());
        let task = runtime().spawn(async move {
            let deadline = call.deadline;
            let mut initial = HeaderMap::new();
            let mut message = None;
            let ended = within(&channel, deadline, std::future::pending(), async {
                if let Some(outcome) = too_long {
                    return Err(outcome);
                }
                let mut answer = channel.call(call, messages).await?;
                initial = std::mem::take(&mut answer.metadata);
                message = Some(answer.next().await?);
                match answer.next().await {
                    Ok(_) => Err(Outcome::new(Code::Internal, "the response has more than one message")),
                    Err(outcome) => Err(outcome),
                }
            });
            let outcome = ended.await;
            watch.ended(outcome.code, &outcome.message);
            post.complete(future, move |py| {
                let message = message.map(|message| PyBytes::new(py, &message).into_any());
                let message = message.unwrap_or_else(|| py.None().into_bound(py));
                let values = [
                    serve_metadata::to_python(py, &initial)?.into_any(),
                    message,
                    (outcome.code as i32).into_pyobject(py)?.into_any(),
                    (*outcome.message).into_pyobject(py)?.into_any(),
                    serve_metadata::to_python(py, &outcome.metadata)?.into_any(),
                ];
                Ok(PyTuple::new(py, values)?.into_any().unbind())
            });
        });
        Ok(Running {
            task: task.abort_handle(),
        })
    }

    /// Begin a call with streams in either direction. `initial` gets the initial metadata, `end` (code, details,
    /// trailing metadata), both also when the call fails.
    #[pyo3(signature = (path, metadata, traceparent, timeout, wait_for_ready, compression, mailbox, initial, end))]
    #[allow(clippy::too_many_arguments, reason = "what a call consists of")]
    fn stream(
        &self,
        path: &str,
        metadata: Option<&Bound<'_, PyAny>>,
        traceparent: Option<&str>,
        timeout: Option<f64>,
        wait_for_ready: Option<bool>,
        compression: Option<PyEncoding>,
        mailbox: &Mailbox,
        initial: Py<PyAny>,
        end: Py<PyAny>,
    ) -> PyResult<ClientStream> {
        let mut call = self.new_call(path, metadata, timeout, wait_for_ready, compression)?;
        let mut watch = self.outbound.begin(path, traceparent, &mut call.metadata);
        let compression = call.compression;
        let post = mailbox.post();
        let (outbox, outgoing) = outbox();
        let inbox = Inbox::new(post.clone());
        let requests = Messages::Stream(Body::new(SaidBody::new(None, outgoing, Caller)));
        let (failure, failed) = oneshot::channel();
        let (channel, letters, messages) = (self.channel.clone(), post.clone(), inbox.clone());
        let task = runtime().spawn(async move {
            let deadline = call.deadline;
            let mut initial = Some(initial);
            let begun = letters.clone();
            let failed = async {
                match failed.await {
                    Ok(outcome) => outcome,
                    Err(_) => std::future::pending().await, // nobody writes any more
                }
            };
            let outcome = within(&channel, deadline, failed, async {
                let mut answer = channel.call(call, requests).await?;
                if let Some(initial) = initial.take() {
                    let metadata = std::mem::take(&mut answer.metadata);
                    let to_python =
                        move |py: Python<'_>| Ok(serve_metadata::to_python(py, &metadata)?.into_any().unbind());
                    begun.complete(initial, to_python);
                }
                read_all(answer, &messages).await
            })
            .await;
            watch.ended(outcome.code, &outcome.message);
            if let Some(initial) = initial {
                letters.complete(initial, |py| Ok(PyTuple::empty(py).into_any().unbind()));
            }
            letters.complete(end, move |py| {
                let metadata = serve_metadata::to_python(py, &outcome.metadata)?;
                Ok((outcome.code as i32, &*outcome.message, metadata)
                    .into_pyobject(py)?
                    .into_any()
                    .unbind())
            });
            messages.end(); // after the end is known, so that whoever reads to the end finds it
        });
        Ok(ClientStream {
            running: Running {
                task: task.abort_handle(),
            },
            outbox: Mutex::new(Some(outbox)),
            compression,
            limit: self.request_limit(path),
            failure: Mutex::new(Some(failure)),
            inbox,
            post,
        })
    }

    /// Complete `future` once there is a connection; connects, and tries again for as long as it takes.
    fn ready(&self, mailbox: &Mailbox, future: Py<PyAny>) -> Running {
        let (channel, post) = (self.channel.clone(), mailbox.post());
        let task = runtime().spawn(async move {
            let outcome = channel.ready(None, true).await;
            post.complete(future, move |py| match outcome {
                Ok(_) => Ok(py.None()),
                Err(outcome) => Err(pyo3::exceptions::PyConnectionError::new_err(
                    outcome.message.into_string(),
                )),
            });
        });
        Running {
            task: task.abort_handle(),
        }
    }

    /// Begin to connect, if nothing is under way.
    fn connect(&self) {
        self.channel.connect();
    }

    /// (name as in grpc.ChannelConnectivity, why it failed).
    /// The target's host and port.
    #[getter]
    fn authority(&self) -> &str {
        self.channel.authority()
    }

    /// Whether calls go over TLS.
    #[getter]
    fn is_secure(&self) -> bool {
        self.channel.is_secure()
    }

    #[getter]
    fn state(&self) -> (&'static str, Option<String>) {
        describe(&self.channel.states().borrow())
    }

    /// Complete `future` when the state is another than `last`.
    fn wait_for_change(&self, last: String, mailbox: &Mailbox, future: Py<PyAny>) -> Running {
        let (mut states, post) = (self.channel.states(), mailbox.post());
        let task = runtime().spawn(async move {
            // An error says that the channel is gone, which is a change too.
            let _ = states.wait_for(|state| describe(state).0 != last).await.map(drop);
            post.complete(future, |py| Ok(py.None()));
        });
        Running {
            task: task.abort_handle(),
        }
    }

    /// Who the server is: a dict, or nothing while there is no connection.
    fn peer<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.channel.peer().map(|peer| peer_to_python(py, &peer)).transpose()
    }

    fn take_descriptor(
        &self,
        device: u64,
        inode: u64,
        timeout: f64,
        mailbox: &Mailbox,
        future: Py<PyAny>,
    ) -> PyResult<()> {
        let descriptors = self.channel.descriptors().clone();
        serve_descriptors::take(mailbox.post(), descriptors, (device, inode), timeout, future)
    }

    /// Send a duplicate of `descriptor` in front of the next call.
    fn send_descriptor(&self, descriptor: RawFd) -> PyResult<()> {
        self.channel.send_descriptor(serve_descriptors::duplicate(descriptor)?);
        Ok(())
    }

    /// Refuse further calls, give those under way `grace` seconds, end the rest as cancelled, and complete `future`.
    fn close(&self, grace: f64, mailbox: &Mailbox, future: Py<PyAny>) -> PyResult<()> {
        let grace = seconds("grace", grace)?;
        let (channel, post) = (self.channel.clone(), mailbox.post());
        channel.close();
        runtime().spawn(async move {
            channel.finish(grace).await;
            post.complete(future, |py| Ok(py.None()));
        });
        Ok(())
    }
}

impl GrpcChannel {
    fn new_call(
        &self,
        path: &str,
        metadata: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        wait_for_ready: Option<bool>,
        compression: Option<PyEncoding>,
    ) -> PyResult<Call> {
        let timeout: Option<Duration> = timeout.map(|timeout| seconds("timeout", timeout)).transpose()?;
        let mut call = Call {
            path: path.to_owned(),
            metadata: serve_metadata::from_python(metadata)?,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            wait_for_ready,
            compression: compression.map(|PyEncoding(encoding)| encoding),
        };
        self.channel.configure(&mut call);
        Ok(call)
    }

    /// Bytes of one request, by the service config.
    fn request_limit(&self, path: &str) -> usize {
        let limit = self.channel.method(path).and_then(|method| method.max_request);
        limit.unwrap_or(usize::MAX)
    }
}

/// A call under way that can be given up.
#[pyclass(frozen)]
pub(crate) struct Running {
    task: AbortHandle,
}

#[pymethods]
impl Running {
    fn cancel(&self) {
        self.task.abort();
    }
}

/// A call with streams.
#[pyclass(frozen)]
pub(crate) struct ClientStream {
    running: Running,
    outbox: Mutex<Option<Outbox>>,
    compression: Option<Encoding>,
    limit: usize,
    /// Ends the call for a reason on this side.
    failure: Mutex<Option<oneshot::Sender<Outcome>>>,
    inbox: Arc<Inbox>,
    post: Arc<Post>,
}

impl ClientStream {
    /// End the call if `message` is too long for it.
    fn refuse(&self, message: &[u8]) -> bool {
        let Some(outcome) = too_long(message, self.limit) else {
            return false;
        };
        if let Some(failure) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = failure.send(outcome); // nobody listens: the call has ended for another reason
        }
        true
    }

    fn outbox(&self) -> PyResult<Outbox> {
        let outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner).clone();
        outbox.ok_or_else(|| pyo3::exceptions::PyConnectionError::new_err("the requests have been ended already"))
    }
}

#[pymethods]
impl ClientStream {
    fn cancel(&self) {
        self.running.cancel();
    }

    /// Complete `future` with the next message, or with None after the last.
    fn read(&self, future: Bound<'_, PyAny>) -> PyResult<()> {
        self.inbox.take_later(future)
    }

    /// Send a message; false when there is no room and nothing was sent: then `write_later`.
    fn write(&self, py: Python<'_>, message: &[u8]) -> PyResult<bool> {
        let outbox = self.outbox()?;
        if self.refuse(message) {
            return Ok(true); // the call's end says why
        }
        if !outbox.has_room()? {
            return Ok(false); // before the work of framing
        }
        let framed = serve_compression::frame(py, self.compression, message);
        outbox.say(Said::Message(framed));
        Ok(true)
    }

    /// Send a message once there is room, and then complete `future`.
    fn write_later(&self, py: Python<'_>, message: &[u8], future: Py<PyAny>) -> PyResult<()> {
        let framed = serve_compression::frame(py, self.compression, message);
        self.outbox()?.wait(Said::Message(framed), self.post.clone(), future);
        Ok(())
    }

    /// End the requests.
    fn done_writing(&self) {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A request's body needs nobody to watch it.
struct Caller;

impl Finish for Caller {
    fn finished(&mut self) {}
}

/// How a call ends that has a request of more bytes than its service config allows.
fn too_long(message: &[u8], limit: usize) -> Option<Outcome> {
    let length = message.len();
    let text = || format!("a request of {length} bytes; maxRequestMessageBytes of the service config is {limit}");
    (length > limit).then(|| Outcome::new(Code::ResourceExhausted, text()))
}

/// How the call ended: by itself, by its deadline, by a failure of this side, or with the channel.
async fn within(
    channel: &Channel,
    deadline: Option<Instant>,
    failed: impl Future<Output = Outcome>,
    call: impl Future<Output = Result<std::convert::Infallible, Outcome>>,
) -> Outcome {
    let ended = async {
        tokio::select! {
            biased;
            ended = call => ended,
            outcome = failed => Err(outcome),
            () = channel.ended() => Err(Outcome::new(Code::Cancelled, CANCELLED)),
        }
    };
    let ended = match deadline {
        None => ended.await,
        Some(deadline) => tokio::time::timeout_at(deadline, ended)
            .await
            .unwrap_or_else(|_| Err(Outcome::new(Code::DeadlineExceeded, "the call's deadline has passed"))),
    };
    match ended {
        Ok(never) => match never {},
        // The server's timer was the quicker one, and it reset the stream: grpc-go's does so at the deadline.
        Err(outcome) if outcome.code == Code::Cancelled && deadline.is_some_and(|at| at <= Instant::now()) => {
            Outcome::new(Code::DeadlineExceeded, "the call's deadline has passed")
        }
        Err(outcome) => outcome,
    }
}

async fn read_all(mut answer: Answer, inbox: &Arc<Inbox>) -> Result<std::convert::Infallible, Outcome> {
    loop {
        let message: Bytes = answer.next().await?;
        inbox.put(message).await;
    }
}

fn describe(state: &State) -> (&'static str, Option<String>) {
    match state {
        State::Idle => ("IDLE", None),
        State::Wanted | State::Connecting => ("CONNECTING", None),
        State::Ready(_) => ("READY", None),
        State::Failed(reason) => ("TRANSIENT_FAILURE", Some(reason.to_string())),
        State::Closed => ("SHUTDOWN", None),
    }
}

fn peer_to_python<'py>(py: Python<'py>, peer: &Peer) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("spiffe_id", peer.spiffe_id.as_deref())?;
    dict.set_item(
        "certificate",
        peer.certificate.as_ref().map(|der| PyBytes::new(py, der)),
    )?;
    dict.set_item("address", &*peer.address)?;
    dict.set_item("uid", peer.uid)?;
    dict.set_item("pid", peer.pid)?;
    dict.set_item("connection", peer.connection.0)?;
    Ok(dict)
}
