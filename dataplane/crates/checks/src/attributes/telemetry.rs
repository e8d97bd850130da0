//! Reads what OpenTelemetry says of a resource, a span or a log record, in wire form.

use std::borrow::Cow;
use std::collections::HashMap;

use meshwright_policy::wire::{Field, Fields};
use meshwright_policy::{Attributes, Time, Value};

use super::table::{self, Otlp};
use super::{given, namespace, plain, service_account};

/// Names of attributes that a sender may use as they are.
const OWN: [&str; 4] = ["source.", "destination.", "request.", "response."];
const LABELS: &str = "k8s.pod.label.";
/// Lists within lists are cut here.
const MAX_DEPTH: usize = 8;

/// Attributes by key, as text.
#[derive(Debug, Default, Clone)]
pub(crate) struct Texts<'a>(HashMap<&'a str, Cow<'a, str>>);

impl<'a> Texts<'a> {
    /// Adds KeyValues; a key that is there already is replaced.
    pub(crate) fn add(&mut self, pairs: impl Iterator<Item = &'a [u8]>) {
        for pair in pairs {
            let (mut key, mut value) = ("", None);
            for field in Fields(pair).filter_map(Result::ok) {
                match field {
                    (1, field) => key = field.text().unwrap_or_default(),
                    (2, Field::Bytes(any)) => value = text(any, 0),
                    _ => {}
                }
            }
            if let Some(value) = value {
                self.0.insert(key, value);
            }
        }
    }

    /// What they are by the table, with who sent them.
    pub(crate) fn attributes(&self, signal: &str, sender: Option<&str>) -> Attributes {
        let mut attributes = Attributes::new();
        for (key, text) in &self.0 {
            if OWN.iter().any(|prefix| key.starts_with(prefix))
                && let Some(value) = given::value(text, table::kind(key))
            {
                plain::set(&mut attributes, key, value);
            }
        }
        for row in table::ROWS {
            if let Otlp::Key(keys) = &row.otlp
                && let Some(text) = keys.iter().find_map(|key| self.0.get(key))
                && let Some(value) = given::value(text, row.kind)
            {
                plain::set(&mut attributes, row.name, value);
            }
        }
        let labels = self.0.iter().filter_map(|(key, text)| {
            let label = key.strip_prefix(LABELS)?;
            Some((label.to_owned(), text.clone().into_owned()))
        });
        let labels: HashMap<String, String> = labels.collect();
        if !labels.is_empty() {
            plain::set_map(&mut attributes, "source.labels", labels);
        }
        let all = self.0.iter();
        let all = all.map(|(key, text)| ((*key).to_owned(), text.clone().into_owned()));
        plain::set_map(&mut attributes, "otlp.attributes", all.collect());
        let mut set = |name: &str, text: &str| plain::set(&mut attributes, name, Value::text(text));
        set("otlp.signal", signal);
        set("context.protocol", "otlp");
        set("context.reporter.kind", "outbound");
        identity(&mut attributes, sender);
        attributes
    }
}

/// Whatever the sender says of itself, it is who its certificate says.
fn identity(attributes: &mut Attributes, sender: Option<&str>) {
    for name in [
        "source.principal",
        "source.user",
        "source.namespace",
        "source.serviceAccount",
    ] {
        attributes.remove(name);
    }
    let Some(sender) = sender else { return };
    let parts = [
        ("source.principal", Some(sender)),
        ("source.user", Some(sender)),
        ("source.namespace", namespace(sender)),
        ("source.serviceAccount", service_account(sender)),
    ];
    for (name, part) in parts {
        if let Some(text) = part {
            plain::set(attributes, name, Value::text(text));
        }
    }
}

/// Adds what a span says of itself.
pub(crate) fn span(attributes: &mut Attributes, span: &[u8]) {
    let (mut start, mut end) = (0, 0);
    for field in Fields(span).filter_map(Result::ok) {
        match field {
            (1, Field::Bytes(id)) => hexadecimal(attributes, "meshwright.trace.id", id, 16),
            (2, Field::Bytes(id)) => hexadecimal(attributes, "meshwright.span.id", id, 8),
            (5, field) => said(attributes, "otlp.name", field),
            (7, Field::Fixed64(nanos)) => start = nanos,
            (8, Field::Fixed64(nanos)) => end = nanos,
            _ => {}
        }
    }
    plain::set(attributes, "otlp.item", Value::text("span"));
    moment(attributes, start);
    if start > 0 && end >= start {
        let nanos = i64::try_from(end - start).unwrap_or(i64::MAX);
        plain::set(attributes, "response.duration", Value::Duration(nanos));
    }
}

/// Adds what a log record says of itself.
pub(crate) fn log(attributes: &mut Attributes, record: &[u8]) {
    let (mut time, mut observed) = (0, 0);
    for field in Fields(record).filter_map(Result::ok) {
        match field {
            (1, Field::Fixed64(nanos)) => time = nanos,
            (3, field) => said(attributes, "otlp.severity", field),
            (5, Field::Bytes(body)) => {
                if let Some(body) = text(body, 0) {
                    plain::set(attributes, "otlp.body", Value::Text(body));
                }
            }
            (9, Field::Bytes(id)) => hexadecimal(attributes, "meshwright.trace.id", id, 16),
            (10, Field::Bytes(id)) => hexadecimal(attributes, "meshwright.span.id", id, 8),
            (11, Field::Fixed64(nanos)) => observed = nanos,
            (12, field) => said(attributes, "otlp.name", field),
            _ => {}
        }
    }
    plain::set(attributes, "otlp.item", Value::text("log"));
    moment(attributes, if time > 0 { time } else { observed });
}

/// The KeyValues of an item.
pub(crate) fn pairs(item: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields(item)
        .filter_map(Result::ok)
        .filter_map(move |field| match field {
            (at, Field::Bytes(pair)) if at == number => Some(pair),
            _ => None,
        })
}

fn said(attributes: &mut Attributes, name: &str, field: Field<'_>) {
    if let Ok(text) = field.text()
        && !text.is_empty()
    {
        plain::set(attributes, name, Value::text(text));
    }
}

fn hexadecimal(attributes: &mut Attributes, name: &str, id: &[u8], length: usize) {
    if id.len() == length && id.iter().any(|byte| *byte != 0) {
        let text: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        plain::set(attributes, name, Value::Text(text.into()));
    }
}

fn moment(attributes: &mut Attributes, nanos: u64) {
    if let Ok(nanos) = i64::try_from(nanos)
        && nanos > 0
    {
        for name in ["request.time", "context.time"] {
            plain::set(attributes, name, Value::Time(Time::from_nanos(nanos)));
        }
    }
}

/// An AnyValue as text: numbers and bools as JSON has them, lists with commas; nothing for maps and bytes.
fn text(any: &[u8], depth: usize) -> Option<Cow<'_, str>> {
    // The last of a oneof counts.
    match Fields(any).filter_map(Result::ok).last()? {
        (1, field) => field.text().ok().map(Cow::Borrowed),
        (2, Field::Varint(value)) => Some(Cow::Borrowed(if value == 0 { "false" } else { "true" })),
        (3, Field::Varint(value)) => Some(Cow::Owned((value as i64).to_string())),
        (4, Field::Fixed64(bits)) => Some(Cow::Owned(f64::from_bits(bits).to_string())),
        (5, Field::Bytes(list)) if depth < MAX_DEPTH => {
            let parts: Vec<_> = pairs(list, 1).filter_map(|value| text(value, depth + 1)).collect();
            (!parts.is_empty()).then(|| Cow::Owned(parts.join(",")))
        }
        _ => None,
    }
}
