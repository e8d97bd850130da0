//! A compiled policy, checked and ready to run. Loading refuses whatever could fail later on its own account: wrong
//! indices, types that don't fit, patterns that don't compile, actions that a handler can't do.

use meshwright_api::meshwright::policy::v1 as compiled;
use prost::Message;

use crate::dispatch::{NamespaceSlots, Scopes};
use crate::error::Refused;
use crate::expression::Expressions;
use crate::handler::Handler;
use crate::instance::Instance;
use crate::keys::Keys;
use crate::names::{Names, Slot};
use crate::question::Variety;
use crate::rule::Rule;
use crate::value::Type;

/// The format of `Policy` that this engine reads.
const FORMAT: u32 = 1;

/// A policy ready to run.
#[derive(Debug)]
pub struct Program {
    pub(crate) revision: String,
    pub(crate) names: Names,
    pub(crate) expressions: Expressions,
    pub(crate) instances: Vec<Instance>,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) scopes: Scopes,
    pub(crate) namespaces: NamespaceSlots,
    /// Of request.headers.
    pub(crate) headers: Slot,
    /// Of check.cache_hit.
    pub(crate) cache_hit: Slot,
    pub(crate) drops_unmatched_reports: bool,
    pub(crate) has_reports: bool,
    pub(crate) has_generators: bool,
    /// No answer to a check is valid for longer.
    pub(crate) max_validity: i64,
}

impl Program {
    /// From the bytes of a `meshwright.policy.v1.Policy`.
    pub fn load(bytes: &[u8]) -> Result<Self, Refused> {
        let policy =
            compiled::Policy::decode(bytes).map_err(|error| Refused::new("the whole message", error.to_string()))?;
        if policy.format != FORMAT {
            return Err(Refused::new(
                "format",
                format!("is {}, this engine reads {FORMAT}", policy.format),
            ));
        }
        let mut names = Names::default();
        // These decide the namespace, whether or not a rule reads them. A policy that declares them otherwise is refused.
        let mut known = |name| names.add(name, Type::String).expect("the first to be added");
        let namespaces = NamespaceSlots {
            reporter: known("context.reporter.kind"),
            source: known("source.namespace"),
            destination: known("destination.namespace"),
        };
        // Whatever a report's rules read, its trace is told to whoever gets the record.
        let mut known = |name, kind| names.add(name, kind).expect("the first to be added");
        let (headers, cache_hit) = (
            known("request.headers", Type::StringMap),
            known("check.cache_hit", Type::Bool),
        );
        let slots = attributes(&policy, &mut names)?;
        let expressions = Expressions::load(&policy, &names, &slots)?;
        let instances = each("instances", &policy.instances, |instance, place| {
            Instance::load(instance, &expressions, &names, &slots, place)
        })?;
        let handlers = each("handlers", &policy.handlers, |handler, place| {
            Handler::load(handler, &instances, place)
        })?;
        let max_validity = match policy.max_validity_nanos {
            0 => i64::MAX,
            nanos @ 1.. => nanos,
            _ => return Err(Refused::new("max_validity_nanos", "can't be negative")),
        };
        let mut program = Program {
            revision: policy.revision.clone(),
            names,
            expressions,
            instances,
            handlers,
            rules: Vec::with_capacity(policy.rules.len()),
            scopes: Scopes::default(),
            namespaces,
            headers,
            cache_hit,
            drops_unmatched_reports: policy.drop_unmatched_reports,
            has_reports: false,
            has_generators: false,
            max_validity,
        };
        for (index, rule) in policy.rules.iter().enumerate() {
            program.add_rule(
                &policy,
                rule,
                &format!("rules[{index}] ({}.{})", rule.name, rule.namespace),
            )?;
        }
        Ok(program)
    }

    /// A policy without rules: everything passes.
    pub fn empty() -> Self {
        let policy = compiled::Policy {
            format: FORMAT,
            ..Default::default()
        };
        Program::load(&policy.encode_to_vec()).expect("nothing in it can be wrong")
    }

    /// The attributes that this policy reads, for building a bag.
    pub fn names(&self) -> &Names {
        &self.names
    }

    fn add_rule(&mut self, policy: &compiled::Policy, rule: &compiled::Rule, place: &str) -> Result<(), Refused> {
        let index = self.rules.len() as u32;
        let keys = Keys::load(rule, &policy.words, &self.expressions, place)?;
        let loaded = Rule::load(rule, keys, &self.handlers, &self.instances, &self.expressions, place)?;
        let scope = if rule.namespace == policy.global_namespace {
            &mut self.scopes.global
        } else {
            self.scopes
                .namespaces
                .entry(rule.namespace.as_str().into())
                .or_default()
        };
        let does = |fits: fn(Variety) -> bool| {
            loaded
                .actions
                .iter()
                .any(|action| fits(self.instances[action.instance as usize].subject.variety))
        };
        if loaded.has_headers() || does(|variety| matches!(variety, Variety::Check | Variety::CheckWithOutput)) {
            scope.check.add(index, &loaded.keys);
        }
        if does(|variety| variety == Variety::Quota) {
            scope.quota.add(index, &loaded.keys);
        }
        if does(|variety| variety == Variety::Report) {
            scope.report.add(index, &loaded.keys);
            self.has_reports = true;
        }
        if does(|variety| variety == Variety::AttributeGenerator) && !loaded.dry_run {
            scope.generate.add(index, &loaded.keys);
            self.has_generators = true;
        }
        self.rules.push(loaded);
        Ok(())
    }
}

fn each<T, R>(
    list: &str,
    items: &[T],
    mut load: impl FnMut(&T, &str) -> Result<R, Refused>,
) -> Result<Vec<R>, Refused> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| load(item, &format!("{list}[{index}]")))
        .collect()
}

fn attributes(policy: &compiled::Policy, names: &mut Names) -> Result<Vec<Slot>, Refused> {
    each("attributes", &policy.attributes, |attribute, place| {
        let name = policy
            .words
            .get(attribute.name as usize)
            .ok_or_else(|| Refused::new(place, format!("there is no word {}", attribute.name)))?;
        let kind = Type::try_from(attribute.r#type).unwrap_or_default();
        if name.is_empty() || kind == Type::Unspecified {
            return Err(Refused::new(
                place,
                format!("attribute {name:?} needs a name and a known type"),
            ));
        }
        names
            .add(name, kind)
            .ok_or_else(|| Refused::new(place, format!("attribute {name:?} has another type already")))
    })
}
