//! A Check of istio.mixer.v1 from its bytes to its answer. Charging lies between the two halves, because a cell may be
//! another replica's and a quota another process's: `Plan` says what to charge, and makes the answer of what was granted.

use std::sync::Arc;

use meshwright_api::google::rpc::Status;
use meshwright_api::istio::mixer::v1 as mixer;
use mixer::check_response::{PreconditionResult, QuotaResult};

use crate::bag::Bag;
use crate::cells::Grant;
use crate::charges::{Charges, Demand};
use crate::check::{Decision, FAILED_PRECONDITION};
use crate::dictionary;
use crate::direct::DirectResponse;
use crate::error::BadRequest;
use crate::program::Program;
use crate::seen::{self, Seen};
use crate::wire::Fields;

/// Ids are remembered; a sidecar's is a UUID with a counter.
const MAX_ID: usize = 256;
/// A sidecar asks for a handful; every one is a walk through the quota rules.
const MAX_QUOTAS: usize = 64;

/// A CheckRequest, read in place.
#[derive(Debug, Default)]
pub struct CheckRequest<'a> {
    attributes: &'a [u8],
    global_words: u32,
    deduplication_id: &'a str,
    /// Name, amount, best effort.
    quotas: Vec<(&'a str, i64, bool)>,
}

impl<'a> CheckRequest<'a> {
    /// Reads the message; attributes are left as they are.
    pub fn read(bytes: &'a [u8]) -> Result<Self, BadRequest> {
        let mut request = CheckRequest::default();
        for field in Fields(bytes) {
            match field? {
                (1, field) => request.attributes = field.bytes()?,
                (2, field) => request.global_words = field.varint()? as u32,
                (3, field) => request.deduplication_id = field.text()?,
                (4, field) => request.quotas.push(quota(field.bytes()?)?),
                _ => {}
            }
        }
        if request.global_words as usize > dictionary::WORDS.len() {
            return Err(BadRequest::Dictionary {
                known: dictionary::WORDS.len(),
                claimed: request.global_words,
            });
        }
        if request.quotas.len() > MAX_QUOTAS {
            return Err(BadRequest::Invalid(format!(
                "more than {MAX_QUOTAS} quotas in one request"
            )));
        }
        if request.deduplication_id.len() > MAX_ID {
            return Err(BadRequest::Invalid(format!(
                "deduplication_id is longer than {MAX_ID} bytes"
            )));
        }
        Ok(request)
    }

    /// Every attribute, whoever reads it.
    pub fn seen(&self) -> Result<Vec<Seen<'a>>, BadRequest> {
        seen::compressed(self.attributes)
    }

    /// The quotas that the request asks for; when it asks for none, one of every quota that its rules limit.
    pub fn demands(&self) -> Vec<Demand<'_>> {
        let demand = |quota, amount, best_effort| Demand {
            quota,
            amount,
            best_effort,
            deduplication_id: Some(self.deduplication_id),
        };
        match self.quotas.is_empty() {
            true => vec![demand(None, 1, false)],
            false => {
                let quotas = self.quotas.iter();
                quotas
                    .map(|(name, amount, best_effort)| demand(Some(*name), *amount, *best_effort))
                    .collect()
            }
        }
    }

    /// The attributes that `program` reads.
    pub fn bag(&self, program: &'a Program) -> Result<Bag<'a>, BadRequest> {
        Ok(Bag::compressed(program.names(), self.attributes)?)
    }
}

