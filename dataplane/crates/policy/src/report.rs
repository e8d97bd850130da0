//! Reports: attributes in full, and what report rules make of them. Adapters in Python read them long after the
//! request, so everything is copied out of the caller's dictionary.

use std::collections::HashMap;
use std::net::IpAddr;

use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::mixer::v1::Emission;
use mixer::attributes::attribute_value::Value as Wire;
use mixer::attributes::{AttributeValue, StringMap};

use crate::bag::{Bag, Words};
use crate::dictionary;
use crate::error::BadRequest;
use crate::evaluate::{Evaluation, Failure};
use crate::names::Names;
use crate::program::{Built, Program, Shape};
use crate::value::{self, Map, Time, Value};

/// Attributes by name, decoded.
pub type Attributes = HashMap<String, AttributeValue>;

/// What rules made of one report.
#[derive(Debug, Default)]
pub struct Emissions {
    /// Instances for adapters, in rule order.
    pub emissions: Vec<Emission>,
    /// Instances left out because the report lacks something they need.
    pub failed: usize,
}

/// What all elements of one report may expand to: words are sent once and copied wherever they are used, so that a
/// small message could fill the memory.
const MAX_EXPANDED: usize = 32 << 20;

/// The attribute sets of one ReportRequest; an error stands for an element that can't be read, the last one possibly
/// for all that would follow.
pub fn expand(request: &mixer::ReportRequest) -> Vec<Result<Attributes, BadRequest>> {
    use mixer::report_request::RepeatedAttributesSemantics::DeltaEncoding;
    let is_delta = request.repeated_attributes_semantics == i32::from(DeltaEncoding);
    let mut results = Vec::with_capacity(request.attributes.len());
    let (mut before, mut size_before) = (Attributes::default(), 0);
    let default_words = Dictionary::new(&request.default_words);
    let mut left = MAX_EXPANDED;
    for element in &request.attributes {
        let own_words = (!element.words.is_empty()).then(|| Dictionary::new(&element.words));
        let mut expansion = Expansion {
            words: own_words.as_ref().unwrap_or(&default_words),
            is_strict: is_delta,
            size: 0,
            left,
        };
        let expanded = expansion.attributes(element);
        left = left.saturating_sub(expansion.size);
        if let (true, Ok(changes)) = (is_delta, &expanded) {
            size_before += expansion.size;
            left = left.saturating_sub(size_before);
            if left > 0 {
                before.extend(changes.clone());
                results.push(Ok(before.clone()));
            }
        } else {
            results.push(expanded);
        }
        if left == 0 {
            let reason = format!("the report expands to more than {MAX_EXPANDED} bytes; send fewer elements at a time");
            results.push(Err(BadRequest::Invalid(reason)));
            break;
        }
    }
    results
}

/// Words of a message for many lookups.
struct Dictionary<'a> {
    words: Words<'a>,
    /// Global indices that are dead because the message has the same word, as in checks.
    hidden: Vec<bool>,
}

impl<'a> Dictionary<'a> {
    fn new(words: &'a [String]) -> Self {
        let mut hidden = vec![false; dictionary::WORDS.len()];
        for index in words.iter().filter_map(|word| dictionary::index(word)) {
            hidden[index as usize] = true;
        }
        Dictionary {
            words: Words::new(words.iter().map(String::as_str).collect()),
            hidden,
        }
    }
}

struct Expansion<'a> {
    words: &'a Dictionary<'a>,
    /// An index without a word is an error, else it is skipped.
    is_strict: bool,
    size: usize,
    left: usize,
}

impl<'a> Expansion<'a> {
    fn word(&mut self, index: i32) -> Result<Option<&'a str>, BadRequest> {
        let word = self.words.words.word(index);
        // A share for the map's own memory.
        self.size += word.map_or(0, str::len) + 64;
        match word {
            None if self.is_strict => Err(BadRequest::Invalid(format!(
                "attribute index {index} isn't in the dictionary"
            ))),
            _ if self.size > self.left => Err(BadRequest::Invalid("too large when expanded".into())),
            word => Ok(word),
        }
    }

    fn attributes(&mut self, message: &mixer::CompressedAttributes) -> Result<Attributes, BadRequest> {
        let mut result = Attributes::default();
        for (&index, &value) in &message.strings {
            if let Some(word) = self.word(value)? {
                self.add(&mut result, index, Wire::StringValue(word.to_owned()))?;
            }
        }
        let r = &mut result;
        message
            .int64s
            .iter()
            .try_for_each(|(&index, &value)| self.add(r, index, Wire::Int64Value(value)))?;
        message
            .doubles
            .iter()
            .try_for_each(|(&index, &value)| self.add(r, index, Wire::DoubleValue(value)))?;
        message
            .bools
            .iter()
            .try_for_each(|(&index, &value)| self.add(r, index, Wire::BoolValue(value)))?;
        message
            .timestamps
            .iter()
            .try_for_each(|(&index, &value)| self.add(r, index, Wire::TimestampValue(value)))?;
        message
            .durations
            .iter()
            .try_for_each(|(&index, &value)| self.add(r, index, Wire::DurationValue(value)))?;
        message
            .bytes
            .iter()
            .try_for_each(|(&index, value)| self.add(r, index, Wire::BytesValue(value.clone())))?;
        for (&index, map) in &message.string_maps {
            let mut entries = HashMap::with_capacity(map.entries.len());
            for (&key, &value) in &map.entries {
                if let (Some(key), Some(value)) = (self.word(key)?, self.word(value)?) {
                    entries.insert(key.to_owned(), value.to_owned());
                }
            }
            self.add(&mut result, index, Wire::StringMapValue(StringMap { entries }))?;
        }
        Ok(result)
    }

    fn add(&mut self, result: &mut Attributes, index: i32, value: Wire) -> Result<(), BadRequest> {
        if let Some(name) = self.word(index)?
            && (index < 0 || !self.words.hidden[index as usize])
        {
            result.insert(name.to_owned(), AttributeValue { value: Some(value) });
        }
        Ok(())
    }
}

