//! Runs expressions over one request and remembers what they read: the caller may keep the answer for requests in
//! which all of that is the same.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;

use meshwright_api::istio::mixer::v1::attributes::AttributeValue;

use crate::bag::{Bag, WrongType};
use crate::explanation::{Notes, Read, Verdict};
use crate::expression::{At, Node, Spelling};
use crate::functions;
use crate::names::Slot;
use crate::plain;
use crate::program::Program;
use crate::references::{Condition, References};
use crate::value::{Map, Type, Value};

/// Of text that an expression puts together, in bytes.
pub(crate) const MAX_TEXT: usize = 64 << 10;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// The request lacks an attribute, or a key of one.
    Absent(Slot),
    /// An adapter didn't put this out.
    NoOutput(u32),
    /// A function can't make its result from this argument.
    Unfit(&'static str),
    /// The request is wrong.
    Request(String),
}

impl From<WrongType> for Failure {
    fn from(WrongType(message): WrongType) -> Self {
        Failure::Request(message)
    }
}

/// One run over one request.
pub(crate) struct Evaluation<'v> {
    pub(crate) program: &'v Program,
    bag: &'v Bag<'v>,
    pub(crate) references: References,
    /// Text that was read before, by the number of its attribute or (attribute, key) pair: rules ask the same again and
    /// again. Nothing while an explanation is wanted, which names what each rule reads.
    found: Vec<Option<&'v str>>,
    /// The answer can't be kept: it depends on more than callers compare; see `Decision::uses`.
    pub(crate) single_use: bool,
    /// What adapters put out, by number.
    pub(crate) outputs: Vec<(u32, Value<'v>)>,
    /// For explanations only.
    pub(crate) notes: Option<Box<Notes>>,
}

impl<'v> Evaluation<'v> {
    pub(crate) fn new(program: &'v Program, bag: &'v Bag<'v>) -> Self {
        let count = program.names.len() + program.expressions.keys.len();
        let (references, single_use) = match bag.generated() {
            Some(generated) => (generated.references.clone(), generated.single_use),
            None => (References::new(count), false),
        };
        Evaluation {
            program,
            bag,
            references,
            found: vec![None; count],
            single_use,
            outputs: Vec::new(),
            notes: bag.is_explained().then(Box::default),
        }
    }

    /// Goes on with what an earlier evaluation over the same request has read.
    pub(crate) fn resumed(
        program: &'v Program,
        bag: &'v Bag<'v>,
        references: References,
        single_use: bool,
        notes: Option<Box<Notes>>,
    ) -> Self {
        Evaluation {
            program,
            bag,
            references,
            found: vec![None; program.names.len() + program.expressions.keys.len()],
            single_use,
            outputs: Vec::new(),
            notes,
        }
    }

    /// The reply's values of the outputs that `numbers` names, where they have the type that the policy counts on.
    pub(crate) fn put_out(&mut self, numbers: &[u32], outputs: &'v HashMap<String, AttributeValue>) {
        for &number in numbers {
            let (field, kind) = &self.program.expressions.outputs[number as usize];
            if let Some(value) = outputs.get(&**field).and_then(plain::read)
                && value.is(*kind)
            {
                self.outputs.push((number, value));
            }
        }
    }