fn quota(bytes: &[u8]) -> Result<(&str, i64, bool), BadRequest> {
    let (mut name, mut amount, mut best_effort) = ("", 0, false);
    for field in Fields(bytes) {
        match field? {
            (1, field) => name = field.text()?,
            (2, field) => {
                for field in Fields(field.bytes()?) {
                    match field? {
                        (1, field) => amount = field.int64()?,
                        (2, field) => best_effort = field.varint()? != 0,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok((name, amount, best_effort))
}

/// What was decided, and what is to be charged before the answer is complete.
#[derive(Debug)]
pub struct Plan {
    /// Pass or not.
    pub decision: Decision,
    /// By quota of the request; empty when the request doesn't pass.
    pub quotas: Vec<Planned>,
}

/// One quota of the request.
#[derive(Debug)]
pub struct Planned {
    name: String,
    amount: i64,
    /// What it is charged.
    pub charges: Charges,
}

impl Plan {
    /// Finds what the request's quotas are charged when it passes; `now` in nanoseconds of a clock that never goes
    /// back. `decision` is that of `Program::check` on the same bag.
    /// ```text
    /// let plan = Plan::make(&program, &request, &bag, decision, now)?;
    /// let grants = for each of plan.quotas: charge its cells, ask its questions, Charges::settle
    /// let response = plan.answer(&program, &request, &grants);
    /// ```
    pub fn make(
        program: &Program,
        request: &CheckRequest<'_>,
        bag: &Bag<'_>,
        decision: Decision,
        now: u64,
    ) -> Result<Self, BadRequest> {
        let mut quotas = Vec::new();
        if decision.code == 0 {
            for &(name, amount, best_effort) in &request.quotas {
                let deduplication_id = Some(request.deduplication_id);
                let demand = Demand {
                    quota: Some(name),
                    amount,
                    best_effort,
                    deduplication_id,
                };
                let mut charges = program.charges(bag, demand, now)?;
                if amount == 0 {
                    charges.clear();
                }
                quotas.push(Planned {
                    name: name.to_owned(),
                    amount,
                    charges,
                });
            }
        }
        Ok(Plan { decision, quotas })
    }

    /// The answer; `grants` has one entry for each of `quotas`, made by `Charges::settle`.
    pub fn answer(self, program: &Program, request: &CheckRequest<'_>, grants: &[Grant]) -> mixer::CheckResponse {
        let words = request.global_words;
        let quotas = self
            .quotas
            .into_iter()
            .zip(grants)
            .map(|(planned, grant)| planned.answer(program, words, *grant));
        let quotas = quotas.collect();
        let decision = self.decision;
        let precondition = PreconditionResult {
            status: Some(Status {
                code: decision.code,
                message: decision.message,
                details: Vec::new(),
            }),
            valid_duration: Some(duration(decision.valid_nanos)),
            valid_use_count: decision.uses,
            referenced_attributes: Some(decision.references.message(program, words)),
            route_directive: directive(decision.direct, decision.request_headers, decision.response_headers),
        };
        mixer::CheckResponse {
            precondition: Some(precondition),
            quotas,
        }
    }
}

/// A request that passes has headers, one that doesn't a response.
fn directive(
    direct: Option<Arc<DirectResponse>>,
    request_headers: Vec<mixer::HeaderOperation>,
    response_headers: Vec<mixer::HeaderOperation>,
) -> Option<mixer::RouteDirective> {
    if let Some(direct) = direct {
        return Some(mixer::RouteDirective {
            response_header_operations: direct.headers.clone(),
            direct_response_code: direct.code,
            direct_response_body: direct.body.clone(),
            ..Default::default()
        });
    }
    let has_headers = !request_headers.is_empty() || !response_headers.is_empty();
    has_headers.then_some(mixer::RouteDirective {
        request_header_operations: request_headers,
        response_header_operations: response_headers,
        ..Default::default()
    })
}

impl Planned {
    /// Its name in the request.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn answer(self, program: &Program, global_words: u32, grant: Grant) -> (String, QuotaResult) {
        let references = self.charges.references.message(program, global_words);
        let result = if self.amount == 0 {
            QuotaResult::default()
        } else if let Some(reason) = self.charges.refused {
            let status = Status {
                code: FAILED_PRECONDITION,
                message: reason,
                details: Vec::new(),
            };
            QuotaResult {
                status: Some(status),
                valid_duration: Some(duration(0)),
                ..Default::default()
            }
        } else {
            QuotaResult {
                granted_amount: grant.granted,
                valid_duration: Some(duration(i64::try_from(grant.valid).unwrap_or(i64::MAX))),
                status: Some(Status::default()),
                referenced_attributes: None,
            }
        };
        (
            self.name,
            QuotaResult {
                referenced_attributes: Some(references),
                ..result
            },
        )
    }
}

fn duration(nanos: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: nanos / 1_000_000_000,
        nanos: (nanos % 1_000_000_000) as i32,
    }
}
