//! Python's handlers behind the server: reads a call's request, hands the call to the loop, and sends what comes back.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use foldhash::HashMap;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use meshwright_serve::server::load::Charge;
use meshwright_serve::wire::compression::{ACCEPT_ENCODING, ACCEPTED};
use meshwright_serve::wire::frame::Reader;
use meshwright_serve::{CallContext, Encoding, Fallback, Load, Outcome, RequestBody, is_health_check};
use pyo3::prelude::*;
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::body::Body;

use crate::serve_call::{Sending, ServerCall};
use crate::serve_inbox::Inbox;
use crate::serve_mailbox::Post;
use crate::serve_outbox::{Finish, Outbox, Said, SaidBody, outbox, trailers};

type Reply = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// The handlers of one server, and how to call them.
pub(crate) struct Handlers {
    /// Methods by path.
    pub(crate) methods: HashMap<String, Arc<Method>>,
    /// What stands for all methods that aren't in the table, when Python may know further ones (generic handlers).
    pub(crate) other: Option<Arc<Method>>,
    pub(crate) message_size: usize,
    pub(crate) pending_calls: usize,
    pub(crate) load: Arc<Load>,
    /// What answers are compressed in where the caller takes it and the handler says nothing else.
    pub(crate) compression: Option<Encoding>,
    pub(crate) post: Arc<Post>,
    /// Called with the number of a call whose caller has gone or whose deadline has passed.
    pub(crate) on_cancel: Py<PyAny>,
    pub(crate) pending: AtomicUsize,
}

/// One method, or all that aren't registered.
pub(crate) struct Method {
    pub(crate) path: String,
    /// Whether the request is a stream.
    pub(crate) streams: bool,
    /// Called with each new call and its number.
    pub(crate) begin: Py<PyAny>,
}

impl Method {
    pub(crate) fn new(path: String, streams: bool, begin: Py<PyAny>) -> Arc<Self> {
        Arc::new(Self { path, streams, begin })
    }
}

/// Numbers the calls of all servers of the process.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// The server's hold on Python's handlers.
pub(crate) struct PythonFallback(pub(crate) Arc<Handlers>);

impl Fallback for PythonFallback {
    fn claims(&self, path: &str) -> bool {
        self.0.other.is_some() || self.0.methods.contains_key(path)
    }

    fn methods(&self) -> Vec<String> {
        self.0.methods.keys().cloned().collect()
    }

    fn call(&self, request: Request<RequestBody>, context: CallContext) -> Reply {
        let entered = Place::take(&self.0, is_health_check(request.uri().path()));
        match entered {
            Ok(place) => {
                let watch = CallWatch {
                    handlers: self.0.clone(),
                    place: Arc::new(place),
                    number: 0,
                    reading: None,
                };
                Box::pin(answer(watch, request, context))
            }
            Err(status) => Box::pin(std::future::ready(status.into_http())),
        }
    }
}

/// A place among the pending calls. It is left when the caller has its answer *and* Python has heard of the call: whoever
/// begins calls and resets them at once must not fill Python's mailbox.
struct Place(Arc<Handlers>);

