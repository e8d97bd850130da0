//! One call at a server whose handler is Python's.

use std::os::fd::{IntoRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use meshwright_handover::Taken;
use meshwright_serve::server::load::Charge;
use meshwright_serve::wire::compression::ENCODING;
use meshwright_serve::{CallContext, Deadline, Descriptors, Encoding, Outcome, wire::frame};
use pyo3::exceptions::{PyConnectionError, PyProcessLookupError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyList};
use tonic::Code;

use crate::serve_compression::{self, PyEncoding};
use crate::serve_descriptors;
use crate::serve_handlers::Method;
use crate::serve_inbox::Inbox;
use crate::serve_mailbox::{Post, complete};
use crate::serve_metadata;
use crate::serve_outbox::{Outbox, Said};

/// What a handler can ask and say; `meshwright.dataplane.grpc.context` wraps it.
#[pyclass(frozen)]
pub(crate) struct ServerCall {
    pub(crate) number: u64,
    pub(crate) method: Arc<Method>,
    /// Of methods that Python finds by itself; the others' is the method's.
    pub(crate) path: Option<Box<str>>,
    pub(crate) message: Option<Bytes>,
    /// Counts the message until a handler takes it; Python may keep this call longer than it needs it.
    pub(crate) untaken: Mutex<Option<Charge>>,
    /// Whether the one message was taken as if it were a stream's.
    pub(crate) is_taken: AtomicBool,
    pub(crate) headers: HeaderMap,
    /// Python may keep a call for long after its end (in a cycle that its collector finds one day); this keeps no
    /// descriptor open.
    pub(crate) context: CallContext,
    pub(crate) inbox: Option<Arc<Inbox>>,
    pub(crate) outbox: Outbox,
    pub(crate) charge: Charge,
    pub(crate) post: Arc<Post>,
    pub(crate) sending: Mutex<Sending>,
    pub(crate) has_ended: AtomicBool,
}

/// How the answer is sent.
pub(crate) struct Sending {
    /// Whether the initial metadata has been said.
    has_begun: bool,
    encoding: Option<Encoding>,
    /// Leave the next message as it is.
    next_is_plain: bool,
}

impl Sending {
    pub(crate) fn new(encoding: Option<Encoding>) -> Self {
        Self {
            has_begun: false,
            encoding,
            next_is_plain: false,
        }
    }
}

impl ServerCall {
    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message in its frame, counted until the network has taken it.
    fn frame(&self, py: Python<'_>, message: &[u8]) -> Bytes {
        self.charge.hold(self.encoded(py, message))
    }

    /// A message in its frame. Before the first of a compressed answer the metadata must say so.
    fn encoded(&self, py: Python<'_>, message: &[u8]) -> Bytes {
        let mut sending = self.sending();
        let has_begun = std::mem::replace(&mut sending.has_begun, true);
        let Some(encoding) = sending.encoding else {
            return frame::encode(message);
        };
        if !has_begun {
            let headers = HeaderMap::from_iter([(ENCODING, encoding.header())]);
            self.outbox.say(Said::Metadata(Box::new(headers)));
        }
        let encoding = Some(encoding).filter(|_| !std::mem::take(&mut sending.next_is_plain));
        drop(sending);
        serve_compression::frame(py, encoding, message)
    }

    /// The one message of a method that takes one, as if it were a stream's.
    fn only(&self) -> Taken<Bytes, ()> {
        match &self.message {
            Some(message) if !self.is_taken.swap(true, Ordering::Relaxed) => {
                self.taken();
                Taken::Message(message.clone(), ())
            }
            _ => Taken::End(()),
        }
    }

    fn descriptors(&self) -> PyResult<&Descriptors> {
        let reason = "this call came over TCP: descriptors travel on Unix sockets only";
        self.context
            .descriptors
            .as_ref()
            .ok_or_else(|| PyConnectionError::new_err(reason))
    }

    fn taken(&self) {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Mark the end; false if it was marked before.
    fn end(&self) -> bool {
        self.taken();
        !self.has_ended.swap(true, Ordering::Relaxed)
    }
}

#[pymethods]
impl ServerCall {
    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    #[getter]
    fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(&self.method.path)
    }

    /// The request, when its method takes one message.
    #[getter]
    fn message<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.taken();
        self.message.as_ref().map(|message| PyBytes::new(py, message))
    }

    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        serve_metadata::to_python(py, &self.headers)
    }

    #[getter]
    fn address(&self) -> &str {
        &self.context.peer.address
    }

    #[getter]
    fn spiffe_id(&self) -> Option<&str> {
        self.context.peer.spiffe_id.as_deref()
    }

    /// The caller's DNS names for which our own authorities vouch.
    #[getter]
    fn dns_names(&self) -> Vec<&str> {
        self.context.peer.dns_names.iter().map(|name| &**name).collect()
    }

    /// Return a new descriptor that holds the process that connected.
    fn peer_pidfd(&self) -> PyResult<RawFd> {
        if self.context.peer.pid.is_none() {
            let reason = "this call came over TCP: only Unix sockets tell which process connected";
            return Err(PyConnectionError::new_err(reason));
        }
        let gone = "the process that connected ended before its connection was accepted";
        let held = self.context.peer.pidfd.as_ref();
        let held = held.ok_or_else(|| PyProcessLookupError::new_err((libc::ESRCH, gone)))?;
        let ended = || PyConnectionError::new_err("the connection has ended, and with it the hold on its process");
        Ok(held.upgrade().ok_or_else(ended)?.try_clone()?.into_raw_fd())
    }

    /// Whether the caller's TLS session was resumed.
    #[getter]
    fn session_resumed(&self) -> bool {
        self.context.peer.resumed
    }

    /// The caller's leaf certificate, DER.
    #[getter]
    fn certificate<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.context.peer.certificate.as_ref().map(|der| PyBytes::new(py, der))
    }

    #[getter]
    fn uid(&self) -> Option<u32> {
        self.context.peer.uid
    }

    #[getter]
    fn gid(&self) -> Option<u32> {
        self.context.peer.gid
    }

    #[getter]
    fn pid(&self) -> Option<u32> {
        self.context.peer.pid
    }

    /// Tells one connection from another within this process.
    #[getter]
    fn connection(&self) -> u64 {
        self.context.peer.connection.0
    }

    /// Seconds since the caller connected.
    fn connection_age(&self) -> f64 {
        self.context.peer.since.elapsed().as_secs_f64()
    }

    /// The server span's place (W3C), as parent of what the handler records.
    #[getter]
    fn traceparent(&self) -> Option<String> {
        self.context.span.as_ref().map(|span| span.context.to_string())
    }

    fn time_remaining(&self) -> Option<f64> {
        let left = |deadline: Deadline| deadline.0.saturating_duration_since(tokio::time::Instant::now());
        self.context.deadline.map(left).map(|left: Duration| left.as_secs_f64())
    }

    /// The next request message if it has come, None after the last; False: `read` waits for it.
    fn take<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self.inbox.as_ref().map_or_else(|| self.only(), |inbox| inbox.take()) {
            Taken::Message(message, ()) => PyBytes::new(py, &message).into_any(),
            Taken::End(()) => py.None().into_bound(py),
            Taken::Later => PyBool::new(py, false).to_owned().into_any(),
        }
    }

    /// Complete `future` with the next request message, or with None after the last.
    fn read(&self, future: Bound<'_, PyAny>) -> PyResult<()> {
        match &self.inbox {
            Some(inbox) => inbox.take_later(future),
            None => complete(future.py(), &future, Ok(self.take(future.py()).unbind())),
        }
    }

    /// The next request message, or None after the last; blocks this thread. ConnectionError when the call is over.
    fn read_blocking<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Some(inbox) = &self.inbox else {
            return Ok(self.take(py));
        };
        match py.detach(|| inbox.take_blocking()) {
            Ok(Some(message)) => Ok(PyBytes::new(py, &message).into_any()),
            Ok(None) => Ok(py.None().into_bound(py)),
            Err(()) => Err(PyConnectionError::new_err("the call has ended")),
        }
    }

    /// Send the initial metadata; false when it has been sent already, by itself or with the first message.
    fn send_metadata(&self, metadata: &Bound<'_, PyAny>) -> PyResult<bool> {
        let mut headers = serve_metadata::from_python(Some(metadata))?;
        let mut sending = self.sending();
        if std::mem::replace(&mut sending.has_begun, true) {
            return Ok(false);
        }
        if let Some(encoding) = sending.encoding {
            headers.insert(ENCODING, encoding.header());
        }
        drop(sending);
        self.outbox.say(Said::Metadata(Box::new(headers)));
        Ok(true)
    }

    /// Send a message; false when there is no room and nothing was sent: then `write_later`.
    fn write(&self, py: Python<'_>, message: &[u8]) -> PyResult<bool> {
        if !self.outbox.has_room()? {
            return Ok(false); // before the work of framing
        }
        let framed = self.frame(py, message);
        self.outbox.say(Said::Message(framed));
        Ok(true)
    }

    /// Send a message once there is room; blocks this thread. ConnectionError when the call is over.
    fn write_blocking(&self, py: Python<'_>, message: &[u8]) -> PyResult<()> {
        let framed = self.frame(py, message);
        if self.outbox.has_room()? {
            self.outbox.say(Said::Message(framed));
            return Ok(());
        }
        py.detach(|| self.outbox.say_blocking(Said::Message(framed)))
    }

    /// Send a message once there is room, and then complete `future`.
    fn write_later(&self, py: Python<'_>, message: &[u8], future: Py<PyAny>) {
        let framed = self.frame(py, message);
        self.outbox.wait(Said::Message(framed), self.post.clone(), future);
    }

    /// Compress the answer's messages in `encoding`, if the caller takes that. Before the initial metadata only.
    fn set_compression(&self, encoding: Option<PyEncoding>) -> PyResult<()> {
        let mut sending = self.sending();
        if sending.has_begun {
            let text = "compression is said by the initial metadata, which has been sent already";
            return Err(PyRuntimeError::new_err(text));
        }
        sending.encoding = encoding
            .map(|PyEncoding(encoding)| encoding)
            .filter(|encoding| encoding.is_accepted(&self.headers));
        Ok(())
    }

    /// Send the next message as it is.
    fn leave_next_plain(&self) {
        self.sending().next_is_plain = true;
    }

    /// End the call well, with its last or only message; false if it has ended already.
    fn answer(&self, py: Python<'_>, message: &[u8]) -> bool {
        let is_first = self.end();
        if is_first {
            let last = self.frame(py, message);
            self.outbox.say(Said::End(Some(last), None));
        }
        is_first
    }

    /// End the call, with a last (or only) message if it went well; false if it has ended already.
    #[pyo3(signature = (message, code, details, metadata))]
    fn finish(
        &self,
        py: Python<'_>,
        message: Option<&[u8]>,
        code: i32,
        details: &str,
        metadata: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let metadata = serve_metadata::from_python(metadata)?;
        let is_first = self.end();
        if is_first {
            let outcome = Outcome {
                code: Code::from_i32(code),
                message: details.into(),
                metadata,
            };
            let last = message.map(|message| self.frame(py, message));
            self.outbox.say(Said::End(last, Some(Box::new(outcome))));
        }
        Ok(is_first)
    }

    fn take_descriptor(&self, device: u64, inode: u64, timeout: f64, future: Py<PyAny>) -> PyResult<()> {
        let descriptors = self.descriptors()?.clone();
        serve_descriptors::take(self.post.clone(), descriptors, (device, inode), timeout, future)
    }

    /// Send a duplicate of `descriptor` in front of what is written next.
    fn send_descriptor(&self, descriptor: RawFd) -> PyResult<()> {
        let duplicate = serve_descriptors::duplicate(descriptor)?;
        self.descriptors()?
            .send(duplicate)
            .map_err(|refused| serve_descriptors::to_python(&refused))
    }
}
