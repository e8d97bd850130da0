//! Expressions ready to run. Types are inferred here, once, when a policy is loaded: at run time an expression can
//! fail on what a request lacks, never on itself.

use std::borrow::Cow;
use std::cmp::Ordering;

use meshwright_api::meshwright::policy::v1 as compiled;
use regex::Regex;

use crate::cel::{self, Cel};
use crate::error::Refused;
use crate::hash::HashMap;
use crate::names::{Names, Slot};
use crate::value::{self, Time, Type, Value};
use compiled::Operation;

/// Deeper expressions are refused: evaluation recurses.
const MAX_DEPTH: u32 = 200;
/// Shared nodes are evaluated where they are used, so a small list could make a huge expression.
const MAX_STEPS: u64 = 10_000;
/// (attribute, key) pairs with a number.
const MAX_NUMBERED_KEYS: usize = 512;
/// Of one compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;

/// Number of a node.
pub(crate) type At = u32;

/// Which spellings count as the same text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spelling {
    Exact,
    DnsName,
    Email,
    Uri,
}

#[derive(Debug)]
pub(crate) enum Node {
    Constant(Value<'static>),
    Attribute(Slot),
    /// `reference`: number of the (attribute, key) pair when both are known now.
    Index {
        map: At,
        key: At,
        reference: Option<u32>,
    },
    Equal {
        left: At,
        right: At,
        spelling: Spelling,
        negated: bool,
    },
    Compare {
        left: At,
        right: At,
        accept: fn(Ordering) -> bool,
        /// As it is written.
        sign: &'static str,
    },
    And(At, At),
    Or(At, At),
    Not(At),
    Default(At, At),
    Add(At, At),
    Conditional(At, At, At),
    Size(At),
    Glob(At, At),
    Matches(Regex, At),
    StartsWith(At, At),
    EndsWith(At, At),
    Ip(At),
    Timestamp(At),
    DnsName(At),
    Email(At),
    Uri(At),
    ToLower(At),
    EmptyMap,
    Cel(Cel),
    Output(u32),
}

/// All nodes of a policy with their types, and the map keys that they read.
#[derive(Debug, Default)]
pub(crate) struct Expressions {
    pub(crate) nodes: Vec<Node>,
    types: Vec<Type>,
    /// (attribute, key) pairs; their reference numbers follow those of the attributes.
    pub(crate) keys: Vec<(Slot, Box<str>)>,
    /// Fields of what adapters put out, with the types that the policy counts on.
    pub(crate) outputs: Vec<(Box<str>, Type)>,
}

impl Expressions {
    /// Numbers of outputs that something else of the policy uses.
    pub(crate) fn own_outputs(&self, numbers: &[u32], place: &str) -> Result<Vec<u32>, Refused> {
        match numbers.iter().find(|number| **number as usize >= self.outputs.len()) {
            Some(number) => Err(Refused::new(place, format!("there is no output {number}"))),
            None => Ok(numbers.to_vec()),
        }
    }

    /// The type of a node that something else of the policy uses.
    pub(crate) fn kind(&self, node: At, place: &str) -> Result<Type, Refused> {
        self.types
            .get(node as usize)
            .copied()
            .ok_or_else(|| Refused::new(place, format!("there is no node {node}")))
    }

    /// `node`, provided its type is among `kinds`.
    pub(crate) fn expect(&self, node: At, kinds: &[Type], place: &str) -> Result<At, Refused> {
        let kind = self.kind(node, place)?;
        if kinds.contains(&kind) {
            return Ok(node);
        }
        let wanted: Vec<_> = kinds.iter().map(|kind| kind.as_str_name()).collect();
        Err(Refused::new(
            place,
            format!("is of type {}, must be {}", kind.as_str_name(), wanted.join(" or ")),
        ))
    }

    /// Takes every node; `slots` maps the policy's attribute numbers.
    pub(crate) fn load(policy: &compiled::Policy, names: &Names, slots: &[Slot]) -> Result<Self, Refused> {
        let mut outputs = Vec::with_capacity(policy.outputs.len());
        for (index, output) in policy.outputs.iter().enumerate() {
            match Type::try_from(output.r#type) {
                Ok(kind) if kind != Type::Unspecified && !output.field.is_empty() => {
                    outputs.push((output.field.as_str().into(), kind));
                }
                _ => {
                    return Err(Refused::new(
                        format!("outputs[{index}]"),
                        "needs a field and a known type",
                    ));
                }
            }
        }
        let mut loader = Loader {
            policy,
            names,
            slots,
            result: Expressions {
                outputs,
                ..Expressions::default()
            },
            sizes: Vec::new(),
            keys: HashMap::default(),
        };
        for (index, node) in policy.nodes.iter().enumerate() {
            loader
                .add(node)
                .map_err(|reason| Refused::new(format!("nodes[{index}]"), reason))?;
        }
        Ok(loader.result)
    }
}

struct Loader<'a> {
    policy: &'a compiled::Policy,
    names: &'a Names,
    slots: &'a [Slot],
    result: Expressions,
    /// Depth and number of steps by node.
    sizes: Vec<(u32, u64)>,
    keys: HashMap<(Slot, Box<str>), u32>,
}

