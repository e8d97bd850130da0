//! The gRPC channel for Python; `meshwright.dataplane.grpc.NativeChannel` wraps it.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Full;
use meshwright_serve::spiffe::Expected;
use meshwright_serve::{Answer, Call, Channel, Encoding, Outbound, Outcome, Peer, State};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
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

/// A client of one server.
#[pyclass(frozen)]
pub(crate) struct GrpcChannel {
    channel: Channel,
    outbound: Outbound,
}

#[pymethods]
impl GrpcChannel {
    #[new]
    #[pyo3(signature = (target, *, identity, peer, limits))]
    fn new(target: &str, identity: Option<&PyIdentity>, peer: &str, limits: PyLimits) -> PyResult<Self> {
        let _runtime = runtime().enter();
        let expected = Expected::parse(peer).map_err(to_python)?;
        let identities = identity.map(PyIdentity::identities);
        let channel = Channel::new(target, identities, expected, limits.to_limits()?).map_err(to_python)?;
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
        wait_for_ready: bool,
        compression: Option<PyEncoding>,
        mailbox: &Mailbox,
        future: Py<PyAny>,
    ) -> PyResult<Running> {
        let mut call = new_call(path, metadata, timeout, wait_for_ready, compression)?;
        let mut watch = self.outbound.begin(path, traceparent, &mut call.metadata);
        let body = Body::new(Full::new(serve_compression::frame(py, call.compression, message)));
        let (channel, post) = (self.channel.clone(), mailbox.post());
        let task = runtime().spawn(async move {
            let deadline = call.deadline;
            let mut initial = HeaderMap::new();
            let mut message = None;
            let ended = within(deadline, async {
                let mut answer = channel.call(call, body).await?;
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
        wait_for_ready: bool,
        compression: Option<PyEncoding>,
        mailbox: &Mailbox,
        initial: Py<PyAny>,
        end: Py<PyAny>,
    ) -> PyResult<ClientStream> {
        let mut call = new_call(path, metadata, timeout, wait_for_ready, compression)?;
        let mut watch = self.outbound.begin(path, traceparent, &mut call.metadata);
        let compression = call.compression;
        let post = mailbox.post();
        let (outbox, outgoing) = outbox();
        let inbox = Inbox::new(post.clone());
        let body = Body::new(SaidBody::new(None, outgoing, Caller));
        let (channel, letters, messages) = (self.channel.clone(), post.clone(), inbox.clone());
        let task = runtime().spawn(async move {
            let deadline = call.deadline;
            let mut initial = Some(initial);
            let begun = letters.clone();
            let outcome = within(deadline, async {
                let mut answer = channel.call(call, body).await?;
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

    fn close(&self) {
        self.channel.close();
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
    inbox: Arc<Inbox>,
    post: Arc<Post>,
}

impl ClientStream {
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

fn new_call(
    path: &str,
    metadata: Option<&Bound<'_, PyAny>>,
    timeout: Option<f64>,
    wait_for_ready: bool,
    compression: Option<PyEncoding>,
) -> PyResult<Call> {
    let timeout: Option<Duration> = timeout.map(|timeout| seconds("timeout", timeout)).transpose()?;
    Ok(Call {
        path: path.to_owned(),
        metadata: serve_metadata::from_python(metadata)?,
        deadline: timeout.map(|timeout| Instant::now() + timeout),
        wait_for_ready,
        compression: compression.map(|PyEncoding(encoding)| encoding),
    })
}

/// How the call ended: by itself or by its deadline.
async fn within(
    deadline: Option<Instant>,
    call: impl Future<Output = Result<std::convert::Infallible, Outcome>>,
) -> Outcome {
    let ended = match deadline {
        None => call.await,
        Some(deadline) => tokio::time::timeout_at(deadline, call)
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
