//! Rules: when they apply, what they give to whom, and what they do to the headers of requests that pass.

use meshwright_api::meshwright::policy::v1 as compiled;

use crate::error::{BadRequest, Refused};
use crate::evaluate::Evaluation;
use crate::expression::{At, Expressions};
use crate::handler::Handler;
use crate::instance::Instance;
use crate::keys::Keys;
use crate::question::Variety;
use crate::sampling::Sampling;
use crate::value::Type;

#[derive(Debug)]
pub(crate) struct Rule {
    /// name.namespace
    pub(crate) name: String,
    /// What it is found by.
    pub(crate) keys: Keys,
    /// What the keys don't say.
    pub(crate) condition: Option<At>,
    /// In order; an action of several instances is several here.
    pub(crate) actions: Vec<Action>,
    pub(crate) request_headers: Vec<HeaderTemplate>,
    pub(crate) response_headers: Vec<HeaderTemplate>,
    pub(crate) sampling: Option<Sampling>,
    /// Decided and told, never enforced.
    pub(crate) dry_run: bool,
}

/// One instance for one handler.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) handler: u32,
    pub(crate) instance: u32,
    /// What header operations read of the reply.
    pub(crate) outputs: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct HeaderTemplate {
    pub(crate) name: String,
    pub(crate) operation: i32,
    /// None only for a removal.
    pub(crate) value: Option<At>,
}

impl Rule {
    /// Whether its actions are done for a request that matches.
    pub(crate) fn picks(&self, evaluation: &mut Evaluation<'_>, now: u64) -> Result<bool, BadRequest> {
        match &self.sampling {
            None => Ok(true),
            Some(sampling) => sampling.picks(evaluation, now),
        }
    }

    pub(crate) fn has_headers(&self) -> bool {
        !self.request_headers.is_empty() || !self.response_headers.is_empty()
    }

    pub(crate) fn load(
        rule: &compiled::Rule,
        keys: Keys,
        handlers: &[Handler],
        instances: &[Instance],
        expressions: &Expressions,
        place: &str,
    ) -> Result<Self, Refused> {
        let condition = match rule.r#match {
            Some(node) => Some(expressions.expect(node, &[Type::Bool], &format!("{place}.match"))?),
            None => None,
        };
        let sampling = rule
            .sampling
            .as_ref()
            .map(|sampling| Sampling::load(sampling, expressions, place))
            .transpose()?;
        Ok(Rule {
            name: format!("{}.{}", rule.name, rule.namespace),
            keys,
            condition,
            actions: load_actions(rule, handlers, instances, expressions, place)?,
            request_headers: load_headers(&rule.request_headers, expressions, place)?,
            response_headers: load_headers(&rule.response_headers, expressions, place)?,
            sampling,
            dry_run: rule.dry_run,
        })
    }
}

fn load_actions(
    rule: &compiled::Rule,
    handlers: &[Handler],
    instances: &[Instance],
    expressions: &Expressions,
    place: &str,
) -> Result<Vec<Action>, Refused> {
    let mut actions = Vec::new();
    for (position, action) in rule.actions.iter().enumerate() {
        let place = format!("{place}.actions[{position}]");
        let handler = handlers
            .get(action.handler as usize)
            .ok_or_else(|| Refused::new(&place, format!("there is no handler {}", action.handler)))?;
        if action.instances.is_empty() {
            return Err(Refused::new(place, "needs an instance"));
        }
        for &number in &action.instances {
            let instance = instances
                .get(number as usize)
                .ok_or_else(|| Refused::new(&place, format!("there is no instance {number}")))?;
            if !handler.adapter.takes(number, instance) {
                return Err(Refused::new(
                    place,
                    format!("handler {} can't take instance {}", handler.name, instance.name()),
                ));
            }
            let has_outputs = !action.outputs.is_empty();
            if has_outputs && (action.instances.len() > 1 || instance.subject.variety != Variety::CheckWithOutput) {
                return Err(Refused::new(
                    place,
                    "only one instance of CHECK_WITH_OUTPUT has outputs",
                ));
            }
            actions.push(Action {
                handler: action.handler,
                instance: number,
                outputs: expressions.own_outputs(&action.outputs, &place)?,
            });
        }
    }
    Ok(actions)
}

fn load_headers(
    operations: &[compiled::HeaderOperation],
    expressions: &Expressions,
    place: &str,
) -> Result<Vec<HeaderTemplate>, Refused> {
    use compiled::header_operation::Operation;
    let mut templates = Vec::new();
    for header in operations {
        let place = format!("{place}: header {:?}", header.name);
        let operation = Operation::try_from(header.operation)
            .map_err(|_| Refused::new(&place, format!("operation {} is unknown", header.operation)))?;
        if header.name.is_empty() || (operation == Operation::Remove) != header.values.is_empty() {
            return Err(Refused::new(place, "needs a name, and values unless it is removed"));
        }
        let name = header.name.clone();
        if operation == Operation::Remove {
            templates.push(HeaderTemplate {
                name,
                operation: header.operation,
                value: None,
            });
            continue;
        }
        for &node in &header.values {
            let value = Some(expressions.expect(node, &[Type::String], &place)?);
            templates.push(HeaderTemplate {
                name: name.clone(),
                operation: header.operation,
                value,
            });
        }
    }
    Ok(templates)
}
