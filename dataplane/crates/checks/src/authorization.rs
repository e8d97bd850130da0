//! Envoy's ext_authz, for HTTP requests and for TCP connections: asks the same rules as a Mixer Check. The request is
//! charged one of every quota of the rules that match it, since Envoy doesn't say which quotas it wants.

pub(crate) mod answer;

use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use meshwright_policy::{Demand, Names};
use meshwright_serve::CallContext;
use meshwright_serve::telemetry::span::{Active, Kind};
use tonic::{Request, Response, Status};

use crate::attributes::checked::Checked;
use crate::authorization::answer::{Denial, Metadata};
use crate::counters;
use crate::decision_log::{Api, Noted, Quota};
use crate::state::{State, status};

const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;

#[derive(Debug)]
pub(crate) struct Authorize {
    state: Arc<State>,
}

impl Authorize {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Authorize { state }
    }
}

#[tonic::async_trait]
impl Authorization for Authorize {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let state = &self.state;
        counters::add(&state.counters.authorization_checks);
        let call = CallContext::of(&request);
        let mut span = call
            .and_then(|call| call.span.as_ref())
            .map(|current| current.child("policy.check", Kind::Internal));
        let peer = call.map(|call| call.peer.clone());
        let context = request.into_inner().attributes;
        let context = context.ok_or_else(|| invalid(state, "attributes: the request has none"))?;
        let checked = Checked::new(context, peer.as_deref());
        let program = state.engine.program();
        let demand = Demand {
            quota: None,
            amount: 1,
            best_effort: false,
            deduplication_id: None,
        };
        if state.sampler.is_due(state.now()) {
            state.sampler.add(checked.bag(Names::dictionary()).seen());
        }
        let current = span.as_ref().map(Active::current);
        let (decision, charges) = {
            let invalid = |error| invalid_request(state, &error);
            let bag = checked.bag(program.names());
            let generated = state
                .generate(&program, &bag, current.as_ref())
                .await
                .map_err(invalid)?;
            let bag = match &generated {
                Some(generated) => bag.with(generated),
                None => bag,
            };
            let decision = state.decide(&program, &bag, current.as_ref()).await.map_err(invalid)?;
            let charges = match decision.code {
                0 => Some(program.charges(&bag, demand, state.now()).map_err(invalid)?),
                _ => None,
            };
            (decision, charges)
        };
        let mut denial = (decision.code != 0).then(|| Denial {
            code: decision.code,
            message: decision.message.clone(),
            direct: decision.direct.clone(),
        });
        let mut quota = None;
        if let Some(mut charges) = charges
            && !charges.are_unlimited()
        {
            let grant = state.charge(&mut charges, current.as_ref()).await;
            quota = Some(if grant.granted > 0 { "granted" } else { "refused" });
            if grant.granted == 0 {
                counters::add(&state.counters.quotas_refused);
                let names: Vec<_> = charges.charges.iter().map(|charge| charge.quota.as_str()).collect();
                let (code, message) = match charges.refused {
                    Some(reason) => (FAILED_PRECONDITION, reason),
                    None => (RESOURCE_EXHAUSTED, format!("quota exhausted: {}", names.join(", "))),
                };
                denial = Some(Denial {
                    code,
                    message,
                    direct: None,
                });
            }
        }
        let id = state.decision_id();
        let asked = match quota {
            None => Quota::None,
            Some("granted") => Quota::Granted,
            Some(_) => Quota::Refused,
        };
        let refusal = denial.as_ref().map(|denial| (denial.code, denial.message.clone()));
        let noted = Noted::new(id, Api::Authorization, &program, &decision, asked, refusal.as_ref());
        state.log.note(noted);
        let code = denial.as_ref().map_or(0, |denial| denial.code);
        let id = id.to_string();
        let tried = decision.trials.iter().map(|trial| trial.rule.clone());
        let mut metadata = Metadata::default();
        metadata.text("decision_id", &id);
        metadata.number("code", code.into());
        metadata.text("rule", decision.rule.as_deref().unwrap_or_default());
        metadata.text("quota", quota.unwrap_or_default());
        metadata.list("dry_run", tried.collect());
        if let Some(span) = span.as_mut().filter(|span| span.is_recording()) {
            span.set("policy.decision", if denial.is_some() { "deny" } else { "allow" });
            span.set("policy.decision_id", id);
            span.set("policy.code", code);
            if let Some(rule) = &decision.rule {
                span.set("policy.rule", rule.clone());
            }
            if !decision.trials.is_empty() {
                let rules: Vec<_> = decision.trials.iter().map(|trial| trial.rule.as_str()).collect();
                span.set("policy.dry_run", rules.join(", "));
            }
            if let Some(quota) = quota {
                span.set("policy.quota", quota);
            }
        }
        Ok(Response::new(match denial {
            Some(denial) => {
                metadata.text("message", &denial.message);
                answer::denied(denial, metadata)
            }
            None => answer::allowed(
                |name| checked.header(name).is_some(),
                decision.request_headers,
                decision.response_headers,
                metadata,
            ),
        }))
    }
}

fn invalid(state: &State, reason: &str) -> Status {
    counters::add(&state.counters.checks_invalid);
    Status::invalid_argument(reason)
}

fn invalid_request(state: &State, error: &meshwright_policy::BadRequest) -> Status {
    counters::add(&state.counters.checks_invalid);
    status(error)
}
