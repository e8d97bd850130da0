//! Envoy's rate limit service: each descriptor is charged to the quotas of the rules that match it, whatever the others
//! get. A descriptor that asks for more than is left takes the rest and is over the limit: what is reported at a stream's
//! end has been used already.

mod headers;
mod window;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::Duration;
use futures_util::future::join_all;
use meshwright_policy::{Charge, Charges, Demand, Grant, Program, References, Trial};
use meshwright_serve::CallContext;
use meshwright_serve::telemetry::span::{Active, Current, Kind};
use tonic::{Request, Response, Status};

use crate::attributes::limited::Limited;
use crate::authorization::answer::Metadata;
use crate::counters;
use crate::decision::DecisionId;
use crate::decision_log::{Noted, Quota};
use crate::state::{State, status};

const RESOURCE_EXHAUSTED: i32 = 8;
/// An Envoy's route has a handful of actions, each a descriptor of a few entries.
const MAX_DESCRIPTORS: usize = 64;
const MAX_ENTRIES: usize = 64;
/// Of a key or value: it becomes part of a cell's name.
const MAX_TEXT: usize = 4096;

#[derive(Debug)]
pub(crate) struct RateLimits {
    state: Arc<State>,
}

impl RateLimits {
    pub(crate) fn new(state: Arc<State>) -> Self {
        RateLimits { state }
    }
}

#[tonic::async_trait]
impl RateLimitService for RateLimits {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let state = &self.state;
        counters::add(&state.counters.rate_limit_checks);
        let call = CallContext::of(&request);
        let caller = call.and_then(|call| call.peer.spiffe_id.clone());
        let mut span = call
            .and_then(|call| call.span.as_ref())
            .map(|current| current.child("policy.ratelimit", Kind::Internal));
        let request = request.into_inner();
        bounded(&request).inspect_err(|_| counters::add(&state.counters.checks_invalid))?;
        let current = span.as_ref().map(Active::current);
        let program = state.engine.program();
        let demands = self.demands(&program, request, caller, current.as_ref()).await?;
        let mut references = References::default();
        demands.iter().for_each(|demand| references.join(&demand.references));
        // Each may be another replica's, or an adapter's.
        let answers = demands.into_iter().map(|demand| self.charge(demand, current.as_ref()));
        let answers = join_all(answers).await;
        let over: Vec<String> = answers.iter().flat_map(|answer| answer.over.iter().cloned()).collect();
        if !over.is_empty() {
            counters::add(&state.counters.quotas_refused);
        }
        let id = state.decision_id();
        state.log.note(noted(id, (references, program), &answers, &over));
        let id = id.to_string();
        if let Some(span) = span.as_mut().filter(|span| span.is_recording()) {
            span.set("policy.decision", if over.is_empty() { "allow" } else { "deny" });
            span.set("policy.decision_id", id.clone());
        }
        Ok(Response::new(self.answer(answers, over, &id)))
    }
}

impl RateLimits {
    /// What each descriptor is charged.
    async fn demands(
        &self,
        program: &Program,
        request: RateLimitRequest,
        caller: Option<Arc<str>>,
        span: Option<&Current>,
    ) -> Result<Vec<Charges>, Status> {
        let state = &self.state;
        let domain: Arc<str> = request.domain.into();
        let mut all = Vec::with_capacity(request.descriptors.len());
        for descriptor in request.descriptors {
            let hits = hits(&descriptor, request.hits_addend);
            let limited = Limited::new(domain.clone(), descriptor.entries, hits, caller.clone());
            let demand = Demand {
                quota: None,
                amount: hits,
                best_effort: true,
                deduplication_id: None,
            };
            let invalid = |error| {
                counters::add(&state.counters.checks_invalid);
                status(&error)
            };
            let bag = limited.bag(program.names());
            let generated = state.generate(program, &bag, span).await.map_err(invalid)?;
            let bag = match &generated {
                Some(generated) => bag.with(generated),
                None => bag,
            };
            let mut charges = program.charges(&bag, demand, state.now()).map_err(invalid)?;
            // A quota whose dimensions a descriptor lacks isn't this descriptor's.
            charges.refused = None;
            if let Some(limit) = &descriptor.limit {
                let cells = charges.charges.iter_mut();
                cells.for_each(|charge| replace_limit(charge, limit));
            }
            all.push(charges);
        }
        Ok(all)
    }

    async fn charge(&self, mut demand: Charges, span: Option<&Current>) -> Answer {
        let state = &self.state;
        let grants = join_all(demand.charges.iter().map(|charge| state.charge_one(charge, span))).await;
        let mut answer = Answer::new(&demand.charges, &grants);
        answer.is_limited = !demand.are_unlimited();
        for trial in &demand.trials {
            let grant = state.charge_one(&trial.charge, span).await;
            if trial.charge.amount > grant.granted {
                counters::add(&state.counters.quotas_tried);
                answer.tried.push(trial.rule.clone());
            }
        }
        let questions = demand.questions();
        if !questions.is_empty() {
            let names: Vec<_> = questions
                .iter()
                .map(|question| question.subject.instance.to_string())
                .collect();
            let answers = state.ask(questions, span).await;
            // Only what adapters granted counts here, each by its handler's failure policy.
            if demand.amount > 0 && demand.settle(&[], &answers).grant.granted < demand.amount {
                answer.over.extend(names);
            }
        }
        answer
    }

