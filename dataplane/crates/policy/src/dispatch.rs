//! Finds the rules that can match without looking at the others: the keys of all rules make a tree of tables. Walking it
//! reads a key's text once for all rules that ask it at the same place. For a condition that begins with its keys this
//! is just what evaluating rule by rule from left to right would read; keys from further right are read although what
//! stands left of them may be false, which makes an answer good for fewer requests, never for a wrong one.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::bag::WrongType;
use crate::evaluate::{Evaluation, Failure};
use crate::explanation::Verdict;
use crate::hash::HashMap;
use crate::keys::{Key, Keys, Subject};
use crate::names::Slot;
use crate::value::Value;

/// Rules by what their keys ask for.
#[derive(Debug, Default)]
pub(crate) struct Branch {
    /// Nothing more is asked of these.
    rules: Vec<u32>,
    lookups: Vec<Lookup>,
}

#[derive(Debug)]
struct Lookup {
    subject: Subject,
    equals: HashMap<Box<str>, Branch>,
    prefixes: BTreeMap<Box<[u8]>, Branch>,
}

impl Branch {
    pub(crate) fn add(&mut self, rule: u32, keys: &Keys) {
        self.add_below(rule, &keys.all, &keys.either);
    }

    fn add_below(&mut self, rule: u32, all: &[Key], either: &[Key]) {
        if let Some((key, rest)) = all.split_first() {
            self.each(key, |branch| branch.add_below(rule, rest, either));
        } else if either.is_empty() {
            self.rules.push(rule);
        } else {
            for key in either {
                self.each(key, |branch| branch.rules.push(rule));
            }
        }
    }

    fn each(&mut self, key: &Key, mut add: impl FnMut(&mut Branch)) {
        let known = self.lookups.iter().position(|lookup| lookup.subject == key.subject);
        let position = known.unwrap_or_else(|| {
            self.lookups.push(Lookup {
                subject: key.subject.clone(),
                equals: HashMap::default(),
                prefixes: BTreeMap::new(),
            });
            self.lookups.len() - 1
        });
        let lookup = &mut self.lookups[position];
        for text in &key.equals {
            add(lookup.equals.entry(text.clone()).or_default());
        }
        for prefix in &key.prefixes {
            add(lookup.prefixes.entry(prefix.as_bytes().into()).or_default());
        }
    }

    /// Every rule, wherever it stands.
    fn all(&self, found: &mut Vec<u32>) {
        found.extend(&self.rules);
        for lookup in &self.lookups {
            lookup
                .equals
                .values()
                .chain(lookup.prefixes.values())
                .for_each(|branch| branch.all(found));
        }
    }

    fn collect(&self, evaluation: &mut Evaluation<'_>, found: &mut Vec<u32>) -> Result<(), String> {
        found.extend(&self.rules);
        for lookup in &self.lookups {
            let text = match evaluation.text(lookup.subject.node) {
                Ok(text) => text,
                Err(Failure::Request(message)) => return Err(message),
                Err(_) => continue,
            };
            if let Some(branch) = lookup.equals.get(&*text) {
                branch.collect(evaluation, found)?;
            }
            if !lookup.prefixes.is_empty() {
                each_prefix(&lookup.prefixes, text.as_bytes(), |branch| {
                    branch.collect(evaluation, found)
                })?;
            }
        }
        Ok(())
    }
}

/// Every entry whose name `text` begins with. All of them stand before `text` in order, and whatever stands between one
/// of them and `text` begins with it too: so the nearest before `text` either is one, or shares with `text` what all of
/// them are prefixes of.
fn each_prefix<T>(
    prefixes: &BTreeMap<Box<[u8]>, T>,
    text: &[u8],
    mut found: impl FnMut(&T) -> Result<(), String>,
) -> Result<(), String> {
    let mut end = Bound::Included(text);
    while let Some((prefix, value)) = prefixes.range::<[u8], _>((Bound::Unbounded, end)).next_back() {
        let shared = prefix.iter().zip(text).take_while(|(a, b)| a == b).count();
        if shared == prefix.len() {
            found(value)?;
            end = Bound::Excluded(&text[..shared]);
        } else {
            end = Bound::Included(&text[..shared]);
        }
    }
    Ok(())
}

/// Rules of one namespace by what they are for: a rule may be in several.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// With checks or header operations.
    pub(crate) check: Branch,
    pub(crate) quota: Branch,
    pub(crate) report: Branch,
    /// With attribute generators.
    pub(crate) generate: Branch,
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
        let program = evaluation.program;
        let namespace = namespace(evaluation, program.namespaces).map_err(|WrongType(message)| message)?;
        let scope = match &namespace {
            Some(Value::Text(namespace)) => self.namespaces.get(&**namespace),
            _ => None,
        };
        let mut found = Vec::new();
        for scope in [Some(&self.global), scope].into_iter().flatten() {
            if evaluation.is_explained() {
                branch(scope).all(&mut found);
            } else {
                branch(scope).collect(evaluation, &mut found)?;
            }
        }
        found.sort_unstable();
        // A rule stands in several places when it has alternatives.
        found.dedup();
        if evaluation.is_explained() {
            return explained(evaluation, found);
        }
        let mut kept = 0;
        for position in 0..found.len() {
            let rule = found[position];
            if evaluation.holds(program.rules[rule as usize].condition)? {
                found[kept] = rule;
                kept += 1;
            }
        }
        found.truncate(kept);
        Ok(found)
    }
}

/// Tries every rule in turn and notes why it matches or doesn't.
fn explained(evaluation: &mut Evaluation<'_>, rules: Vec<u32>) -> Result<Vec<u32>, String> {
    let program = evaluation.program;
    let mut matching = Vec::new();
    for number in rules {
        let rule = &program.rules[number as usize];
        evaluation.begin_rule();
        let verdict = tried(evaluation, number)?;
        if verdict == Verdict::Matched {
            matching.push(number);
        }
        evaluation.end_rule(&rule.name, rule.dry_run, verdict);
    }
    Ok(matching)
}

fn tried(evaluation: &mut Evaluation<'_>, number: u32) -> Result<Verdict, String> {
    let program = evaluation.program;
    let rule = &program.rules[number as usize];
    for key in &rule.keys.all {
        match evaluation.text(key.subject.node) {
            Ok(text) if key.holds(&text) => {}
            Ok(_) => return Ok(Verdict::False(program.expressions.key(key, &program.names))),
            Err(Failure::Request(message)) => return Err(message),
            Err(failure) => return Ok(Verdict::Unknown(evaluation.explain(failure))),
        }
    }
    match rule.condition {
        None => Ok(Verdict::Matched),
        Some(node) => evaluation.verdict(node),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_each_prefix_and_nothing_else(
            prefixes: std::collections::BTreeSet<String>, short in prop::collection::btree_set("[ab]{0,4}", 0..12),
            text in "[ab]{0,6}",
        ) {
            let all: Vec<String> = prefixes.into_iter().chain(short).collect();
            let tree: BTreeMap<Box<[u8]>, &str> =
                all.iter().map(|prefix| (prefix.as_bytes().into(), prefix.as_str())).collect();
            let mut found = Vec::new();
            each_prefix(&tree, text.as_bytes(), |prefix| {
                found.push(*prefix);
                Ok(())
            }).unwrap();
            found.sort_unstable();
            let mut expected: Vec<&str> = tree.values().copied().filter(|prefix| text.starts_with(prefix)).collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
