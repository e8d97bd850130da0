//! Reads what remote adapters answer: results by the contract's messages, outputs by the plan.

use std::collections::HashMap;

use bytes::{Buf, Bytes};
use meshwright_api::istio::mixer::adapter::model::v1beta1 as model;
use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value;
use meshwright_api::istio::mixer::v1::attributes::{AttributeValue, StringMap};
use meshwright_policy::{Reply, Variety};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::remote_plan::{Output, Plan, Wire};

/// Entries of a map that are read.
const MAX_ENTRIES: usize = 1024;

type Outputs = HashMap<String, AttributeValue>;

impl Plan {
    /// The reply in an answer's bytes; the error says what is wrong with them.
    pub(crate) fn reply(&self, variety: Variety, answer: Bytes) -> Result<Reply, String> {
        match variety {
            Variety::Check => check(answer),
            Variety::Quota => self.quota(answer),
            Variety::Report => Ok(Reply::default()),
            Variety::AttributeGenerator => Ok(Reply {
                outputs: self.outputs(answer)?,
                ..Reply::default()
            }),
            Variety::CheckWithOutput => {
                let (mut result, mut output) = (Bytes::new(), Bytes::new());
                each(answer, |number, field| {
                    if let Field::Bytes(bytes) = field {
                        if number == self.result {
                            result = bytes;
                        } else if number == self.output {
                            output = bytes;
                        }
                    }
                    Ok(())
                })?;
                Ok(Reply {
                    outputs: self.outputs(output)?,
                    ..check(result)?
                })
            }
        }
    }

    fn quota(&self, answer: Bytes) -> Result<Reply, String> {
        let mut answer = model::QuotaResult::decode(answer).map_err(|error| malformed(&error))?;
        let result = answer
            .quotas
            .remove(&self.name)
            .ok_or_else(|| format!("the answer says nothing of quota {}", self.name))?;
        Ok(Reply {
            status: result.status.unwrap_or_default(),
            valid_nanos: nanos(result.valid_duration),
            granted: result.granted_amount,
            ..Reply::default()
        })
    }

    fn outputs(&self, message: Bytes) -> Result<Outputs, String> {
        let mut outputs = Outputs::new();
        each(message, |number, field| {
            let Some(output) = self.outputs.iter().find(|output| output.number == number) else {
                return Ok(());
            };
            take(output, field, &mut outputs)
        })?;
        Ok(outputs)
    }
}

fn check(answer: Bytes) -> Result<Reply, String> {
    let result = model::CheckResult::decode(answer).map_err(|error| malformed(&error))?;
    Ok(Reply {
        status: result.status.unwrap_or_default(),
        valid_nanos: nanos(result.valid_duration),
        uses: result.valid_use_count,
        ..Reply::default()
    })
}

fn malformed(error: &prost::DecodeError) -> String {
    format!("a malformed answer: {error}")
}

fn nanos(duration: Option<prost_types::Duration>) -> i64 {
    duration.map_or(0, |given| {
        let nanos = given.seconds.saturating_mul(1_000_000_000);
        nanos.saturating_add(i64::from(given.nanos)).max(0)
    })
}

enum Field {
    Number(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(Bytes),
}

/// Hands out a message's fields one by one.
fn each(mut message: Bytes, mut take: impl FnMut(u32, Field) -> Result<(), String>) -> Result<(), String> {
    while message.has_remaining() {
        let (number, wire) = decode_key(&mut message).map_err(|error| malformed(&error))?;
        let cut = || "a malformed answer: it ends in the middle of a field".to_owned();
        let field = match wire {
            WireType::Varint => Field::Number(decode_varint(&mut message).map_err(|error| malformed(&error))?),
            WireType::ThirtyTwoBit => Field::Fixed32(message.try_get_u32_le().map_err(|_| cut())?),
            WireType::SixtyFourBit => Field::Fixed64(message.try_get_u64_le().map_err(|_| cut())?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut message).map_err(|error| malformed(&error))?;
                let length = usize::try_from(length).ok().filter(|length| *length <= message.len());
                Field::Bytes(message.split_to(length.ok_or_else(cut)?))
            }
            WireType::StartGroup | WireType::EndGroup => {
                skip_field(wire, number, &mut message, DecodeContext::default()).map_err(|error| malformed(&error))?;
                continue;
            }
        };
        take(number, field)?;
    }
    Ok(())
}

/// Adds one field to the outputs.
fn take(output: &Output, field: Field, outputs: &mut Outputs) -> Result<(), String> {
    if let (Wire::Entries, Field::Bytes(entry)) = (output.wire, &field) {
        let value = outputs.entry(output.name.clone()).or_insert_with(|| AttributeValue {
            value: Some(Value::StringMapValue(StringMap::default())),
        });
        if let Some(Value::StringMapValue(map)) = &mut value.value {
            insert(entry.clone(), map)?;
        }
        return Ok(());
    }
    if let Some(value) = read(output.wire, field)? {
        outputs.insert(output.name.clone(), AttributeValue { value: Some(value) });
    }
    Ok(())
}

