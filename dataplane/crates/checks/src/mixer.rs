//! istio.mixer.v1.Mixer: Check from bytes to bytes, and Report into the queue of records.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::mixer::v1::Record;
use meshwright_api::meshwright::mixer::v1::record::Kind as RecordKind;
use meshwright_policy::{self as policy, BadRequest, Bag, CheckRequest, Plan, Program, Vocabulary};
use meshwright_reports::{Origin, Stored};
use meshwright_serve::CallContext;
use meshwright_serve::telemetry::span::{Active, Current, Kind};
use prost::Message;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tower_service::Service;

use crate::decision_log::{Api, Noted, Quota};
use crate::raw::RawCodec;
use crate::state::{State, status};
use crate::{counters, records};

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
    let current = span.as_ref().map(Active::current);
    let planned = plan(state, &program, &request, current.as_ref()).await;
    let mut plan = planned.map_err(|error| status(&error))?;
    if state.sampler.is_due(state.now()) {
        state.sampler.check(&request);
    }
    let denied = plan.decision.code != 0;
    let mut settled = Vec::with_capacity(plan.quotas.len());
    let mut refused = false;
    for planned in &mut plan.quotas {
        let grant = state.charge(&mut planned.charges, current.as_ref()).await;
        refused |= !planned.charges.are_unlimited() && grant.granted == 0;
        settled.push(grant);
    }
    if refused {
        counters::add(&state.counters.quotas_refused);
    }
    let id = state.decision_id();
    let quota = match (plan.quotas.is_empty(), refused) {
        (true, _) => Quota::None,
        (false, false) => Quota::Granted,
        (false, true) => Quota::Refused,
    };
    state
        .log
        .note(Noted::new(id, Api::Mixer, &program, &plan.decision, quota, None));
    if let Some(span) = span.as_mut().filter(|span| span.is_recording()) {
        span.set("policy.decision", if denied { "deny" } else { "allow" });
        span.set("policy.code", plan.decision.code);
        span.set("policy.decision_id", id.to_string());
        if let Some(rule) = &plan.decision.rule {
            span.set("policy.rule", rule.clone());
        }
        if !plan.decision.trials.is_empty() {
            let rules: Vec<_> = plan.decision.trials.iter().map(|trial| trial.rule.as_str()).collect();
            span.set("policy.dry_run", rules.join(", "));
        }
        if !plan.quotas.is_empty() {
            span.set("policy.quota", if refused { "refused" } else { "granted" });
        }
    }
    Ok(Response::new(
        plan.answer(&program, &request, &settled).encode_to_vec().into(),
    ))
}

async fn plan(
    state: &State,
    program: &Program,
    request: &CheckRequest<'_>,
    span: Option<&Current>,
) -> Result<Plan, BadRequest> {
    let bag = request.bag(program)?;
    let generated = state.generate(program, &bag, span).await?;
    let bag = match &generated {
        Some(generated) => bag.with(generated),
        None => bag,
    };
    let decision = state.decide(program, &bag, span).await?;
    Plan::make(program, request, &bag, decision, state.now())
}

struct Report(Arc<State>);

impl UnaryService<Bytes> for Report {
    type Response = Bytes;
    type Future = Boxed<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move { report(&state, request).await })
    }
}

/// OK means that the queue has it.
async fn report(state: &State, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    counters::add(&state.counters.reports);
    let admitted = admit(state, &request)?;
    state.confirm(admitted.stored).await?;
    let mut errors = admitted.errors;
    if errors.is_empty() {
        return Ok(Response::new(Bytes::new()));
    }
    let count = errors.len();
    let invalid = &state.counters.reports_invalid;
    invalid.fetch_add(count as u64, Ordering::Relaxed);
    // As Mixer does: the readable elements were taken, and the call fails naming the others.
    errors.truncate(10);
    let errors: Vec<String> = errors
        .into_iter()
        .map(|(position, error)| format!("attributes[{position}]: {error}"))
        .collect();
    Err(Status::unknown(format!(
        "{count} elements can't be read: {}",
        errors.join("; ")
    )))
}

