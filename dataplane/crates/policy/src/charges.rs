//! What a request is charged: one cell for every limit that fits it, and a question for every quota that is kept
//! outside of the engine. Who drives the engine charges and asks, and `Charges::settle` makes one grant of it.

use std::sync::Arc;

use crate::bag::Bag;
use crate::cells::{Charge, Grant};
use crate::check;
use crate::error::BadRequest;
use crate::evaluate::{Evaluation, Failure};
use crate::explanation::{Acted, Explanation};
use crate::handler::{Amount, Built, Limit};
use crate::instance::{Instance, Lacking};
use crate::program::Program;
use crate::question::{Answer, Asked, Question, Variety, Wanted};
use crate::references::References;
use crate::rule::{Action, Rule};
use crate::value::Value;

const MINUTE: u64 = 60_000_000_000;
/// Of a quota's dimension, in bytes: cells keep them.
const MAX_DIMENSION: usize = 512;

/// What a request is charged.
#[derive(Debug, Clone)]
pub struct Charges {
    /// One a cell; all must be granted.
    pub charges: Vec<Charge>,
    /// Charges of rules in dry run: they count, but whether they are granted changes nothing.
    pub trials: Vec<Trial>,
    /// Why nothing is granted: a dimension that the request lacks, or a denial.
    pub refused: Option<String>,
    /// What the charges were made from.
    pub references: References,
    /// When the bag asked for it.
    pub explanation: Option<Explanation>,
    /// How much of each of `charges` one of what was asked for is.
    factors: Vec<i64>,
    questions: Vec<Question>,
    /// Of each question, with its factor.
    asked: Vec<(Arc<Asked>, i64)>,
    /// What was asked for.
    pub amount: i64,
    /// Nobody may keep a grant: it depends on more than callers compare.
    single_use: bool,
    max_validity: u64,
}

/// A charge that isn't enforced.
#[derive(Debug, Clone)]
pub struct Trial {
    /// name.namespace
    pub rule: String,
    /// What is charged.
    pub charge: Charge,
}