impl<'a> Bag<'a> {
    /// From decoded attributes; an IP address of a wrong length is an error.
    pub fn plain(names: &'a Names, attributes: &'a Attributes) -> Result<Self, BadRequest> {
        let mut bag = Bag::new(names);
        for (name, value) in attributes {
            let Some(value) = &value.value else { continue };
            let value = match value {
                Wire::StringValue(text) => Value::text(text),
                Wire::Int64Value(value) => Value::Int(*value),
                Wire::DoubleValue(value) => Value::Double(*value),
                Wire::BoolValue(value) => Value::Bool(*value),
                // Other bytes than addresses are nothing that a policy can read.
                Wire::BytesValue(bytes) if names.slot(name).is_none() && value::address(bytes).is_none() => continue,
                Wire::BytesValue(bytes) => Value::Address(value::address(bytes).ok_or_else(|| {
                    BadRequest::Invalid(format!("attribute {name} must be 4 or 16 bytes, not {}", bytes.len()))
                })?),
                Wire::TimestampValue(time) => Value::Time(Time::new(time.seconds, time.nanos)),
                Wire::DurationValue(duration) => {
                    Value::Duration(value::duration_nanos(duration.seconds, duration.nanos))
                }
                Wire::StringMapValue(map) => Value::Map(Map::Entries(&map.entries)),
            };
            bag.set(name, value);
        }
        Ok(bag)
    }
}

impl Program {
    /// What report rules make of a report; None: no rule wants it and the policy drops such reports.
    pub fn report(&self, attributes: &Attributes) -> Result<Option<Emissions>, BadRequest> {
        if !self.has_report_rules() {
            return Ok((!self.drops_unmatched_reports).then(Emissions::default));
        }
        let bag = Bag::plain(&self.names, attributes)?;
        let mut evaluation = Evaluation::new(self, &bag);
        let rules = self
            .scopes
            .matching(&mut evaluation, |scope| &scope.report)
            .map_err(BadRequest::Invalid)?;
        let mut result = Emissions::default();
        let mut is_wanted = false;
        for &(handler, instance) in rules.iter().flat_map(|rule| &self.rules[*rule as usize].actions) {
            let (handler, instance) = (&self.handlers[handler as usize], &self.instances[instance as usize]);
            let (Built::Sink(sink), Shape::Report { template, fields }) = (&handler.adapter, &instance.template) else {
                continue;
            };
            is_wanted = true;
            let values = fields
                .iter()
                .map(|(name, node)| Ok((name.clone(), wire(evaluation.value(*node)?))));
            match values.collect::<Result<_, Failure>>() {
                Ok(fields) => result.emissions.push(Emission {
                    sink: sink.clone(),
                    handler: handler.name.clone(),
                    instance: instance.name.clone(),
                    template: template.clone(),
                    fields,
                }),
                Err(_) => result.failed += 1,
            }
        }
        Ok((is_wanted || !self.drops_unmatched_reports).then_some(result))
    }

    fn has_report_rules(&self) -> bool {
        !self.scopes.global.report.is_empty() || self.scopes.namespaces.values().any(|scope| !scope.report.is_empty())
    }
}

fn wire(value: Value<'_>) -> AttributeValue {
    let value = match value {
        Value::Text(text) => Wire::StringValue(text.into_owned()),
        Value::Int(value) => Wire::Int64Value(value),
        Value::Double(value) => Wire::DoubleValue(value),
        Value::Bool(value) => Wire::BoolValue(value),
        Value::Time(time) => Wire::TimestampValue(prost_types::Timestamp {
            seconds: time.seconds,
            nanos: time.nanos as i32,
        }),
        Value::Duration(nanos) => Wire::DurationValue(prost_types::Duration {
            seconds: nanos / 1_000_000_000,
            nanos: (nanos % 1_000_000_000) as i32,
        }),
        Value::Address(IpAddr::V4(address)) => Wire::BytesValue(address.octets().to_vec().into()),
        Value::Address(IpAddr::V6(address)) => Wire::BytesValue(address.octets().to_vec().into()),
        Value::Map(map) => Wire::StringMapValue(StringMap {
            entries: match map {
                Map::Entries(entries) => entries.clone(),
                // Reports are decoded before they are evaluated; their maps are never in wire form.
                Map::Empty | Map::Wire(..) => HashMap::new(),
            },
        }),
    };
    AttributeValue { value: Some(value) }
}
