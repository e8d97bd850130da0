//! Decides about one request: the preconditions of all rules that match. Between the two halves lie the questions to
//! adapters outside of the engine; whatever order their answers come in, they are combined in the order of the rules.

use std::borrow::Cow;
use std::sync::Arc;

use meshwright_api::istio::mixer::v1::HeaderOperation;

use crate::bag::Bag;
use crate::direct::{self, DirectResponse};
use crate::error::BadRequest;
use crate::evaluate::{Evaluation, Failure};
use crate::explanation::{Acted, Explanation, Notes};
use crate::handler::{Built, Handler, Validity};
use crate::instance::{Instance, Lacking};
use crate::program::Program;
use crate::question::{Answer, Failed, Question, Reply};
use crate::references::References;
use crate::rule::{Action, HeaderTemplate};

/// Nothing decided: a minute, 10,000 requests.
const UNDECIDED: Validity = Validity {
    nanos: 60_000_000_000,
    uses: 10_000,
};
/// Of an answer that may be otherwise in a moment.
const FLEETING: Validity = Validity { nanos: 0, uses: 0 };
pub(crate) const FAILED_PRECONDITION: i32 = 9;
/// Of an adapter: UNKNOWN. Callers take INTERNAL for mixer's own failure, and may let the request pass.
pub(crate) const FAILED: i32 = 2;
const DEADLINE_EXCEEDED: i32 = 4;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;

/// May the request pass?
#[derive(Debug, Clone)]
pub struct Decision {
    /// google.rpc.Code; 0 passes.
    pub code: i32,
    /// Every reason, each with its `handler.namespace`.
    pub message: String,
    /// How long the caller may keep the answer.
    pub valid_nanos: i64,
    /// For how many requests; zero when the answer depends on more than callers compare: on a map as a whole or on one
    /// that the request lacks (a later request that has it would be mistaken for this one), on chance, or on an
    /// adapter that failed.
    pub uses: i32,
    /// The first rule that denied, name.namespace.
    pub rule: Option<String>,
    /// What the caller of the denied request gets; None: what its proxy makes of the code.
    pub direct: Option<Arc<DirectResponse>>,
    /// What to do to the request that passes.
    pub request_headers: Vec<HeaderOperation>,
    /// What to do to its response.
    pub response_headers: Vec<HeaderOperation>,
    /// What rules in dry run would have denied.
    pub trials: Vec<Trial>,
    /// What all of this was made from.
    pub references: References,
    /// When the bag asked for it.
    pub explanation: Option<Explanation>,
}

/// A denial that isn't enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// name.namespace
    pub rule: String,
    /// google.rpc.Code
    pub code: i32,
    /// With the handler before it.
    pub message: String,
}

/// A decision under way.
#[derive(Debug)]
pub struct Deciding {
    questions: Vec<Question>,
    /// Rules that match, in order.
    rules: Vec<u32>,
    answer: Combined,
    /// What the first question and all actions after it find, in order.
    later: Vec<Later>,
    references: References,
    single_use: bool,
    notes: Option<Box<Notes>>,
}

/// An action whose turn comes when the answers are there.
#[derive(Debug)]
struct Later {
    rule: u32,
    /// Position among the rule's actions.
    action: usize,
    /// None: it is the next question's.
    found: Option<Found<'static>>,
}

/// What an action found.
#[derive(Debug)]
struct Found<'p> {
    code: i32,
    message: Cow<'p, str>,
    validity: Option<Validity>,
    direct: Option<Arc<DirectResponse>>,
}

impl Found<'_> {
    fn denial(code: i32, message: String) -> Self {
        Found {
            code,
            message: message.into(),
            validity: None,
            direct: None,
        }
    }

    fn into_owned(self) -> Found<'static> {
        Found {
            code: self.code,
            message: self.message.into_owned().into(),
            validity: self.validity,
            direct: self.direct,
        }
    }
}

enum Outcome<'p> {
    Found(Found<'p>),
    Ask(Question),
    /// Nothing to do with a check.
    Nothing,
}