impl Loader<'_> {
    fn add(&mut self, node: &compiled::Node) -> Result<(), String> {
        let operation =
            Operation::try_from(node.operation).map_err(|_| format!("operation {} is unknown", node.operation))?;
        let (mut depth, mut steps) = (1, 1u64);
        let mut kinds = Vec::with_capacity(node.arguments.len());
        for &argument in &node.arguments {
            let (below, inner) = *self
                .sizes
                .get(argument as usize)
                .ok_or_else(|| format!("argument {argument} doesn't come before its user"))?;
            depth = depth.max(below + 1);
            steps = steps.saturating_add(inner);
            kinds.push(self.result.types[argument as usize]);
        }
        if depth > MAX_DEPTH || steps > MAX_STEPS {
            return Err(format!("deeper than {MAX_DEPTH} or more than {MAX_STEPS} steps"));
        }
        let (loaded, kind) = self.typed(node, operation, &kinds)?;
        self.result.nodes.push(loaded);
        self.result.types.push(kind);
        self.sizes.push((depth, steps));
        Ok(())
    }

    fn typed(&mut self, node: &compiled::Node, operation: Operation, kinds: &[Type]) -> Result<(Node, Type), String> {
        use Type::{
            Bool, DnsName, Double, Duration, EmailAddress, Int64, IpAddress, String as Text, StringMap, Timestamp, Uri,
        };
        let at = |position: usize| node.arguments[position];
        let spelled = |kind: Type| match kind {
            DnsName => Spelling::DnsName,
            EmailAddress => Spelling::Email,
            Uri => Spelling::Uri,
            _ => Spelling::Exact,
        };
        let compare = |accept: fn(Ordering) -> bool, sign: &'static str| Node::Compare {
            left: at(0),
            right: at(1),
            accept,
            sign,
        };
        let equal = |kind, negated| Node::Equal {
            left: at(0),
            right: at(1),
            spelling: spelled(kind),
            negated,
        };
        let is_ordered = |kind: Type| matches!(kind, Int64 | Double | Text | Timestamp | Duration);
        Ok(match (operation, kinds) {
            (Operation::Constant, []) => self.constant(node)?,
            (Operation::Attribute, []) => {
                let slot = *self
                    .slots
                    .get(node.attribute as usize)
                    .ok_or_else(|| format!("there is no attribute {}", node.attribute))?;
                (Node::Attribute(slot), self.names.kind(slot))
            }
            (Operation::Index, [StringMap, Text]) => (
                Node::Index {
                    map: at(0),
                    key: at(1),
                    reference: self.reference(at(0), at(1)),
                },
                Text,
            ),
            (Operation::Equal, [a, b]) if a == b && *a != StringMap => (equal(*a, false), Bool),
            (Operation::NotEqual, [a, b]) if a == b && *a != StringMap => (equal(*a, true), Bool),
            (Operation::Less, [a, b]) if a == b && is_ordered(*a) => (compare(Ordering::is_lt, "<"), Bool),
            (Operation::LessEqual, [a, b]) if a == b && is_ordered(*a) => (compare(Ordering::is_le, "<="), Bool),
            (Operation::Greater, [a, b]) if a == b && is_ordered(*a) => (compare(Ordering::is_gt, ">"), Bool),
            (Operation::GreaterEqual, [a, b]) if a == b && is_ordered(*a) => (compare(Ordering::is_ge, ">="), Bool),
            (Operation::And, [Bool, Bool]) => (Node::And(at(0), at(1)), Bool),
            (Operation::Or, [Bool, Bool]) => (Node::Or(at(0), at(1)), Bool),
            (Operation::Not, [Bool]) => (Node::Not(at(0)), Bool),
            (Operation::Default, [a, b]) if a == b => (Node::Default(at(0), at(1)), *a),
            (Operation::Add, [a, b]) if a == b && matches!(a, Text | Int64 | Double | Duration) => {
                (Node::Add(at(0), at(1)), *a)
            }
            (Operation::Conditional, [Bool, a, b]) if a == b => (Node::Conditional(at(0), at(1), at(2)), *a),
            (Operation::Size, [Text]) => (Node::Size(at(0)), Int64),
            (Operation::Match, [Text, Text]) => (Node::Glob(at(0), at(1)), Bool),
            (Operation::Matches, [Text, Text]) => {
                let Node::Constant(Value::Text(pattern)) = &self.result.nodes[at(0) as usize] else {
                    return Err("the pattern of MATCHES must be a constant".into());
                };
                (Node::Matches(regex(pattern)?, at(1)), Bool)
            }
            (Operation::StartsWith, [Text, Text]) => (Node::StartsWith(at(0), at(1)), Bool),
            (Operation::EndsWith, [Text, Text]) => (Node::EndsWith(at(0), at(1)), Bool),
            (Operation::Ip, [Text]) => (Node::Ip(at(0)), IpAddress),
            (Operation::ToTimestamp, [Text]) => (Node::Timestamp(at(0)), Timestamp),
            (Operation::ToDnsName, [Text]) => (Node::DnsName(at(0)), DnsName),
            (Operation::Email, [Text]) => (Node::Email(at(0)), EmailAddress),
            (Operation::ToUri, [Text]) => (Node::Uri(at(0)), Uri),
            (Operation::ToLower, [Text]) => (Node::ToLower(at(0)), Text),
            (Operation::EmptyStringMap, []) => (Node::EmptyMap, StringMap),
            (Operation::Output, []) => {
                let (_, kind) = self
                    .result
                    .outputs
                    .get(node.output as usize)
                    .ok_or_else(|| format!("there is no output {}", node.output))?;
                (Node::Output(node.output), *kind)
            }
            _ => {
                if let Some((cel, kind)) = cel::load(&self.result, operation, &node.arguments, kinds)? {
                    return Ok((Node::Cel(cel), kind));
                }
                let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str_name()).collect();
                return Err(format!(
                    "{} doesn't take ({})",
                    operation.as_str_name(),
                    kinds.join(", ")
                ));
            }
        })
    }

    fn constant(&self, node: &compiled::Node) -> Result<(Node, Type), String> {
        use compiled::constant::Value as Given;
        let given = node.constant.as_ref().and_then(|constant| constant.value.as_ref());
        let (value, kind) = match given.ok_or("a constant without a value")? {
            Given::Word(word) => {
                let word = self
                    .policy
                    .words
                    .get(*word as usize)
                    .ok_or_else(|| format!("there is no word {word}"))?;
                (Value::Text(Cow::Owned(word.clone())), Type::String)
            }
            Given::Int64Value(value) => (Value::Int(*value), Type::Int64),
            Given::DoubleValue(value) => (Value::Double(*value), Type::Double),
            Given::BoolValue(value) => (Value::Bool(*value), Type::Bool),
            Given::DurationNanos(nanos) => (Value::Duration(*nanos), Type::Duration),
            Given::TimestampNanos(nanos) => (Value::Time(Time::from_nanos(*nanos)), Type::Timestamp),
            Given::IpAddress(bytes) => (
                Value::Address(value::address(bytes).ok_or("an address must be 4 or 16 bytes long")?),
                Type::IpAddress,
            ),
        };
        Ok((Node::Constant(value), kind))
    }

    /// Numbers the pair when the map is an attribute and the key a constant, as nearly always.
    fn reference(&mut self, map: At, key: At) -> Option<u32> {
        let (Node::Attribute(slot), Node::Constant(Value::Text(key))) =
            (&self.result.nodes[map as usize], &self.result.nodes[key as usize])
        else {
            return None;
        };
        let pair = (*slot, Box::from(key.as_ref()));
        if let Some(&reference) = self.keys.get(&pair) {
            return Some(reference);
        }
        // Every evaluation has a place for each: beyond this, keys are kept like computed ones.
        if self.result.keys.len() == MAX_NUMBERED_KEYS {
            return None;
        }
        let reference = (self.names.len() + self.result.keys.len()) as u32;
        self.result.keys.push(pair.clone());
        self.keys.insert(pair, reference);
        Some(reference)
    }
}

/// RE2's syntax as far as the regex crate speaks it: all of it but `\C` and old-style `\pN` forms of a few classes.
pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX)
        .build()
        .map_err(|error| format!("regular expression {pattern:?}: {error}"))
}