    fn answer(&self, answers: Vec<Answer>, over: Vec<String>, id: &str) -> RateLimitResponse {
        let response_headers_to_add = match self.state.rate_limit_headers.load(Ordering::Relaxed) {
            true => headers::all(answers.iter().flat_map(|answer| &answer.held)),
            false => Vec::new(),
        };
        let tried = answers.iter().flat_map(|answer| answer.tried.iter().cloned());
        let mut metadata = Metadata::default();
        metadata.text("decision_id", id);
        metadata.list("dry_run", tried.collect());
        metadata.list("over_limit", over.clone());
        RateLimitResponse {
            overall_code: if over.is_empty() { Code::Ok } else { Code::OverLimit }.into(),
            statuses: answers.into_iter().map(Answer::status).collect(),
            response_headers_to_add,
            dynamic_metadata: metadata.message(),
            ..Default::default()
        }
    }
}

/// What the log keeps of one request with all its descriptors.
fn noted(id: DecisionId, made_from: (References, Arc<Program>), answers: &[Answer], over: &[String]) -> Noted {
    let quota = match (over.is_empty(), answers.iter().any(|answer| answer.is_limited)) {
        (false, _) => Quota::Refused,
        (true, true) => Quota::Granted,
        (true, false) => Quota::None,
    };
    let trials = answers.iter().flat_map(|answer| &answer.tried).map(|rule| Trial {
        rule: rule.clone(),
        code: RESOURCE_EXHAUSTED,
        message: "quota exhausted".to_owned(),
    });
    let refusal = (!over.is_empty()).then(|| (RESOURCE_EXHAUSTED, format!("quota exhausted: {}", over.join(", "))));
    Noted::limited(id, made_from, trials.collect(), quota, refusal)
}

fn bounded(request: &RateLimitRequest) -> Result<(), Status> {
    let wrong = |reason: String| Err(Status::invalid_argument(reason));
    if request.domain.is_empty() || request.domain.len() > MAX_TEXT {
        return wrong(format!("domain: give one of at most {MAX_TEXT} bytes"));
    }
    if request.descriptors.is_empty() || request.descriptors.len() > MAX_DESCRIPTORS {
        return wrong(format!("descriptors: give 1 to {MAX_DESCRIPTORS}"));
    }
    for (number, descriptor) in request.descriptors.iter().enumerate() {
        if descriptor.entries.is_empty() || descriptor.entries.len() > MAX_ENTRIES {
            return wrong(format!("descriptors[{number}].entries: give 1 to {MAX_ENTRIES}"));
        }
        let is_long = |text: &String| text.len() > MAX_TEXT;
        if descriptor
            .entries
            .iter()
            .any(|entry| is_long(&entry.key) || is_long(&entry.value))
        {
            return wrong(format!(
                "descriptors[{number}].entries: a text is longer than {MAX_TEXT} bytes"
            ));
        }
    }
    Ok(())
}

/// How much is asked for; negative gives back.
fn hits(descriptor: &RateLimitDescriptor, of_request: u32) -> i64 {
    let hits = match &descriptor.hits_addend {
        Some(own) => i64::try_from(own.value).unwrap_or(i64::MAX),
        None => i64::from(of_request.max(1)),
    };
    if descriptor.is_negative_hits { -hits } else { hits }
}

/// The caller's own limit instead of the rule's, in a cell of its own.
fn replace_limit(charge: &mut Charge, limit: &RateLimitOverride) {
    charge.max = limit.requests_per_unit.into();
    charge.window = window::of_override(limit.unit).unwrap_or(charge.window);
    // Names of cells are parts with their lengths before them, in pairs at the end: this one has no pair.
    charge.cell.extend_from_slice(&20u32.to_le_bytes());
    charge.cell.extend_from_slice(b"over");
    charge.cell.extend_from_slice(&charge.max.to_le_bytes());
    charge.cell.extend_from_slice(&charge.window.to_le_bytes());
}

/// One quota that held a descriptor, and how it stands.
#[derive(Debug)]
struct Held {
    quota: String,
    max: i64,
    window: u64,
    left: i64,
    reset: u64,
    is_over: bool,
}

/// What became of one descriptor.
#[derive(Debug)]
struct Answer {
    /// The one that speaks for all first.
    held: Vec<Held>,
    over: Vec<String>,
    /// Rules in dry run that would have refused it.
    tried: Vec<String>,
    /// Whether any quota was charged for it.
    is_limited: bool,
}

impl Answer {
    fn new(charges: &[Charge], grants: &[Grant]) -> Self {
        let mut held: Vec<Held> = charges
            .iter()
            .zip(grants)
            .map(|(charge, grant)| Held {
                quota: charge.quota.clone(),
                max: charge.max,
                window: charge.window,
                left: grant.left,
                reset: grant.reset,
                is_over: match charge.amount {
                    ..0 => false,
                    // Only asks whether anything is left.
                    0 => grant.left == 0,
                    amount => grant.granted < amount,
                },
            })
            .collect();
        held.sort_by_key(|held| (!held.is_over, held.left));
        let over = held.iter().filter(|held| held.is_over);
        Answer {
            over: over.map(|held| held.quota.clone()).collect(),
            held,
            tried: Vec::new(),
            is_limited: false,
        }
    }

    fn status(self) -> DescriptorStatus {
        let code = if self.over.is_empty() {
            Code::Ok
        } else {
            Code::OverLimit
        };
        let Some(held) = self.held.into_iter().next() else {
            return DescriptorStatus {
                code: code.into(),
                ..Default::default()
            };
        };
        DescriptorStatus {
            code: code.into(),
            current_limit: Some(RateLimit {
                name: held.quota,
                requests_per_unit: u32::try_from(held.max).unwrap_or(u32::MAX),
                unit: window::unit(held.window).into(),
            }),
            limit_remaining: u32::try_from(held.left).unwrap_or(u32::MAX),
            duration_until_reset: (held.reset > 0).then_some(Duration {
                seconds: (held.reset / 1_000_000_000) as i64,
                nanos: (held.reset % 1_000_000_000) as i32,
            }),
            ..Default::default()
        }
    }
}
