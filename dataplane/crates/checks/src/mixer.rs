//! istio.mixer.v1.Mixer: Check from bytes to bytes, and Report into the record queue.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use meshwright_api::istio::mixer::v1::ReportRequest;
use meshwright_api::meshwright::mixer::v1::record::Kind as RecordKind;
use meshwright_policy::{CheckRequest, Plan, dictionary, expand};
use meshwright_serve::CallContext;
use meshwright_serve::telemetry::span::Kind;
use prost::Message;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tower_service::Service;

use crate::raw::RawCodec;
use crate::state::{State, status};
use crate::{attributes, counters};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The service. Written by hand where tonic would generate it, because a Check isn't decoded.
#[derive(Debug, Clone)]
pub(crate) struct MixerServer {
    state: Arc<State>,
}

impl MixerServer {
    pub(crate) fn new(state: Arc<State>) -> Self {
        MixerServer { state }
    }
}

impl NamedService for MixerServer {
    const NAME: &'static str = "istio.mixer.v1.Mixer";
}

impl Service<http::Request<Body>> for MixerServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let state = self.state.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(RawCodec);
            Ok(match request.uri().path() {
                "/istio.mixer.v1.Mixer/Check" => grpc.unary(Check(state), request).await,
                "/istio.mixer.v1.Mixer/Report" => grpc.unary(Report(state), request).await,
                path => Status::unimplemented(format!("there is no method {path}")).into_http(),
            })
        })
    }
}

struct Check(Arc<State>);

impl UnaryService<Bytes> for Check {
    type Response = Bytes;
    type Future = Boxed<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            counters::add(&state.counters.mixer_checks);
            check(&state, request)
                .await
                .inspect_err(|_| counters::add(&state.counters.checks_invalid))
        })
    }
}

async fn check(state: &State, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    let mut span = CallContext::of(&request)
        .and_then(|context| context.span.as_ref())
        .map(|current| current.child("policy.check", Kind::Internal));
    let program = state.engine.program();
    let request = CheckRequest::read(request.get_ref()).map_err(|error| status(&error))?;
    let plan = {
        let bag = request.bag(&program).map_err(|error| status(&error))?;
        Plan::make(&program, &request, &bag).map_err(|error| status(&error))?
    };
    let denied = plan.decision.code != 0;
    if denied {
        counters::add(&state.counters.checks_denied);
    }
    let current = span
        .as_ref()
        .filter(|span| span.is_recording())
        .map(|span| span.current());
    let mut settled = Vec::with_capacity(plan.quotas.len());
    let mut refused = false;
    for planned in &plan.quotas {
        let grant = state.charge_all(&planned.charges, current.as_ref()).await;
        let is_charged = !planned.charges.charges.is_empty() || planned.charges.refused.is_some();
        refused |= is_charged && grant.granted == 0;
        settled.push(grant);
    }
    if refused {
        counters::add(&state.counters.quotas_refused);
    }
    if let Some(span) = span.as_mut().filter(|span| span.is_recording()) {
        span.set("policy.decision", if denied { "deny" } else { "allow" });
        span.set("policy.code", plan.decision.code);
        if let Some(rule) = &plan.decision.rule {
            span.set("policy.rule", rule.clone());
        }
        if !plan.quotas.is_empty() {
            span.set("policy.quota", if refused { "refused" } else { "granted" });
        }
    }
    Ok(Response::new(
        plan.answer(&program, &request, &settled).encode_to_vec().into(),
    ))
}

struct Report(Arc<State>);

impl UnaryService<Bytes> for Report {
    type Response = Bytes;
    type Future = Boxed<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move { report(&state, &request) })
    }
}

fn report(state: &State, request: &Request<Bytes>) -> Result<Response<Bytes>, Status> {
    counters::add(&state.counters.reports);
    let message = ReportRequest::decode(request.get_ref().clone())
        .map_err(|error| Status::invalid_argument(format!("malformed ReportRequest: {error}")))?;
    let (known, claimed) = (dictionary::WORDS.len(), message.global_word_count);
    if claimed as usize > known {
        return Err(status(&meshwright_policy::BadRequest::Dictionary { known, claimed }));
    }
    let program = state.engine.program();
    let peer = CallContext::of(request).map(|context| &*context.peer);
    let (mut records, mut errors, mut cached) = (Vec::new(), Vec::new(), 0);
    for (position, attributes) in expand(&message).into_iter().enumerate() {
        cached += u64::from(attributes.as_ref().is_ok_and(attributes::is_cached_decision));
        match attributes.and_then(|attributes| state.record(&program, RecordKind::Report, attributes, peer)) {
            Ok(record) => records.extend(record),
            Err(error) => errors.push(format!("attributes[{position}]: {error}")),
        }
    }
    let count = records.len() as u64;
    if !state.records.offer(records) {
        counters::add(&state.counters.reports_refused_full);
        return Err(Status::resource_exhausted(
            "too many records wait to be published; report again later",
        ));
    }
    state.counters.records_queued.fetch_add(count, Ordering::Relaxed);
    state.counters.checks_cached.fetch_add(cached, Ordering::Relaxed);
    if errors.is_empty() {
        return Ok(Response::new(Bytes::new()));
    }
    state
        .counters
        .reports_invalid
        .fetch_add(errors.len() as u64, Ordering::Relaxed);
    // As Mixer does: the readable elements were taken, and the call fails naming the others.
    let count = errors.len();
    errors.truncate(10);
    Err(Status::unknown(format!(
        "{count} elements can't be read: {}",
        errors.join("; ")
    )))
}