/// What came of a request's charges.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// The least of all grants.
    pub grant: Grant,
    /// To be charged so that no cell paid for nothing.
    pub releases: Vec<Charge>,
    /// To be asked for the same reason; the answers mean nothing.
    pub returns: Vec<Question>,
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
    /// What the request is charged for `demand`. Nothing, when no quota of the rules that match fits it. `now` in
    /// nanoseconds of a clock that never goes back.
    pub fn charges(&self, bag: &Bag<'_>, demand: Demand<'_>, now: u64) -> Result<Charges, BadRequest> {
        let mut evaluation = Evaluation::new(self, bag);
        let rules = self
            .scopes
            .matching(&mut evaluation, |scope| &scope.quota)
            .map_err(BadRequest::Invalid)?;
        let mut result = Charges {
            charges: Vec::new(),
            trials: Vec::new(),
            refused: None,
            references: References::default(),
            explanation: None,
            factors: Vec::new(),
            questions: Vec::new(),
            asked: Vec::new(),
            amount: demand.amount,
            single_use: false,
            max_validity: self.max_validity as u64,
        };
        for number in rules {
            let rule = &self.rules[number as usize];
            if !rule.picks(&mut evaluation, now)? {
                if let Some(notes) = &mut evaluation.notes {
                    notes.unsampled(&rule.name);
                }
                continue;
            }
            for action in &rule.actions {
                let instance = &self.instances[action.instance as usize];
                let is_other = |name: &str| !name.eq_ignore_ascii_case(&instance.short_name);
                if instance.subject.variety != Variety::Quota || demand.quota.is_some_and(is_other) {
                    continue;
                }
                let refused = self.charge(&mut evaluation, rule, action, demand, &mut result)?;
                if let Some(notes) = &mut evaluation.notes {
                    let handler = &self.handlers[action.handler as usize];
                    let acted = Acted {
                        handler: handler.name.clone(),
                        instance: instance.name().to_owned(),
                        was_asked: matches!(handler.adapter, Built::Asked(_)) && !rule.dry_run,
                        code: if refused.is_some() {
                            check::FAILED_PRECONDITION
                        } else {
                            0
                        },
                        message: refused.clone().unwrap_or_default(),
                        decides: refused.is_some() && result.refused.is_none() && !rule.dry_run,
                    };
                    notes.acted(&rule.name, acted);
                }
                if !rule.dry_run && result.refused.is_none() {
                    result.refused = refused;
                }
            }
        }
        result.references = evaluation.references;
        result.single_use = evaluation.single_use;
        result.explanation = evaluation.notes.map(|notes| notes.explanation);
        Ok(result)
    }

    /// Adds what one action charges; or says why it grants nothing.
    fn charge(
        &self,
        evaluation: &mut Evaluation<'_>,
        rule: &Rule,
        action: &Action,
        demand: Demand<'_>,
        result: &mut Charges,
    ) -> Result<Option<String>, BadRequest> {
        let handler = &self.handlers[action.handler as usize];
        let instance = &self.instances[action.instance as usize];
        let factor = match (demand.quota, instance.charge) {
            (None, Some(node)) => match evaluation.value(node) {
                Ok(Value::Int(factor)) if factor > 0 => factor,
                Err(Failure::Request(message)) => return Err(BadRequest::Invalid(message)),
                _ => return Ok(None),
            },
            _ => 1,
        };
        let whole = demand.amount.saturating_mul(factor);
        match &handler.adapter {
            Built::Quotas {
                limits,
                min_deduplication,
                is_leased,
            } => {
                let values = match dimensions(evaluation, instance) {
                    Ok(values) => values,
                    Err(lacking) => return check::lacks(evaluation, instance, lacking).map(Some),
                };
                // Loading checked that the handler limits this instance.
                let Some(limit) = limits.get(&action.instance) else {
                    return Ok(None);
                };
                let amount = limit.of(&values);
                let cell = cell(&handler.name, instance.name(), amount, limit.is_fixed, &values);
                if result.charges.iter().any(|charge| charge.cell == cell) {
                    return Ok(None);
                }
                let charge = Charge {
                    quota: instance.name().to_owned(),
                    cell,
                    max: amount.max,
                    window: amount.window,
                    is_fixed: limit.is_fixed,
                    // What stays taken until it is released can't be leased for a time.
                    is_leased: *is_leased && amount.window > 0,
                    amount: whole,
                    best_effort: demand.best_effort,
                    deduplication_id: demand.deduplication_id.map(str::to_owned),
                    min_deduplication: *min_deduplication,
                };
                if rule.dry_run {
                    let rule = rule.name.clone();
                    result.trials.push(Trial { rule, charge });
                } else {
                    result.charges.push(charge);
                    result.factors.push(factor);
                }
                Ok(None)
            }
            // What is kept elsewhere would be charged in earnest.
            Built::Asked(_) if rule.dry_run => Ok(None),
            Built::Asked(asked) => {
                let fields = match instance.evaluate(evaluation) {
                    Ok(fields) => fields,
                    Err(lacking) => return check::lacks(evaluation, instance, lacking).map(Some),
                };
                result.asked.push((asked.clone(), factor));
                result.questions.push(Question {
                    asked: asked.clone(),
                    subject: instance.subject.clone(),
                    fields,
                    wanted: Some(Wanted {
                        amount: whole,
                        best_effort: demand.best_effort,
                        deduplication_id: demand.deduplication_id.map(str::to_owned),
                    }),
                });
                Ok(None)
            }
            Built::Denier { message, .. } => Ok(Some(format!("{}:{message}", handler.name))),
            Built::List { .. } | Built::Sink(_) => Ok(None),
        }
    }
}