/// A report that waits to be stored, and the elements that aren't part of it.
struct Admitted {
    stored: Stored,
    errors: Vec<(usize, String)>,
}

fn admit(state: &State, request: &Request<Bytes>) -> Result<Admitted, Status> {
    let bytes = request.get_ref();
    let report = policy::Report::read(bytes).map_err(|error| status(&error))?;
    let origin = Origin {
        kind: RecordKind::Report,
        reporter: records::reporter(CallContext::of(request).map(|context| &*context.peer)),
    };
    let program = state.engine.program();
    let mut errors = Vec::new();
    let (reports, too_large) = if report.is_delta {
        let elements = deltas(state, &program, bytes, &mut errors)?;
        meshwright_reports::records(origin, elements)
    } else {
        let words: Vec<Bytes> = (report.default_words.iter())
            .map(|word| bytes.slice_ref(word.as_bytes()))
            .collect();
        let elements = independent(state, &program, bytes, report, &mut errors);
        meshwright_reports::elements(origin, &words, elements)
    };
    errors.extend(
        too_large
            .into_iter()
            .map(|(position, error)| (position, error.to_string())),
    );
    errors.sort_unstable_by_key(|(position, _)| *position);
    let count = records::count(&reports);
    let stored = state.reports.outbox.offer(reports).map_err(|full| {
        counters::add(&state.counters.reports_refused_full);
        Status::resource_exhausted(full.to_string())
    })?;
    state.counters.records_queued.fetch_add(count as u64, Ordering::Relaxed);
    Ok(Admitted { stored, errors })
}

/// The elements that rules want, as they came.
fn independent(
    state: &State,
    program: &Program,
    bytes: &Bytes,
    report: policy::Report<'_>,
    errors: &mut Vec<(usize, String)>,
) -> Vec<(usize, Bytes)> {
    let vocabulary = Vocabulary::new(program.names(), report.default_words);
    let mut wanted = Vec::with_capacity(report.elements.len());
    for (position, element) in report.elements.into_iter().enumerate() {
        let is_wanted = vocabulary.check(element).and_then(|()| {
            if state.sampler.is_due(state.now()) {
                let attributes = policy::expand_element(element, &vocabulary.dictionary())?;
                state.sampler.add(policy::seen(&attributes));
            }
            let bag = vocabulary.bag(program.names(), element)?;
            is_wanted(state, program, &bag)
        });
        match is_wanted {
            Ok(true) => wanted.push((position, bytes.slice_ref(element))),
            Ok(false) => {}
            Err(error) => errors.push((position, error.to_string())),
        }
    }
    wanted
}

/// Elements that build upon one another, each in full.
fn deltas(
    state: &State,
    program: &Program,
    bytes: &Bytes,
    errors: &mut Vec<(usize, String)>,
) -> Result<Vec<(usize, Bytes)>, Status> {
    let message = mixer::ReportRequest::decode(bytes.clone())
        .map_err(|error| Status::invalid_argument(format!("malformed ReportRequest: {error}")))?;
    let mut wanted = Vec::new();
    for (position, attributes) in policy::expand(&message).into_iter().enumerate() {
        let is_wanted = attributes.and_then(|attributes| {
            let is_wanted = is_wanted(state, program, &Bag::plain(program.names(), &attributes)?)?;
            Ok(is_wanted.then_some(attributes))
        });
        match is_wanted {
            Ok(None) => {}
            Ok(Some(attributes)) => {
                let record = Record {
                    attributes: Some(mixer::Attributes { attributes }),
                    ..Default::default()
                };
                wanted.push((position, record.encode_to_vec().into()));
            }
            Err(error) => errors.push((position, error.to_string())),
        }
    }
    Ok(wanted)
}

fn is_wanted(state: &State, program: &Program, bag: &Bag<'_>) -> Result<bool, BadRequest> {
    if program.is_cached_decision(bag) {
        counters::add(&state.counters.checks_cached);
    }
    state.wants(program, bag)
}
