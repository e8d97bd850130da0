//! What report rules make of reported attributes, and attributes in full for whoever wants them by name. Rules are
//! evaluated twice at the most: before a report is stored only whether any rule wants it, behind the queue the rest.

use std::collections::HashMap;
use std::sync::Arc;

use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::policy::v1::handler::sink::Native;
use mixer::attributes::attribute_value::Value as Wire;
use mixer::attributes::{AttributeValue, StringMap};

use crate::bag::{Bag, Words};
use crate::dictionary;
use crate::error::BadRequest;
use crate::evaluate::{Evaluation, Failure};
use crate::expression::At;
use crate::handler::Built;
use crate::names::Names;
use crate::plain;
use crate::program::Program;
use crate::question::Variety;
use crate::value::{Map, Value};

/// Attributes by name, decoded.
pub type Attributes = HashMap<String, AttributeValue>;

/// What became of the instances of one report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// Left out because the report lacks something they need.
    pub failed: usize,
    /// Left out because sampling didn't pick the report, or because their rule is only tried (dry run).
    pub withheld: usize,
}

/// A handler of reports.
#[derive(Debug, Clone, Copy)]
pub struct ReportHandler<'a> {
    /// name.namespace
    pub name: &'a str,
    /// The adapter's name.
    pub sink: &'a str,
    /// What Rust needs to run the adapter; None: Python does.
    pub native: Option<&'a Native>,
}

/// An instance for report handlers.
#[derive(Debug, Clone, Copy)]
pub struct ReportInstance<'a> {
    /// name.namespace
    pub name: &'a str,
    /// logentry, metric, …
    pub template: &'a str,
    fields: &'a [(Arc<str>, At)],
}

impl<'a> ReportInstance<'a> {
    /// Names of its fields, in order: the same in which their values come.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        self.fields.iter().map(|(name, _)| &**name)
    }
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
    let default_words = Dictionary::new(request.default_words.iter().map(String::as_str).collect());
    let mut left = MAX_EXPANDED;
    for element in &request.attributes {
        let own_words = own_words(element);
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

/// All attributes of one element; `shared` are the words of one that has none. What is larger than `limit` is refused.
pub(crate) fn expand_one(
    element: &mixer::CompressedAttributes,
    shared: &Dictionary<'_>,
    limit: usize,
) -> Result<Attributes, BadRequest> {
    let own = own_words(element);
    let mut expansion = Expansion {
        words: own.as_ref().unwrap_or(shared),
        is_strict: false,
        size: 0,
        left: limit,
    };
    expansion.attributes(element)
}

fn own_words(element: &mixer::CompressedAttributes) -> Option<Dictionary<'_>> {
    let has_words = !element.words.is_empty();
    has_words.then(|| Dictionary::new(element.words.iter().map(String::as_str).collect()))
}

/// Words of a message, for writing its attributes out.
#[derive(Debug)]
pub struct Dictionary<'a> {
    words: Words<'a>,
    /// Global indices that are dead because the message has the same word, as in checks.
    hidden: Vec<bool>,
}

impl<'a> Dictionary<'a> {
    pub(crate) fn new(words: Vec<&'a str>) -> Self {
        let mut hidden = vec![false; dictionary::WORDS.len()];
        for index in words.iter().filter_map(|word| dictionary::index(word)) {
            hidden[index as usize] = true;
        }
        Dictionary {
            words: Words::new(words),
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
        for (name, message) in attributes {
            match (plain::read(message), &message.value) {
                (Some(value), _) => bag.set(name, value),
                // Other bytes than addresses are nothing that a policy can read.
                (None, Some(Wire::BytesValue(bytes))) if names.slot(name).is_some() => {
                    return Err(BadRequest::Invalid(format!(
                        "attribute {name} must be 4 or 16 bytes, not {}",
                        bytes.len()
                    )));
                }
                (None, _) => {}
            }
        }
        Ok(bag)
    }
}

impl Program {
    /// Whether a report may be wanted at all.
    pub fn takes_reports(&self) -> bool {
        self.has_reports || !self.drops_unmatched_reports
    }

