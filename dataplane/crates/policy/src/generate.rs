//! Attribute generation: before a request is decided, adapters make attributes of others (a pod's labels of its
//! address). What they make counts in place of what the request says, in every rule.

use meshwright_api::istio::mixer::v1::attributes::AttributeValue;

use crate::bag::Bag;
use crate::check;
use crate::error::BadRequest;
use crate::evaluate::{Evaluation, Failure};
use crate::explanation::{Acted, Explanation, Notes};
use crate::handler::Built;
use crate::names::Slot;
use crate::plain;
use crate::program::Program;
use crate::question::{Answer, Question, Variety};
use crate::references::References;

/// Generation under way: its questions wait for answers.
#[derive(Debug)]
pub struct Generating {
    questions: Vec<Question>,
    /// Rule, handler and instance of each question.
    places: Vec<(u32, u32, u32)>,
    references: References,
    single_use: bool,
    notes: Option<Box<Notes>>,
}

/// What generators made of one request; `Bag::with` takes it.
#[derive(Debug)]
pub struct Generated {
    pub(crate) values: Vec<(Slot, AttributeValue)>,
    pub(crate) references: References,
    pub(crate) single_use: bool,
    /// A generator failed without which nothing may pass: its rule, code and message.
    pub(crate) denial: Option<(u32, i32, String)>,
    /// When the bag asked for it.
    pub explanation: Option<Explanation>,
}

impl Program {
    /// What generators must be asked about this request; None, at no cost: the policy has none.
    /// ```text
    /// let generated = match program.generate(&bag, now)? {
    ///     Some(mut generating) => { let answers = ask(generating.questions()).await; Some(generating.finish(&program, &bag, answers)?) }
    ///     None => None,
    /// };
    /// let bag = match &generated { Some(generated) => bag.with(generated), None => bag };
    /// ```
    pub fn generate(&self, bag: &Bag<'_>, now: u64) -> Result<Option<Generating>, BadRequest> {
        if !self.has_generators {
            return Ok(None);
        }
        let mut evaluation = Evaluation::new(self, bag);
        let rules = self
            .scopes
            .matching(&mut evaluation, |scope| &scope.generate)
            .map_err(BadRequest::Invalid)?;
        let (mut questions, mut places) = (Vec::new(), Vec::new());
        for number in rules {
            let rule = &self.rules[number as usize];
            if !rule.picks(&mut evaluation, now)? {
                if let Some(notes) = &mut evaluation.notes {
                    notes.unsampled(&rule.name);
                }
                continue;
            }
            for action in &rule.actions {
                let handler = &self.handlers[action.handler as usize];
                let instance = &self.instances[action.instance as usize];
                let (Built::Asked(asked), Variety::AttributeGenerator) = (&handler.adapter, instance.subject.variety)
                else {
                    continue;
                };
                match instance.evaluate(&mut evaluation) {
                    Ok(fields) => {
                        questions.push(Question {
                            asked: asked.clone(),
                            subject: instance.subject.clone(),
                            fields,
                            wanted: None,
                        });
                        places.push((number, action.handler, action.instance));
                    }
                    Err(lacking) => {
                        // Whatever else is missing, a generator does without.
                        if let Failure::Request(message) = lacking.failure {
                            return Err(BadRequest::Invalid(message));
                        }
                    }
                }
            }
        }
        Ok(Some(Generating {
            questions,
            places,
            references: evaluation.references,
            single_use: evaluation.single_use,
            notes: evaluation.notes,
        }))
    }
}

impl Generating {
    /// To be asked at the same time.
    pub fn questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.questions)
    }

    /// One answer for each question, in their order. Where two generators make the same attribute, the later rule's
    /// counts.
    pub fn finish(self, program: &Program, bag: &Bag<'_>, answers: Vec<Answer>) -> Result<Generated, BadRequest> {
        let mut values: Vec<(Slot, AttributeValue)> = Vec::new();
        let (mut references, mut single_use, mut notes) = (self.references, self.single_use, self.notes);
        let mut denial = None;
        for (&(rule, handler, instance), answer) in self.places.iter().zip(&answers) {
            let (handler, instance) = (
                &program.handlers[handler as usize],
                &program.instances[instance as usize],
            );
            let failure = match answer {
                Ok(reply) if reply.status.code == 0 => {
                    let mut evaluation = Evaluation::resumed(program, bag, references, single_use, notes);
                    evaluation.put_out(&instance.outputs, &reply.outputs);
                    for (slot, node) in &instance.bindings {
                        match evaluation.value(*node) {
                            Ok(value) => {
                                values.retain(|(known, _)| known != slot);
                                values.push((*slot, plain::write(value)));
                            }
                            Err(Failure::Request(message)) => return Err(BadRequest::Invalid(message)),
                            // It stays what the request says.
                            Err(_) => {}
                        }
                    }
                    (references, single_use, notes) = (evaluation.references, evaluation.single_use, evaluation.notes);
                    None
                }
                Ok(reply) => Some((check::FAILED, reply.status.message.clone())),
                Err(failed) => Some(check::failure(failed)),
            };
            if let Some(notes) = &mut notes {
                let (code, message) = failure.clone().unwrap_or_default();
                notes.acted(
                    &program.rules[rule as usize].name,
                    Acted {
                        handler: handler.name.clone(),
                        instance: instance.name().to_owned(),
                        was_asked: true,
                        code,
                        message,
                        decides: false,
                    },
                );
            }
            if let (Some((code, message)), Built::Asked(asked)) = (failure, &handler.adapter) {
                // What may be otherwise in a moment isn't kept.
                single_use = true;
                if !asked.is_open && denial.is_none() {
                    denial = Some((rule, code, format!("{}:{message}", handler.name)));
                }
            }
        }
        Ok(Generated {
            values,
            references,
            single_use,
            denial,
            explanation: notes.map(|notes| notes.explanation),
        })
    }
}
