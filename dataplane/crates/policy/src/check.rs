//! Decides about one request: the preconditions of all rules that match, then what its quotas are charged.

use meshwright_api::istio::mixer::v1::HeaderOperation;

use crate::bag::Bag;
use crate::cells::Charge;
use crate::error::BadRequest;
use crate::evaluate::{Evaluation, Failure};
use crate::program::{Amount, Built, HeaderTemplate, Limit, Program, Shape, Validity};
use crate::references::References;
use crate::value::Value;

/// Nothing decided: a minute, 10,000 requests.
const UNDECIDED: Validity = Validity {
    nanos: 60_000_000_000,
    uses: 10_000,
};
const FAILED_PRECONDITION: i32 = 9;
/// Of a quota's dimension, in bytes: cells keep them.
const MAX_DIMENSION: usize = 512;
/// Of a header's value, in bytes; Envoy takes 60 KiB of headers in all.
const MAX_HEADER: usize = 8 << 10;

/// May the request pass?
#[derive(Debug, Clone)]
pub struct Decision {
    /// google.rpc.Code; 0 passes.
    pub code: i32,
    /// Every reason, each with its `handler.namespace`.
    pub message: String,
    /// How long the caller may keep the answer.
    pub valid_nanos: i64,
    /// For how many requests; zero when a rule asked for a key of a map that the request lacks: callers would mistake
    /// a later request that has the map for this one.
    pub uses: i32,
    /// The first rule that denied, name.namespace.
    pub rule: Option<String>,
    /// What to do to the request that passes.
    pub request_headers: Vec<HeaderOperation>,
    /// What to do to its response.
    pub response_headers: Vec<HeaderOperation>,
    /// What all of this was made from.
    pub references: References,
}

/// What a request is charged.
#[derive(Debug, Clone)]
pub struct Charges {
    /// One a cell; all must be granted.
    pub charges: Vec<Charge>,
    /// A quota whose dimensions the request lacks grants nothing, for this reason.
    pub refused: Option<String>,
    /// What the charges were made from.
    pub references: References,
}

/// Which quotas to charge, and how.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The name of a quota instance without its namespace, in any case; None: every quota of the rules that match.
    pub quota: Option<&'a str>,
    /// Negative: a release.
    pub amount: i64,
    /// Take what there is when it is less.
    pub best_effort: bool,
    /// None: never a repetition.
    pub deduplication_id: Option<&'a str>,
}

impl Program {
    /// Decides about the request, without its quotas.
    pub fn check(&self, bag: &Bag<'_>) -> Result<Decision, BadRequest> {
        let mut evaluation = Evaluation::new(self, bag);
        let rules = self
            .scopes
            .matching(&mut evaluation, |scope| &scope.check)
            .map_err(BadRequest::Invalid)?;
        let mut answer = Answer {
            code: 0,
            messages: Vec::new(),
            validity: UNDECIDED,
            rule: None,
        };
        let mut passed = rules.clone();
        for &rule in &rules {
            for &(handler, instance) in &self.rules[rule as usize].actions {
                self.act(&mut evaluation, &mut answer, rule, handler, instance)?;
            }
        }
        if answer.code != 0 {
            passed.clear();
        }
        let (mut request_headers, mut response_headers) = (Vec::new(), Vec::new());
        for rule in passed {
            let rule = &self.rules[rule as usize];
            headers(&mut evaluation, &rule.request_headers, &mut request_headers)?;
            headers(&mut evaluation, &rule.response_headers, &mut response_headers)?;
        }
        Ok(Decision {
            code: answer.code,
            message: answer.messages.join(", "),
            valid_nanos: answer.validity.nanos,
            uses: if evaluation.lacks_map { 0 } else { answer.validity.uses },
            rule: answer.rule.map(|rule| self.rules[rule as usize].name.clone()),
            request_headers,
            response_headers,
            references: evaluation.references,
        })
    }

    fn act(
        &self,
        evaluation: &mut Evaluation<'_>,
        answer: &mut Answer,
        rule: u32,
        handler: u32,
        instance: u32,
    ) -> Result<(), BadRequest> {
        let handler = &self.handlers[handler as usize];
        match &handler.adapter {
            Built::Denier {
                code,
                message,
                validity,
            } => {
                answer.keep_for(*validity);
                answer.deny(rule, *code, &handler.name, message);
            }
            Built::List { list, validity } => {
                answer.keep_for(*validity);
                let Shape::Entry(node) = self.instances[instance as usize].template else {
                    return Ok(());
                };
                match evaluation.value(node) {
                    Ok(value) => {
                        if let Err((code, message)) = list.check(&value) {
                            answer.deny(rule, code, &handler.name, &message);
                        }
                    }
                    Err(Failure::Request(message)) => return Err(BadRequest::Invalid(message)),
                    // Who can't be looked up doesn't pass.
                    Err(failure) => {
                        let message = format!(
                            "{}: {}",
                            self.instances[instance as usize].name,
                            evaluation.explain(failure)
                        );
                        answer.deny(rule, FAILED_PRECONDITION, &handler.name, &message);
                    }
                }
            }
            Built::Quotas { .. } | Built::Sink(_) => {}
        }
        Ok(())
    }