fn dimensions<'p>(
    evaluation: &mut Evaluation<'_>,
    instance: &'p Instance,
) -> Result<Vec<(&'p str, String)>, Lacking<'p>> {
    let mut values = Vec::with_capacity(instance.fields.len());
    for (name, node) in instance.dimensions() {
        match evaluation.value(node) {
            Ok(Value::Text(text)) if text.len() > MAX_DIMENSION => {
                let failure = Failure::Unfit("longer than 512 bytes");
                return Err(Lacking { field: name, failure });
            }
            Ok(value) => values.push((name, value.to_string())),
            Err(failure) => return Err(Lacking { field: name, failure }),
        }
    }
    Ok(values)
}

impl Charges {
    /// No rule limits what was asked for: all of it is granted.
    pub fn are_unlimited(&self) -> bool {
        self.charges.is_empty() && self.asked.is_empty() && self.refused.is_none()
    }

    /// To be asked at the same time, and while the cells are charged.
    pub fn questions(&mut self) -> Vec<Question> {
        // Only what several have to agree on is given back.
        if self.charges.len() + self.questions.len() > 1 {
            self.questions.clone()
        } else {
            std::mem::take(&mut self.questions)
        }
    }

    /// Takes everything back but the references.
    pub(crate) fn clear(&mut self) {
        self.charges.clear();
        self.factors.clear();
        self.trials.clear();
        self.questions.clear();
        self.asked.clear();
    }

    /// One grant for each of `charges` and one answer for each question, in their orders.
    pub fn settle(&self, grants: &[Grant], answers: &[Answer]) -> Settled {
        if self.refused.is_some() {
            return Settled::default();
        }
        let asked: Vec<_> = (self.asked.iter().zip(answers))
            .map(|((asked, factor), answer)| (self.grant(asked, *factor, answer), *factor))
            .collect();
        let all = (grants.iter().copied().zip(self.factors.iter().copied())).chain(asked.iter().copied());
        let Some(mut grant) = least(all) else {
            let granted = self.amount;
            let valid = if self.single_use {
                0
            } else {
                MINUTE.min(self.max_validity)
            };
            return Settled {
                grant: Grant {
                    granted,
                    valid,
                    ..Grant::default()
                },
                ..Settled::default()
            };
        };
        if self.single_use {
            grant.valid = 0;
        }
        let surplus = self.questions.iter().zip(&asked);
        let returns = surplus
            .filter(|(_, (each, factor))| self.amount > 0 && each.granted > grant.granted * factor)
            .map(|(question, (each, factor))| Question {
                wanted: Some(Wanted {
                    amount: grant.granted * factor - each.granted,
                    best_effort: true,
                    deduplication_id: None,
                }),
                ..question.clone()
            });
        Settled {
            releases: self.surplus(grants, grant.granted),
            returns: returns.collect(),
            grant,
        }
    }

    fn grant(&self, asked: &Asked, factor: i64, answer: &Answer) -> Grant {
        let whole = self.amount.saturating_mul(factor);
        match answer {
            Ok(reply) if reply.status.code == 0 => Grant {
                granted: reply.granted.clamp(0, whole.saturating_abs()),
                valid: u64::try_from(reply.valid_nanos).unwrap_or_default(),
                ..Grant::default()
            },
            Ok(_) => Grant::default(),
            Err(_) if asked.is_open => Grant {
                granted: whole,
                ..Grant::default()
            },
            Err(_) => Grant::default(),
        }
    }

    /// What to give back so that no cell paid for nothing, where so much of what was asked for is granted.
    fn surplus(&self, grants: &[Grant], granted: i64) -> Vec<Charge> {
        let charged = self.charges.iter().zip(grants).zip(&self.factors);
        charged
            .filter(|((charge, grant), factor)| charge.amount > 0 && grant.granted > granted * **factor)
            .map(|((charge, grant), factor)| Charge {
                amount: granted * factor - grant.granted,
                deduplication_id: None,
                ..charge.clone()
            })
            .collect()
    }
}

/// The least of all, each in terms of what was asked for.
fn least(grants: impl Iterator<Item = (Grant, i64)>) -> Option<Grant> {
    grants
        .map(|(grant, factor)| (grant.granted / factor, grant.valid))
        .reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)))
        .map(|(granted, valid)| Grant {
            granted,
            valid,
            ..Grant::default()
        })
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
