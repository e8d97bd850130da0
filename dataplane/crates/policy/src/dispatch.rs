//! Finds the rules that can match without looking at the others: the leading equalities of all rules make a tree of
//! hash tables. Walking it reads the attributes that evaluating rule by rule from left to right would read, so that
//! callers may keep answers for just as many requests.

use crate::bag::WrongType;
use crate::evaluate::Evaluation;
use crate::hash::HashMap;
use crate::names::Slot;
use crate::value::Value;

/// Rules by what their leading equalities ask for.
#[derive(Debug, Default)]
pub(crate) struct Branch {
    /// Nothing more is asked of these.
    rules: Vec<u32>,
    lookups: Vec<(Slot, HashMap<Box<str>, Branch>)>,
}

impl Branch {
    pub(crate) fn add(&mut self, rule: u32, leading: &[(Slot, Box<str>)]) {
        let Some(((slot, word), rest)) = leading.split_first() else {
            self.rules.push(rule);
            return;
        };
        let position = self
            .lookups
            .iter()
            .position(|(known, _)| known == slot)
            .unwrap_or_else(|| {
                self.lookups.push((*slot, HashMap::default()));
                self.lookups.len() - 1
            });
        self.lookups[position]
            .1
            .entry(word.clone())
            .or_default()
            .add(rule, rest);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.lookups.is_empty()
    }

    fn collect(&self, evaluation: &mut Evaluation<'_>, found: &mut Vec<u32>) -> Result<(), WrongType> {
        found.extend(&self.rules);
        for (slot, branches) in &self.lookups {
            if let Some(Value::Text(text)) = evaluation.attribute(*slot)?
                && let Some(branch) = branches.get(&*text)
            {
                branch.collect(evaluation, found)?;
            }
        }
        Ok(())
    }
}

/// Rules of one namespace by what they are for: a rule may be in several.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// With checks or header operations.
    pub(crate) check: Branch,
    pub(crate) quota: Branch,
    pub(crate) report: Branch,
}

/// All rules: those for every namespace and those of each.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    pub(crate) global: Scope,
    pub(crate) namespaces: HashMap<Box<str>, Scope>,
}

/// The attributes that tell which namespace a request belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NamespaceSlots {
    pub(crate) reporter: Slot,
    pub(crate) source: Slot,
    pub(crate) destination: Slot,
}

impl Scopes {
    /// Rules that match, in the policy's order. `branch` picks what they are for.
    pub(crate) fn matching(
        &self,
        evaluation: &mut Evaluation<'_>,
        branch: fn(&Scope) -> &Branch,
    ) -> Result<Vec<u32>, String> {
        let mut found = Vec::new();
        let program = evaluation.program;
        let mut collect = || -> Result<(), WrongType> {
            let namespace = namespace(evaluation, program.namespaces)?;
            branch(&self.global).collect(evaluation, &mut found)?;
            if let Some(Value::Text(namespace)) = namespace
                && let Some(scope) = self.namespaces.get(&*namespace)
            {
                branch(scope).collect(evaluation, &mut found)?;
            }
            Ok(())
        };
        collect().map_err(|WrongType(message)| message)?;
        found.sort_unstable();
        let mut matching = Vec::with_capacity(found.len());
        for rule in found {
            if evaluation.holds(program.rules[rule as usize].condition)? {
                matching.push(rule);
            }
        }
        Ok(matching)
    }
}

/// The caller's side of the connection has the namespace; a caller that doesn't say which side it is has none.
fn namespace<'v>(evaluation: &mut Evaluation<'v>, slots: NamespaceSlots) -> Result<Option<Value<'v>>, WrongType> {
    let kind = evaluation.attribute(slots.reporter)?;
    let kind = match &kind {
        Some(Value::Text(kind)) => kind,
        _ => "",
    };
    if kind == "outbound" {
        return evaluation.attribute(slots.source);
    }
    let namespace = evaluation.attribute(slots.destination)?;
    Ok(namespace.filter(|_| kind == "inbound"))
}