    /// What the request is charged for `demand`, cell by cell. Nothing, when no quota of the rules that match fits it.
    pub fn charges(&self, bag: &Bag<'_>, demand: Demand<'_>) -> Result<Charges, BadRequest> {
        let mut evaluation = Evaluation::new(self, bag);
        let rules = self
            .scopes
            .matching(&mut evaluation, |scope| &scope.quota)
            .map_err(BadRequest::Invalid)?;
        let (mut charges, mut refused): (Vec<Charge>, _) = (Vec::new(), None);
        for (handler, number) in rules.into_iter().flat_map(|rule| &self.rules[rule as usize].actions) {
            let handler = &self.handlers[*handler as usize];
            let instance = &self.instances[*number as usize];
            let (
                Built::Quotas {
                    limits,
                    min_deduplication,
                },
                Shape::Dimensions(dimensions),
            ) = (&handler.adapter, &instance.template)
            else {
                continue;
            };
            if demand
                .quota
                .is_some_and(|name| !name.eq_ignore_ascii_case(&instance.short_name))
            {
                continue;
            }
            let mut values = Vec::with_capacity(dimensions.len());
            for (name, node) in dimensions {
                match evaluation.value(*node) {
                    Ok(Value::Text(text)) if text.len() > MAX_DIMENSION => {
                        refused = Some(format!(
                            "{}: dimension {name}: longer than {MAX_DIMENSION} bytes",
                            instance.name
                        ));
                        break;
                    }
                    Ok(value) => values.push((name.as_str(), value.to_string())),
                    Err(Failure::Request(message)) => return Err(BadRequest::Invalid(message)),
                    Err(failure) => {
                        refused = Some(format!(
                            "{}: dimension {name}: {}",
                            instance.name,
                            evaluation.explain(failure)
                        ));
                        break;
                    }
                }
            }
            // Loading checked that the handler limits this instance.
            let (true, Some(limit)) = (values.len() == dimensions.len(), limits.get(number)) else {
                continue;
            };
            let amount = limit.of(&values);
            let cell = cell(&handler.name, &instance.name, amount, limit.is_fixed, &values);
            if charges.iter().any(|charge| charge.cell == cell) {
                continue;
            }
            charges.push(Charge {
                quota: instance.name.clone(),
                cell,
                max: amount.max,
                window: amount.window,
                is_fixed: limit.is_fixed,
                amount: demand.amount,
                best_effort: demand.best_effort,
                deduplication_id: demand.deduplication_id.map(str::to_owned),
                min_deduplication: *min_deduplication,
            });
        }
        Ok(Charges {
            charges,
            refused,
            references: evaluation.references,
        })
    }
}

struct Answer {
    code: i32,
    messages: Vec<String>,
    validity: Validity,
    rule: Option<u32>,
}

impl Answer {
    /// The shortest of all that took part.
    fn keep_for(&mut self, validity: Validity) {
        self.validity.nanos = self.validity.nanos.min(validity.nanos);
        // Negative is without limit.
        self.validity.uses = match (self.validity.uses, validity.uses) {
            (uses, ..0) => uses,
            (..0, uses) => uses,
            (a, b) => a.min(b),
        };
    }

    fn deny(&mut self, rule: u32, code: i32, handler: &str, message: &str) {
        if self.code == 0 {
            (self.code, self.rule) = (code, Some(rule));
        }
        self.messages.push(format!("{handler}:{message}"));
    }
}

impl Limit {
    fn of(&self, values: &[(&str, String)]) -> Amount {
        let fits =
            |name: &String, wanted: &String| values.iter().any(|(known, value)| known == name && value == wanted);
        let over = self
            .overrides
            .iter()
            .find(|(dimensions, _)| dimensions.iter().all(|(name, value)| fits(name, value)));
        over.map_or(self.amount, |(_, amount)| *amount)
    }
}

/// Every part with its length before it: no two cells share a name.
fn cell(handler: &str, instance: &str, amount: Amount, is_fixed: bool, values: &[(&str, String)]) -> Vec<u8> {
    let mut cell = Vec::with_capacity(96);
    let mut add = |part: &[u8]| {
        cell.extend_from_slice(&(part.len() as u32).to_le_bytes());
        cell.extend_from_slice(part);
    };
    add(handler.as_bytes());
    add(instance.as_bytes());
    add(&amount.max.to_le_bytes());
    add(&amount.window.to_le_bytes());
    add(&[is_fixed.into()]);
    for (name, value) in values {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    cell
}

fn headers(
    evaluation: &mut Evaluation<'_>,
    templates: &[HeaderTemplate],
    operations: &mut Vec<HeaderOperation>,
) -> Result<(), BadRequest> {
    for template in templates {
        let value = match template.value.map(|node| evaluation.text(node)) {
            None => String::new(),
            Some(Ok(text)) if is_header_value(&text) => text.into_owned(),
            Some(Err(Failure::Request(message))) => return Err(BadRequest::Invalid(message)),
            Some(_) => continue,
        };
        operations.push(HeaderOperation {
            name: template.name.clone(),
            value,
            operation: template.operation,
        });
    }
    Ok(())
}

/// A control character would end the header and begin another.
fn is_header_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_HEADER && !text.contains(|c: char| c.is_control() && c != '\t')
}
