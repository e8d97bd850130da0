//! Everything that a request carries, whether or not a policy reads it: for people who look for attributes to build on.

use std::borrow::Cow;

use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value as Given;

use crate::bag::{Bag, Words};
use crate::error::BadRequest;
use crate::report::Attributes;
use crate::spelling;
use crate::value::{self, Map, Time, Value};
use crate::wire::{self, Field, Fields, Malformed};

/// One attribute, or one entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen<'a> {
    /// The attribute's name.
    pub name: &'a str,
    /// The entry of a map.
    pub key: Option<&'a str>,
    /// As `istio.policy.v1beta1.ValueType` names it.
    pub kind: &'static str,
    /// As text.
    pub value: Cow<'a, str>,
}

/// All of a CompressedAttributes message. Indices without a word are passed over.
pub(crate) fn compressed(bytes: &[u8]) -> Result<Vec<Seen<'_>>, BadRequest> {
    let mut message = Vec::new();
    for field in Fields(bytes) {
        if let (1, field) = field? {
            message.push(field.text()?);
        }
    }
    let words = Words::new(message);
    let mut seen = Vec::new();
    for field in Fields(bytes) {
        let (number, field) = field?;
        if !(2..=9).contains(&number) {
            continue;
        }
        let (key, value) = wire::entry(field.bytes()?)?;
        let Some(name) = words.word(key) else { continue };
        if number == 9 {
            for entry in Fields(value.map_or(Ok(&[][..]), Field::bytes)?) {
                if let (1, entry) = entry? {
                    let (key, value) = wire::entry(entry.bytes()?)?;
                    let value = words.word(value.map_or(Ok(0), |value| value.sint32())?);
                    if let (Some(key), Some(value)) = (words.word(key), value) {
                        seen.push(Seen {
                            name,
                            key: Some(key),
                            kind: "STRING_MAP",
                            value: Cow::Borrowed(value),
                        });
                    }
                }
            }
        } else if let Some((kind, value)) = scalar(&words, number, value)? {
            seen.push(Seen {
                name,
                key: None,
                kind,
                value,
            });
        }
    }
    Ok(seen)
}

fn scalar<'a>(
    words: &Words<'a>,
    number: u32,
    field: Option<Field<'a>>,
) -> Result<Option<(&'static str, Cow<'a, str>)>, Malformed> {
    let bytes = || field.map_or(Ok(&[][..]), Field::bytes);
    let integer = || field.map_or(Ok(0), Field::int64);
    let text = |value: Value<'_>| Cow::Owned(spelling::text(&value));
    Ok(Some(match number {
        2 => match words.word(field.map_or(Ok(0), Field::sint32)?) {
            Some(word) => ("STRING", Cow::Borrowed(word)),
            None => return Ok(None),
        },
        3 => ("INT64", text(Value::Int(integer()?))),
        4 => ("DOUBLE", text(Value::Double(field.map_or(Ok(0.0), Field::double)?))),
        5 => ("BOOL", text(Value::Bool(integer()? != 0))),
        6 => {
            let (seconds, nanos) = wire::seconds_and_nanos(bytes()?)?;
            ("TIMESTAMP", text(Value::Time(Time::new(seconds, nanos))))
        }
        7 => {
            let (seconds, nanos) = wire::seconds_and_nanos(bytes()?)?;
            ("DURATION", text(Value::Duration(value::duration_nanos(seconds, nanos))))
        }
        _ => octets(bytes()?),
    }))
}

fn octets(bytes: &[u8]) -> (&'static str, Cow<'static, str>) {
    match value::address(bytes) {
        Some(address) => ("IP_ADDRESS", Cow::Owned(address.to_string())),
        None => ("BYTES", Cow::Owned(format!("{} bytes", bytes.len()))),
    }
}

impl Bag<'_> {
    /// Everything that was set.
    pub fn seen(&self) -> Vec<Seen<'_>> {
        let mut seen = Vec::new();
        for (name, value) in self.given() {
            let kind = match value {
                Value::Text(_) => "STRING",
                Value::Int(_) => "INT64",
                Value::Double(_) => "DOUBLE",
                Value::Bool(_) => "BOOL",
                Value::Time(_) => "TIMESTAMP",
                Value::Duration(_) => "DURATION",
                Value::Address(_) => "IP_ADDRESS",
                Value::Map(Map::Entries(entries)) => {
                    seen.extend(entries.iter().map(|(key, value)| Seen {
                        name,
                        key: Some(key),
                        kind: "STRING_MAP",
                        value: Cow::Borrowed(value),
                    }));
                    continue;
                }
                Value::Map(_) => continue,
            };
            seen.push(Seen {
                name,
                key: None,
                kind,
                value: Cow::Owned(spelling::text(value)),
            });
        }
        seen
    }
}

/// All of decoded attributes.
pub fn seen(attributes: &Attributes) -> Vec<Seen<'_>> {
    let mut seen = Vec::with_capacity(attributes.len());
    for (name, value) in attributes {
        let text = |value: Value<'_>| Cow::Owned(spelling::text(&value));
        let (kind, value) = match &value.value {
            None => continue,
            Some(Given::StringValue(value)) => ("STRING", Cow::Borrowed(value.as_str())),
            Some(Given::Int64Value(value)) => ("INT64", text(Value::Int(*value))),
            Some(Given::DoubleValue(value)) => ("DOUBLE", text(Value::Double(*value))),
            Some(Given::BoolValue(value)) => ("BOOL", text(Value::Bool(*value))),
            Some(Given::BytesValue(value)) => octets(value),
            Some(Given::TimestampValue(time)) => ("TIMESTAMP", text(Value::Time(Time::new(time.seconds, time.nanos)))),
            Some(Given::DurationValue(duration)) => {
                let nanos = value::duration_nanos(duration.seconds, duration.nanos);
                ("DURATION", text(Value::Duration(nanos)))
            }
            Some(Given::StringMapValue(map)) => {
                seen.extend(map.entries.iter().map(|(key, value)| Seen {
                    name,
                    key: Some(key),
                    kind: "STRING_MAP",
                    value: Cow::Borrowed(value),
                }));
                continue;
            }
        };
        seen.push(Seen {
            name,
            key: None,
            kind,
            value,
        });
    }
    seen
}