    /// The value of an attribute.
    pub(crate) fn attribute(&mut self, slot: Slot) -> Result<Option<Value<'v>>, WrongType> {
        if let Some(text) = self.found[slot as usize] {
            return Ok(Some(Value::text(text)));
        }
        let value = self.bag.get(slot)?;
        match &value {
            _ if self.notes.is_some() => self.note(slot, None, value.as_ref().map(ToString::to_string)),
            Some(Value::Text(Cow::Borrowed(text))) => self.found[slot as usize] = Some(*text),
            _ => {}
        }
        // What generators made is a function of what they read, which is referred to.
        if !self.bag.is_generated(slot) {
            let condition = if value.is_some() {
                Condition::Exact
            } else {
                Condition::Absence
            };
            self.references.set(slot, condition);
            // Callers compare maps by single keys only.
            if self.program.names.kind(slot) == Type::StringMap {
                self.single_use = true;
            }
        }
        Ok(value)
    }

    pub(crate) fn begin_rule(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.begin();
        }
    }

    pub(crate) fn end_rule(&mut self, rule: &str, dry_run: bool, verdict: Verdict) {
        if let Some(notes) = &mut self.notes {
            notes.end(rule, dry_run, verdict);
        }
    }

    #[cold]
    fn note(&mut self, slot: Slot, key: Option<&str>, value: Option<String>) {
        let is_generated = self.bag.is_generated(slot);
        if let Some(notes) = &mut self.notes {
            notes.read(Read {
                attribute: self.program.names.name(slot).to_owned(),
                key: key.map(str::to_owned),
                value,
                is_generated,
            });
        }
    }

    pub(crate) fn is_explained(&self) -> bool {
        self.notes.is_some()
    }

    /// Why a rule's condition holds or doesn't.
    pub(crate) fn verdict(&mut self, node: At) -> Result<Verdict, String> {
        let program = self.program;
        if let Node::And(left, right) = &program.expressions.nodes[node as usize] {
            return match self.verdict(*left)? {
                Verdict::Matched => self.verdict(*right),
                verdict => Ok(verdict),
            };
        }
        match self.truth(node) {
            Ok(true) => Ok(Verdict::Matched),
            Ok(false) => Ok(Verdict::False(program.expressions.text(node, &program.names))),
            Err(Failure::Request(message)) => Err(message),
            Err(failure) => Ok(Verdict::Unknown(self.explain(failure))),
        }
    }

    /// Whether a rule's condition holds. One that can't be told doesn't.
    pub(crate) fn holds(&mut self, node: Option<At>) -> Result<bool, String> {
        match node.map_or(Ok(true), |node| self.truth(node)) {
            Ok(truth) => Ok(truth),
            Err(Failure::Request(message)) => Err(message),
            Err(_) => Ok(false),
        }
    }

    /// What to tell about a failure.
    pub(crate) fn explain(&self, failure: Failure) -> String {
        match failure {
            Failure::Absent(slot) => format!(
                "attribute {} or the key asked of it is absent",
                self.program.names.name(slot)
            ),
            Failure::NoOutput(number) => {
                format!(
                    "the adapter put out no {}",
                    self.program.expressions.outputs[number as usize].0
                )
            }
            Failure::Unfit(reason) => reason.to_owned(),
            Failure::Request(message) => message,
        }
    }

    /// Without a `Value` in between for what most rules begin with: it decides whether the rest is looked at.
    pub(crate) fn truth(&mut self, node: At) -> Result<bool, Failure> {
        let program = self.program;
        match &program.expressions.nodes[node as usize] {
            Node::And(left, right) => Ok(self.truth(*left)? && self.truth(*right)?),
            Node::Or(left, right) => Ok(self.truth(*left)? || self.truth(*right)?),
            Node::Not(inner) => Ok(!self.truth(*inner)?),
            Node::Equal {
                left,
                right,
                spelling,
                negated,
            } => Ok(self.equals(*left, *right, *spelling)? != *negated),
            _ => match self.value(node)? {
                Value::Bool(truth) => Ok(truth),
                _ => Err(Failure::Unfit("not a bool")),
            },
        }
    }

    fn equals(&mut self, left: At, right: At, spelling: Spelling) -> Result<bool, Failure> {
        if let (Spelling::Exact, Some(left), Some(right)) = (spelling, self.known(left), self.known(right)) {
            return Ok(left == right);
        }
        let (left, right) = (self.value(left)?, self.value(right)?);
        Ok(equal(&left, &right, spelling))
    }

    /// Text that is there without reading anything anew.
    fn known(&self, node: At) -> Option<&'v str> {
        let program = self.program;
        match &program.expressions.nodes[node as usize] {
            Node::Constant(Value::Text(text)) => Some(text),
            Node::Attribute(slot) => self.found[*slot as usize],
            Node::Index {
                reference: Some(reference),
                ..
            } => self.found[*reference as usize],
            Node::Default(left, _) => self.known(*left),
            _ => None,
        }
    }

    pub(crate) fn text(&mut self, node: At) -> Result<Cow<'v, str>, Failure> {
        match self.value(node)? {
            Value::Text(text) => Ok(text),
            _ => Err(Failure::Unfit("not a string")),
        }
    }

    pub(crate) fn value(&mut self, node: At) -> Result<Value<'v>, Failure> {
        let program = self.program;
        Ok(match &program.expressions.nodes[node as usize] {
            Node::Constant(value) => borrowed(value),
            Node::Attribute(slot) => self.attribute(*slot)?.ok_or(Failure::Absent(*slot))?,
            Node::Index { map, key, reference } => Value::text(self.index(*map, *key, *reference)?),
            Node::Equal { .. } | Node::And(..) | Node::Or(..) | Node::Not(_) => Value::Bool(self.truth(node)?),
            Node::Compare {
                left, right, accept, ..
            } => {
                let (left, right) = (self.value(*left)?, self.value(*right)?);
                Value::Bool(compare(&left, &right).is_some_and(accept))
            }
            Node::Default(left, right) => match self.value(*left) {
                Err(Failure::Absent(_) | Failure::NoOutput(_)) => self.value(*right)?,
                result => result?,
            },
            Node::Add(left, right) => add(self.value(*left)?, self.value(*right)?)?,
            Node::Conditional(condition, yes, no) => {
                let chosen = if self.truth(*condition)? { *yes } else { *no };
                self.value(chosen)?
            }
            Node::Size(text) => Value::Int(i64::try_from(self.text(*text)?.len()).unwrap_or(i64::MAX)),
            Node::Glob(text, pattern) => Value::Bool(functions::glob(&self.text(*text)?, &self.text(*pattern)?)),
            Node::Matches(regex, text) => Value::Bool(regex.is_match(&self.text(*text)?)),
            Node::StartsWith(text, part) => Value::Bool(self.text(*text)?.starts_with(&*self.text(*part)?)),
            Node::EndsWith(text, part) => Value::Bool(self.text(*text)?.ends_with(&*self.text(*part)?)),
            Node::Ip(text) => {
                let address = IpAddr::from_str(&self.text(*text)?).map_err(|_| Failure::Unfit("not an IP address"))?;
                Value::Address(address.to_canonical())
            }
            Node::Timestamp(text) => {
                Value::Time(functions::timestamp(&self.text(*text)?).ok_or(Failure::Unfit("not a time in RFC 3339"))?)
            }
            Node::DnsName(text) => self.checked(*text, functions::is_dns_name, "not a DNS name")?,
            Node::Email(text) => self.checked(*text, functions::is_email, "not an e-mail address")?,
            Node::Uri(text) => self.checked(*text, functions::is_uri, "not a URI")?,
            Node::ToLower(text) => Value::Text(match self.text(*text)? {
                Cow::Borrowed(text) => functions::lower(text),
                Cow::Owned(text) => Cow::Owned(text.to_lowercase()),
            }),
            Node::EmptyMap => Value::Map(Map::Empty),
            Node::Cel(operation) => self.cel(operation)?,
            Node::Output(number) => self.output(*number)?,
        })
    }

    fn output(&self, number: u32) -> Result<Value<'v>, Failure> {
        let found = self.outputs.iter().rev().find(|(known, _)| *known == number);
        found.map(|(_, value)| value.clone()).ok_or(Failure::NoOutput(number))
    }

    fn checked(&mut self, text: At, is_fit: fn(&str) -> bool, reason: &'static str) -> Result<Value<'v>, Failure> {
        let text = self.text(text)?;
        if is_fit(&text) {
            Ok(Value::Text(text))
        } else {
            Err(Failure::Unfit(reason))
        }
    }

    fn index(&mut self, map: At, key: At, reference: Option<u32>) -> Result<&'v str, Failure> {
        if let Some(reference) = reference
            && let Some(found) = self.found[reference as usize]
        {
            return Ok(found);
        }
        let (slot, entries) = self.map(map)?;
        let key = self.text(key)?;
        let value = entries.get(&key);
        if let (Some(slot), true) = (slot, self.notes.is_some()) {
            self.note(slot, Some(&key), value.map(str::to_owned));
        }
        // A map that no request holds (emptyStringMap(), a generator's) leaves nothing to refer to.
        if let Some(slot) = slot.filter(|slot| !self.bag.is_generated(*slot)) {
            let condition = if value.is_some() {
                Condition::Exact
            } else {
                Condition::Absence
            };
            match reference {
                Some(reference) => {
                    self.references.set(reference, condition);
                    if self.notes.is_none() {
                        self.found[reference as usize] = value;
                    }
                }
                None => self.references.set_key(slot, &key, condition),
            }
        }
        value.ok_or(Failure::Absent(slot.unwrap_or_default()))
    }

    /// A map and the attribute that holds it. A map that is there is referred to by its keys, never as a whole.
    fn map(&mut self, node: At) -> Result<(Option<Slot>, Map<'v>), Failure> {
        let program = self.program;
        match &program.expressions.nodes[node as usize] {
            Node::Attribute(slot) => match self.bag.get(*slot)? {
                Some(Value::Map(map)) => Ok((Some(*slot), map)),
                _ => {
                    if self.notes.is_some() {
                        self.note(*slot, None, None);
                    }
                    // Callers would mistake a later request that has the map for this one.
                    self.references.set(*slot, Condition::Absence);
                    self.single_use = true;
                    Err(Failure::Absent(*slot))
                }
            },
            Node::Output(number) => match self.output(*number)? {
                Value::Map(map) => Ok((None, map)),
                _ => Err(Failure::NoOutput(*number)),
            },
            Node::Default(left, right) => match self.map(*left) {
                Err(Failure::Absent(_) | Failure::NoOutput(_)) => self.map(*right),
                result => result,
            },
            Node::Conditional(condition, yes, no) => {
                let chosen = if self.truth(*condition)? { *yes } else { *no };
                self.map(chosen)
            }
            _ => Ok((None, Map::Empty)),
        }
    }
}