/// None: another wire type than the template's, which isn't ours to read.
fn read(wire: Wire, field: Field) -> Result<Option<Value>, String> {
    Ok(Some(match (wire, field) {
        (Wire::Text, Field::Bytes(bytes)) => Value::StringValue(text(&bytes)?),
        (Wire::Octets, Field::Bytes(bytes)) => Value::BytesValue(bytes),
        (Wire::Varint, Field::Number(value)) => Value::Int64Value(value as i64),
        (Wire::Zigzag, Field::Number(value)) => Value::Int64Value((value >> 1) as i64 ^ -((value & 1) as i64)),
        (Wire::Fixed32, Field::Fixed32(value)) => Value::Int64Value(i64::from(value as i32)),
        (Wire::Fixed64, Field::Fixed64(value)) => Value::Int64Value(value as i64),
        (Wire::FloatBits, Field::Fixed32(value)) => Value::DoubleValue(f64::from(f32::from_bits(value))),
        (Wire::DoubleBits, Field::Fixed64(value)) => Value::DoubleValue(f64::from_bits(value)),
        (Wire::Boolean, Field::Number(value)) => Value::BoolValue(value != 0),
        (Wire::Moment, Field::Bytes(bytes)) => {
            Value::TimestampValue(prost_types::Timestamp::decode(bytes).map_err(|error| malformed(&error))?)
        }
        (Wire::Span, Field::Bytes(bytes)) => {
            Value::DurationValue(prost_types::Duration::decode(bytes).map_err(|error| malformed(&error))?)
        }
        (Wire::BoxedMoment, Field::Bytes(bytes)) => return unboxed(Wire::Moment, bytes),
        (Wire::BoxedSpan, Field::Bytes(bytes)) => return unboxed(Wire::Span, bytes),
        (Wire::BoxedOctets, Field::Bytes(bytes)) => return unboxed(Wire::Octets, bytes),
        (Wire::BoxedText, Field::Bytes(bytes)) => return unboxed(Wire::Text, bytes),
        (Wire::BoxedEntries, Field::Bytes(bytes)) => {
            let mut map = StringMap::default();
            each(bytes, |number, field| match field {
                Field::Bytes(entry) if number == 1 => insert(entry, &mut map),
                _ => Ok(()),
            })?;
            Value::StringMapValue(map)
        }
        _ => return Ok(None),
    }))
}

fn unboxed(wire: Wire, message: Bytes) -> Result<Option<Value>, String> {
    let mut value = None;
    each(message, |number, field| {
        if number == 1 {
            value = read(wire, field)?;
        }
        Ok(())
    })?;
    Ok(value)
}

fn insert(entry: Bytes, map: &mut StringMap) -> Result<(), String> {
    let (mut key, mut value) = (String::new(), String::new());
    each(entry, |number, field| {
        match (number, field) {
            (1, Field::Bytes(bytes)) => key = text(&bytes)?,
            (2, Field::Bytes(bytes)) => value = text(&bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    if map.entries.len() >= MAX_ENTRIES && !map.entries.contains_key(&key) {
        return Err(format!("a map of more than {MAX_ENTRIES} entries"));
    }
    map.entries.insert(key, value);
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a malformed answer: text that isn't UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use meshwright_api::meshwright::policy::v1 as compiled;
    use proptest::prelude::*;

    use super::*;

    fn plan() -> Plan {
        let output = |number, name: &str, wire: Wire| compiled::encoding::Output {
            number,
            name: name.to_owned(),
            wire: wire.into(),
            r#type: 1,
        };
        Plan::load(compiled::Encoding {
            method: "/a.B/C".to_owned(),
            name: "i.instance.ns".to_owned(),
            instance: 1,
            result: 1,
            output: 2,
            outputs: vec![
                output(1, "text", Wire::Text),
                output(2, "number", Wire::Varint),
                output(3, "labels", Wire::Entries),
                output(4, "address", Wire::BoxedOctets),
                output(5, "when", Wire::BoxedMoment),
                output(6, "ratio", Wire::DoubleBits),
                output(7, "zigzag", Wire::Zigzag),
            ],
            ..Default::default()
        })
        .expect("a plan")
    }

    #[test]
    fn a_check_with_output_is_read() {
        let answer = b"\x0a\x08\x0a\x04\x08\x07\x12\x00\x18\x05\x12\x1d\x0a\x01x\x10\x2a\x1a\x06\x0a\x01k\x12\x01v\x22\x06\x0a\x04\x0a\x00\x00\x01\x38\x03\x2a\x04\x0a\x02\x08\x01";
        let reply = plan()
            .reply(Variety::CheckWithOutput, Bytes::from_static(answer))
            .expect("a reply");
        assert_eq!((reply.status.code, reply.uses), (7, 5));
        let read = |name: &str| reply.outputs[name].value.clone().expect("a value");
        assert_eq!(read("text"), Value::StringValue("x".to_owned()));
        assert_eq!(read("number"), Value::Int64Value(42));
        assert_eq!(read("zigzag"), Value::Int64Value(-2));
        assert_eq!(read("address"), Value::BytesValue(Bytes::from_static(&[10, 0, 0, 1])));
        let Value::StringMapValue(labels) = read("labels") else {
            panic!("a map")
        };
        assert_eq!(labels.entries["k"], "v");
        let Value::TimestampValue(when) = read("when") else {
            panic!("a moment")
        };
        assert_eq!(when.seconds, 1);
    }

    #[test]
    fn a_quota_that_was_not_answered_is_a_failure() {
        let refused = plan().reply(Variety::Quota, Bytes::new()).expect_err("no answer");
        assert!(refused.contains("i.instance.ns"));
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..256), variety in 0..5) {
            let variety = Variety::try_from(variety).expect("one of five");
            let _ = plan().reply(variety, bytes.into());
        }
    }
}