    /// Whether adapters add attributes to a request before rules are tried.
    pub fn has_generators(&self) -> bool {
        self.has_generators
    }

    /// Whether a rule may want this report, or the policy keeps those that none wants. Evaluates conditions only; where
    /// they may read what generators make, every report is wanted.
    pub fn wants(&self, bag: &Bag<'_>) -> Result<bool, BadRequest> {
        if !self.takes_reports() {
            return Ok(false);
        }
        let mut evaluation = Evaluation::new(self, bag);
        let rules = self
            .scopes
            .matching(&mut evaluation, |scope| &scope.report)
            .map_err(BadRequest::Invalid)?;
        let is_wanted = rules.iter().any(|rule| !self.rules[*rule as usize].dry_run);
        Ok(is_wanted || self.has_generators || !self.drops_unmatched_reports)
    }

    /// Gives (handler, instance, values in the order of the instance's fields) of what rules make of a report, in rule
    /// order. `now` in nanoseconds of a clock that never goes back.
    pub fn evaluate_report<'v>(
        &'v self,
        bag: &'v Bag<'v>,
        now: u64,
        mut give: impl FnMut(u32, u32, &[Value<'v>]),
    ) -> Result<Evaluated, BadRequest> {
        let mut evaluation = Evaluation::new(self, bag);
        let rules = self
            .scopes
            .matching(&mut evaluation, |scope| &scope.report)
            .map_err(BadRequest::Invalid)?;
        let (mut evaluated, mut values) = (Evaluated::default(), Vec::new());
        for rule in rules {
            let rule = &self.rules[rule as usize];
            let is_picked = rule.picks(&mut evaluation, now)?;
            for action in &rule.actions {
                let instance = &self.instances[action.instance as usize];
                let adapter = &self.handlers[action.handler as usize].adapter;
                if adapter.sink().is_none() || instance.subject.variety != Variety::Report {
                    continue;
                }
                if !is_picked || rule.dry_run {
                    evaluated.withheld += 1;
                    continue;
                }
                values.clear();
                let complete = instance.fields.iter().try_for_each(|(_, node)| {
                    values.push(evaluation.value(*node)?);
                    Ok::<_, Failure>(())
                });
                match complete {
                    Ok(()) => give(action.handler, action.instance, &values),
                    Err(_) => evaluated.failed += 1,
                }
            }
        }
        Ok(evaluated)
    }

    /// The headers of the request that a report tells of.
    pub fn request_headers<'v>(&self, bag: &'v Bag<'v>) -> Option<Map<'v>> {
        match bag.get(self.headers) {
            Ok(Some(Value::Map(map))) => Some(map),
            _ => None,
        }
    }

    /// Whether a report says that its request was decided by the client's own cache (Mixer's `check.cache_hit`).
    pub fn is_cached_decision(&self, bag: &Bag<'_>) -> bool {
        matches!(bag.get(self.cache_hit), Ok(Some(Value::Bool(true))))
    }

    /// How many handlers there are, of reports and others.
    pub fn handler_count(&self) -> usize {
        self.handlers.len()
    }

    /// A handler by its number; None when it takes no reports.
    pub fn report_handler(&self, handler: u32) -> Option<ReportHandler<'_>> {
        let handler = self.handlers.get(handler as usize)?;
        Some(ReportHandler {
            name: &handler.name,
            sink: handler.adapter.sink()?,
            native: match &handler.adapter {
                Built::Sink(sink) => sink.native.as_ref(),
                _ => None,
            },
        })
    }

    /// An instance by its number; None when it isn't for reports.
    pub fn report_instance(&self, instance: u32) -> Option<ReportInstance<'_>> {
        let instance = self.instances.get(instance as usize)?;
        (instance.subject.variety == Variety::Report).then(|| ReportInstance {
            name: instance.name(),
            template: &instance.subject.template,
            fields: &instance.fields,
        })
    }
}

/// A value as messages hold it.
pub fn attribute_value(value: &Value<'_>) -> AttributeValue {
    plain::write(value.clone())
}