/// The same value without a copy of its text.
fn borrowed<'v>(value: &'v Value<'static>) -> Value<'v> {
    match value {
        Value::Text(text) => Value::text(text),
        other => other.clone(),
    }
}

fn equal(left: &Value<'_>, right: &Value<'_>, spelling: Spelling) -> bool {
    match (left, right) {
        (Value::Text(a), Value::Text(b)) => match spelling {
            Spelling::Exact => a == b,
            Spelling::DnsName => functions::normal_dns_name(a) == functions::normal_dns_name(b),
            Spelling::Email => functions::normal_email(a) == functions::normal_email(b),
            Spelling::Uri => functions::normal_uri(a) == functions::normal_uri(b),
        },
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Address(a), Value::Address(b)) => a == b,
        _ => compare(left, right) == Some(Ordering::Equal),
    }
}

fn compare(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn add<'v>(left: Value<'v>, right: Value<'v>) -> Result<Value<'v>, Failure> {
    Ok(match (left, right) {
        (Value::Text(a), Value::Text(b)) if a.len() + b.len() > MAX_TEXT => {
            return Err(Failure::Unfit("text too long to add"));
        }
        (Value::Text(a), Value::Text(b)) => Value::Text(Cow::Owned(a.into_owned() + &b)),
        (Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_add(b)),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.wrapping_add(b)),
        _ => return Err(Failure::Unfit("values that can't be added")),
    })
}