impl Program {
    /// Decides about the request, without its quotas; `now` in nanoseconds of a clock that never goes back.
    /// ```text
    /// let mut deciding = program.check(&bag, now)?;
    /// let answers = ask(deciding.questions()).await;
    /// let decision = deciding.finish(&program, &bag, answers)?;
    /// ```
    pub fn check(&self, bag: &Bag<'_>, now: u64) -> Result<Deciding, BadRequest> {
        let mut evaluation = Evaluation::new(self, bag);
        let rules = self
            .scopes
            .matching(&mut evaluation, |scope| &scope.check)
            .map_err(BadRequest::Invalid)?;
        let mut answer = Combined::default();
        if let Some((rule, code, message)) = bag.generated().and_then(|generated| generated.denial.as_ref()) {
            answer.keep_for(FLEETING);
            answer.deny(*rule, *code, message.clone(), None);
        }
        let (mut questions, mut later) = (Vec::new(), Vec::new());
        for &number in &rules {
            let rule = &self.rules[number as usize];
            if !rule.picks(&mut evaluation, now)? {
                if let Some(notes) = &mut evaluation.notes {
                    notes.unsampled(&rule.name);
                }
                continue;
            }
            for (position, action) in rule.actions.iter().enumerate() {
                let outcome = self.act(&mut evaluation, action)?;
                if let Some(notes) = &mut evaluation.notes {
                    notes.attach(&rule.name);
                }
                let found = match outcome {
                    Outcome::Found(found) => Some(found),
                    Outcome::Ask(question) => {
                        questions.push(question);
                        None
                    }
                    Outcome::Nothing => continue,
                };
                match found {
                    Some(found) if questions.is_empty() => {
                        answer.take(self, number, action, found, false, &mut evaluation.notes);
                    }
                    found => later.push(Later {
                        rule: number,
                        action: position,
                        found: found.map(Found::into_owned),
                    }),
                }
            }
        }
        Ok(Deciding {
            questions,
            rules,
            answer,
            later,
            references: evaluation.references,
            single_use: evaluation.single_use,
            notes: evaluation.notes,
        })
    }

    fn act<'p>(&'p self, evaluation: &mut Evaluation<'_>, action: &Action) -> Result<Outcome<'p>, BadRequest> {
        use crate::question::Variety::{Check, CheckWithOutput};
        let handler = &self.handlers[action.handler as usize];
        let instance = &self.instances[action.instance as usize];
        if !matches!(instance.subject.variety, Check | CheckWithOutput) {
            return Ok(Outcome::Nothing);
        }
        let found = match &handler.adapter {
            Built::Denier {
                code,
                message,
                validity,
                direct,
            } => Found {
                code: *code,
                message: message.as_str().into(),
                validity: Some(*validity),
                direct: direct.clone(),
            },
            Built::List { list, validity } => {
                // Loading checked that the instance has it.
                let value = instance.field("value").map(|node| evaluation.value(node));
                let (code, message) = match value {
                    Some(Ok(value)) => list.check(&value).err().unwrap_or_default(),
                    Some(Err(failure)) => {
                        let failure = Lacking {
                            field: "value",
                            failure,
                        };
                        (FAILED_PRECONDITION, lacks(evaluation, instance, failure)?)
                    }
                    None => return Ok(Outcome::Nothing),
                };
                Found {
                    code,
                    message: message.into(),
                    validity: Some(*validity),
                    direct: None,
                }
            }
            Built::Asked(asked) => match instance.evaluate(evaluation) {
                Ok(fields) => {
                    return Ok(Outcome::Ask(Question {
                        asked: asked.clone(),
                        subject: instance.subject.clone(),
                        fields,
                        wanted: None,
                    }));
                }
                Err(lacking) => Found::denial(FAILED_PRECONDITION, lacks(evaluation, instance, lacking)?),
            },
            Built::Quotas { .. } | Built::Sink(_) => return Ok(Outcome::Nothing),
        };
        Ok(Outcome::Found(found))
    }
}

/// Who can't be looked up doesn't pass.
pub(crate) fn lacks(
    evaluation: &Evaluation<'_>,
    instance: &Instance,
    Lacking { field, failure }: Lacking<'_>,
) -> Result<String, BadRequest> {
    match failure {
        Failure::Request(message) => Err(BadRequest::Invalid(message)),
        failure => Ok(format!("{}: {field}: {}", instance.name(), evaluation.explain(failure))),
    }
}

/// Code and message of a failure where nothing passes without the adapter.
pub(crate) fn failure(failed: &Failed) -> (i32, String) {
    let code = match failed {
        Failed::TimedOut => DEADLINE_EXCEEDED,
        Failed::Because(_) => FAILED,
    };
    (code, format!("the adapter failed: {failed}"))
}