impl Place {
    fn take(handlers: &Arc<Handlers>, is_health_check: bool) -> Result<Self, Status> {
        let place = Self(handlers.clone());
        // Health checks have some places of their own.
        let most = handlers.pending_calls + if is_health_check { HEALTH_CHECKS } else { 0 };
        if handlers.pending.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(handlers.load.too_many(handlers.pending_calls));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

const HEALTH_CHECKS: usize = 64;

/// Lives as long as a call does. Dropped before its end, it tells Python that the call is over.
struct CallWatch {
    handlers: Arc<Handlers>,
    place: Arc<Place>,
    /// Zero: Python doesn't know of this call, or it has ended it.
    number: u64,
    /// Of a request that is a stream.
    reading: Option<(AbortHandle, Arc<Inbox>)>,
}

impl Finish for CallWatch {
    fn finished(&mut self) {
        self.number = 0;
    }

    fn unfinished(&self) -> Option<Outcome> {
        Some(Outcome::new(tonic::Code::Unavailable, GONE))
    }
}

const GONE: &str = "the server's handler went away without an answer";

impl Drop for CallWatch {
    fn drop(&mut self) {
        if let Some((reader, inbox)) = &self.reading {
            reader.abort();
            inbox.break_off();
        }
        if self.number != 0 {
            let (place, number) = (self.place.clone(), self.number);
            self.handlers
                .post
                .send(move |py| place.0.on_cancel.call1(py, (number,)).map(drop));
        }
    }
}

async fn answer(mut watch: CallWatch, request: Request<RequestBody>, context: CallContext) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let handlers = watch.handlers.clone();
    // Unknown methods are read as streams: Python finds the handler, and with it the kind.
    let known = handlers.methods.get(parts.uri.path());
    let Some(method) = known.or(handlers.other.as_ref()).cloned() else {
        return Status::unimplemented("the method has gone").into_http(); // claimed before it is called
    };
    let path = known.is_none().then(|| parts.uri.path().into());
    let encoding = match Encoding::of(&parts.headers) {
        Ok(encoding) => encoding,
        Err(name) => return unknown_encoding(&name),
    };
    let charge = body.charge();
    let mut reader = Reader::new(body, handlers.message_size, encoding);
    let message = if method.streams {
        None
    } else {
        match only_message(&mut reader).await {
            Ok(message) => Some(message),
            Err(status) => return status.into_http(),
        }
    };
    let waited = match handlers.load.wait() {
        Ok(waiting) => waiting,
        Err(_) if is_health_check(parts.uri.path()) => handlers.load.wait_regardless(),
        Err(status) => return status.into_http(),
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    watch.number = number;
    let (outbox, mut outgoing) = outbox();
    let mut inbox = None;
    if method.streams {
        let read = Inbox::new(handlers.post.clone());
        let reading = read_stream(reader, charge.another(0), read.clone(), outbox.clone());
        let reading = tokio::spawn(reading).abort_handle();
        watch.reading = Some((reading, read.clone()));
        inbox = Some(read);
    }
    let encoding = handlers.compression.filter(|ours| ours.is_accepted(&parts.headers));
    let call = ServerCall {
        number,
        method: method.clone(),
        path,
        untaken: Mutex::new(message.as_ref().and_then(|message| charge.counted(message.len()))),
        message,
        is_taken: AtomicBool::new(false),
        headers: parts.headers,
        context,
        inbox,
        outbox,
        charge,
        post: handlers.post.clone(),
        sending: Mutex::new(Sending::new(encoding)),
        has_ended: AtomicBool::new(false),
    };
    let place = watch.place.clone();
    let is_lone = handlers.pending.load(Ordering::Relaxed) <= 1;
    handlers.post.send_call(is_lone, move |py| {
        waited.over();
        let begun = method.begin.call1(py, (call, number)).map(drop);
        drop(place);
        begun
    });
    drop(handlers);
    match outgoing.next().await {
        Some(Said::Metadata(metadata)) => {
            let mut response = respond(Body::new(SaidBody::new(None, outgoing, watch)));
            response.headers_mut().extend(*metadata);
            response
        }
        Some(Said::End(None, outcome)) => {
            watch.finished();
            only_trailers(trailers(outcome))
        }
        Some(first) => respond(Body::new(SaidBody::new(Some(first), outgoing, watch))),
        None => {
            watch.finished();
            only_trailers(Outcome::new(tonic::Code::Unavailable, GONE).into_trailers())
        }
    }
}

/// Read a stream of requests into `inbox`.
async fn read_stream(mut reader: Reader<RequestBody>, charge: Charge, inbox: Arc<Inbox>, outbox: Outbox) {
    loop {
        match reader.next().await {
            Ok(Ok(Some(message))) => inbox.put(charge.hold(message)).await,
            Ok(Ok(None)) => return inbox.end(),
            // The caller has gone: half a stream must not look like a whole one. The handler is cancelled soon.
            Err(status) if status.code() == tonic::Code::Cancelled => return inbox.break_off(),
            // Too long, malformed, or too much is held.
            Ok(Err(status)) | Err(status) => return outbox.say(Said::failure(status.into())),
        }
    }
}

/// An answer that consists of its end ("Trailers-Only").
fn only_trailers(trailers: HeaderMap) -> Response<Body> {
    let mut response = respond(Body::empty());
    response.headers_mut().extend(trailers);
    response
}

fn respond(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(ACCEPT_ENCODING, ACCEPTED);
    response
}

fn unknown_encoding(name: &str) -> Response<Body> {
    let text = format!("grpc-encoding {name:?} is unknown here; this server reads identity, deflate and gzip");
    let mut response = Status::unimplemented(text).into_http();
    response.headers_mut().insert(ACCEPT_ENCODING, ACCEPTED);
    response
}

/// The request of a method that takes one message, read to its end.
async fn only_message(reader: &mut Reader<RequestBody>) -> Result<Bytes, Status> {
    let message = reader.next().await??;
    let message = message.ok_or_else(|| Status::internal("the request has no message"))?;
    match reader.next().await?? {
        None => Ok(message),
        Some(_) => Err(Status::internal("the request has more than one message")),
    }
}
