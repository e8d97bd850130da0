//! One call at the server: led through the checks to its handler, and watched until its end.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::peer::Peer;
use crate::server::Shared;
use crate::server::body::CallBody;
use crate::server::connection::Connected;
use crate::server::context::CallContext;
use crate::server::incoming::Watch;
use crate::server::load::{self, Charge};
use crate::telemetry::conventions::{describe_server, span_name};
use crate::telemetry::span::{Active, Context};
use crate::telemetry::stats;
use crate::telemetry::tally::RequestBody;
use crate::wire::deadline::{self, Deadline};

/// Handlers that are not generated tonic services.
pub trait Fallback: Send + Sync + 'static {
    /// Whether these handlers know the method at `path` ("/package.Service/Method").
    fn claims(&self, path: &str) -> bool;

    /// The paths of the methods that these handlers are sure to know: telemetry names only these.
    fn methods(&self) -> Vec<String>;

    /// Answer a call.
    fn call(
        &self,
        request: Request<RequestBody>,
        context: CallContext,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
}

/// Lead one request through the checks to its handler.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    connected: Arc<Connected>,
) -> Response<CallBody> {
    if let Some(refusal) = not_grpc(&request) {
        return CallBody::bare(refusal);
    }
    let path: Arc<str> = request.uri().path().into();
    let peer = &connected.peer;
    let span = begin_span(&shared, &path, &request, peer);
    let watch = Watch::begin(shared.clone(), span, &path, &connected);
    if let Err(retry) = connected.account().call() {
        stats::add(&shared.stats.calls_limited);
        let text = format!(
            "{} makes more calls than this server takes from one caller",
            peer.principal()
        );
        return CallBody::wrap(load::refusal(text, retry).into_http(), None, watch);
    }
    if let Some(rules) = &shared.rules
        && !rules.allow(&path, peer)
    {
        stats::add(&shared.stats.calls_denied);
        let text = format!(
            "{} may not call {path}: no authorization rule of this server allows it",
            peer.principal()
        );
        return CallBody::wrap(Status::permission_denied(text).into_http(), None, watch);
    }
    let deadline = match deadline::read(request.headers()) {
        Ok(timeout) => timeout.map(|timeout| Instant::now() + timeout),
        Err(()) => {
            let status = Status::invalid_argument("malformed grpc-timeout: expected 1-8 digits and one of H M S m u n");
            return CallBody::wrap(status.into_http(), None, watch);
        }
    };
    let charge = Charge::new(connected.account().clone());
    if charge.is_full() && !is_health_check(&path) {
        return CallBody::wrap(charge.refusal().into_http(), None, watch);
    }
    let context = CallContext {
        peer: peer.clone(),
        span: watch.span.as_ref().map(Active::current),
        descriptors: connected.descriptors.clone(),
        deadline: deadline.map(Deadline),
    };
    let request = request.map(|body| RequestBody::new(body, watch.request(), charge));
    let handler = handle(&shared, &path, request, context);
    let mut timer = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
    let response = match &mut timer {
        None => handler.await,
        Some(timer) => tokio::select! {
            biased;
            response = handler => response,
            () = timer.as_mut() => Status::deadline_exceeded("the call's deadline has passed").into_http(),
        },
    };
    CallBody::wrap(response, timer, watch)
}

/// Health checks are never shed: they must say how a busy server is.
pub fn is_health_check(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/")
}

/// Find the handler and call it; a panic in a native handler becomes INTERNAL for this caller only.
fn handle(
    shared: &Shared,
    path: &str,
    mut request: Request<RequestBody>,
    context: CallContext,
) -> impl Future<Output = Response<Body>> + use<> {
    let work: Pin<Box<dyn Future<Output = Response<Body>> + Send>> =
        if let Some(mut routes) = shared.services.find(path) {
            request.extensions_mut().insert(context);
            let response = routes.call(request.map(Body::new));
            Box::pin(async move { response.await.unwrap_or_else(|never| match never {}) })
        } else if let Some(fallback) = shared.fallback.as_ref().filter(|fallback| fallback.claims(path)) {
            fallback.call(request, context)
        } else {
            let status = Status::unimplemented(format!("this server has no method {path}"));
            Box::pin(std::future::ready(status.into_http()))
        };
    CatchPanic(work)
}

struct CatchPanic(Pin<Box<dyn Future<Output = Response<Body>> + Send>>);

impl Future for CatchPanic {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let poll = AssertUnwindSafe(|| self.0.as_mut().poll(context));
        std::panic::catch_unwind(poll).unwrap_or_else(|_| {
            std::task::Poll::Ready(
                Status::internal("the handler panicked; see the server's standard error").into_http(),
            )
        })
    }
}

/// What HTTP has to say to a request that isn't gRPC.
fn not_grpc(request: &Request<Incoming>) -> Option<Response<Body>> {
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let code = match (request.method() == http::Method::POST, is_grpc) {
        (true, true) => return None,
        (false, _) => http::StatusCode::METHOD_NOT_ALLOWED,
        (true, false) => http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    Some(response)
}

/// A call without a trace that isn't to begin one has no span: nobody would ever see its place.
fn begin_span(shared: &Shared, path: &str, request: &Request<Incoming>, peer: &Peer) -> Option<Active> {
    let (recorder, root_share) = shared.spans.as_ref()?;
    let header = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    let parent = header.and_then(Context::parse);
    let is_root = parent.is_none() && *root_share > 0.0 && crate::telemetry::span::share() < *root_share;
    if parent.is_none() && !is_root {
        return None;
    }
    let method = match &shared.methods {
        Some(methods) => methods.find(path).name(),
        None => path.trim_start_matches('/'),
    };
    let mut span = Active::server(parent, is_root, || span_name(method), recorder);
    if span.is_recording() {
        describe_server(&mut span, method, path, request.uri().authority(), peer);
    }
    Some(span)
}