impl Deciding {
    /// To be asked at the same time.
    pub fn questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.questions)
    }

    /// The decision; one answer for each question, in their order.
    pub fn finish(self, program: &Program, bag: &Bag<'_>, answers: Vec<Answer>) -> Result<Decision, BadRequest> {
        let Deciding {
            rules,
            mut answer,
            later,
            mut notes,
            ..
        } = self;
        let mut outputs = Vec::new();
        let mut given = answers.iter();
        for Later { rule, action, found } in later {
            let action = &program.rules[rule as usize].actions[action];
            let handler = &program.handlers[action.handler as usize];
            let (found, was_asked) = match found {
                Some(found) => (found, false),
                None => {
                    let given = given.next();
                    if let (Some(Ok(reply)), false) = (given, action.outputs.is_empty()) {
                        outputs.push((action, reply));
                    }
                    (found_by(handler, given), true)
                }
            };
            answer.take(program, rule, action, found, was_asked, &mut notes);
        }
        let mut decision = Decision {
            code: answer.code,
            message: answer.messages.join(", "),
            valid_nanos: answer.validity.nanos.min(program.max_validity),
            uses: if self.single_use { 0 } else { answer.validity.uses },
            rule: answer.rule.map(|rule| program.rules[rule as usize].name.clone()),
            direct: answer.direct,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            trials: answer.trials,
            references: self.references,
            explanation: None,
        };
        let has_headers = |rule: &&u32| {
            let rule = &program.rules[**rule as usize];
            rule.has_headers() && !rule.dry_run
        };
        if decision.code == 0 && rules.iter().any(|rule| has_headers(&rule)) {
            let mut evaluation = Evaluation::resumed(program, bag, decision.references, self.single_use, notes);
            for (action, reply) in outputs {
                evaluation.put_out(&action.outputs, &reply.outputs);
            }
            for rule in rules.iter().filter(has_headers) {
                let rule = &program.rules[*rule as usize];
                headers(&mut evaluation, &rule.request_headers, &mut decision.request_headers)?;
                headers(&mut evaluation, &rule.response_headers, &mut decision.response_headers)?;
                if let Some(notes) = &mut evaluation.notes {
                    notes.attach(&rule.name);
                }
            }
            if evaluation.single_use {
                decision.uses = 0;
            }
            (decision.references, notes) = (evaluation.references, evaluation.notes);
        }
        decision.explanation = notes.map(|notes| notes.explanation);
        Ok(decision)
    }
}

fn found_by<'r>(handler: &Handler, answer: Option<&'r Answer>) -> Found<'r> {
    let Built::Asked(asked) = &handler.adapter else {
        return Found::denial(FAILED, "not an adapter that can be asked".into());
    };
    match answer {
        Some(Ok(reply)) => found_in(reply),
        failed => {
            let (code, message) = match failed {
                Some(Err(failed)) => failure(failed),
                _ => failure(&Failed::Because("nobody asked it".into())),
            };
            Found {
                code: if asked.is_open { 0 } else { code },
                message: message.into(),
                validity: Some(FLEETING),
                direct: None,
            }
        }
    }
}

fn found_in(reply: &Reply) -> Found<'_> {
    let code = match reply.status.code {
        // Callers take these for a failure of mixer's and for a missing answer: the request might pass.
        INTERNAL | UNAVAILABLE => FAILED,
        code => code,
    };
    let validity = Validity {
        nanos: reply.valid_nanos.max(0),
        uses: reply.uses,
    };
    Found {
        code,
        message: reply.status.message.as_str().into(),
        validity: Some(validity),
        direct: if code == 0 {
            None
        } else {
            DirectResponse::of(&reply.status).map(Arc::new)
        },
    }
}

/// What all actions found together.
#[derive(Debug)]
struct Combined {
    code: i32,
    messages: Vec<String>,
    validity: Validity,
    rule: Option<u32>,
    direct: Option<Arc<DirectResponse>>,
    trials: Vec<Trial>,
}

impl Default for Combined {
    fn default() -> Self {
        Combined {
            code: 0,
            messages: Vec::new(),
            validity: UNDECIDED,
            rule: None,
            direct: None,
            trials: Vec::new(),
        }
    }
}

impl Combined {
    fn take(
        &mut self,
        program: &Program,
        number: u32,
        action: &Action,
        found: Found<'_>,
        was_asked: bool,
        notes: &mut Option<Box<Notes>>,
    ) {
        let rule = &program.rules[number as usize];
        let handler = &program.handlers[action.handler as usize].name;
        if let Some(notes) = notes {
            let acted = Acted {
                handler: handler.clone(),
                instance: program.instances[action.instance as usize].name().to_owned(),
                was_asked,
                code: found.code,
                message: found.message.clone().into_owned(),
                decides: found.code != 0 && self.code == 0 && !rule.dry_run,
            };
            notes.acted(&rule.name, acted);
        }
        if let (Some(validity), false) = (found.validity, rule.dry_run) {
            self.keep_for(validity);
        }
        if found.code == 0 {
            return;
        }
        let message = format!("{handler}:{}", found.message);
        if rule.dry_run {
            self.trials.push(Trial {
                rule: rule.name.clone(),
                code: found.code,
                message,
            });
        } else {
            self.deny(number, found.code, message, found.direct);
        }
    }

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

    /// The first counts; of the others only the message.
    fn deny(&mut self, rule: u32, code: i32, message: String, direct: Option<Arc<DirectResponse>>) {
        if self.code == 0 {
            (self.code, self.rule, self.direct) = (code, Some(rule), direct);
        }
        self.messages.push(message);
    }
}

fn headers(
    evaluation: &mut Evaluation<'_>,
    templates: &[HeaderTemplate],
    operations: &mut Vec<HeaderOperation>,
) -> Result<(), BadRequest> {
    for template in templates {
        let value = match template.value.map(|node| evaluation.text(node)) {
            None => String::new(),
            Some(Ok(text)) if direct::is_header_value(&text) => text.into_owned(),
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
