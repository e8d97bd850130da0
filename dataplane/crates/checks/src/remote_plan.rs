//! Writes requests of remote adapters by a plan: bytes that were known when the policy was compiled, and values.

use bytes::{BufMut, Bytes, BytesMut};
use meshwright_api::istio::mixer::v1::attributes::AttributeValue;
use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value;
use meshwright_api::istio::policy::v1beta1::ValueType;
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_policy::{Question, Variety};
use prost::encoding::{WireType, encode_key, encode_varint};

pub(crate) use compiled::Wire;

/// Deeper ones aren't compiled.
const MAX_DEPTH: usize = 32;
const MAX_NUMBER: u32 = (1 << 29) - 1;

/// How an instance is asked of an adapter.
#[derive(Debug)]
pub(crate) struct Plan {
    /// "/package.Service/Method"
    pub(crate) path: String,
    /// name.instance.namespace
    pub(crate) name: String,
    instance: u32,
    adapter_config: u32,
    dedup_id: u32,
    quota_request: u32,
    pieces: Vec<Piece>,
    /// Zero: the answer itself.
    pub(crate) result: u32,
    pub(crate) output: u32,
    pub(crate) outputs: Vec<Output>,
}

#[derive(Debug)]
enum Piece {
    Literal(Bytes),
    Scalar {
        field: Box<str>,
        number: u32,
        wire: Wire,
        kind: ValueType,
    },
    Nested {
        number: u32,
        is_entry: bool,
        pieces: Vec<Piece>,
    },
}

/// A field of what comes back.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) wire: Wire,
}

type Fields = [(std::sync::Arc<str>, AttributeValue)];

impl Plan {
    pub(crate) fn load(encoding: compiled::Encoding) -> Result<Self, String> {
        if !encoding.method.starts_with('/') {
            return Err(format!("{:?} is no method", encoding.method));
        }
        let outputs = encoding.outputs.into_iter().map(|output| {
            Ok(Output {
                number: number(output.number)?,
                name: output.name,
                wire: wire(output.wire)?,
            })
        });
        Ok(Plan {
            path: encoding.method,
            name: encoding.name,
            instance: number(encoding.instance)?,
            adapter_config: encoding.adapter_config,
            dedup_id: encoding.dedup_id,
            quota_request: encoding.quota_request,
            pieces: load(encoding.pieces, 0)?,
            result: encoding.result,
            output: encoding.output,
            outputs: outputs.collect::<Result<_, String>>()?,
        })
    }

    /// The request in its frame. `config` is a google.protobuf.Any, empty where there is none.
    pub(crate) fn request(&self, question: &Question, config: &[u8], dedup_id: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(256 + config.len());
        out.put_bytes(0, 5);
        nested(&mut out, self.instance, |out| {
            write(&self.pieces, &question.fields, out)
        });
        if self.adapter_config != 0 && !config.is_empty() {
            bytes(&mut out, self.adapter_config, config);
        }
        if self.dedup_id != 0 {
            bytes(&mut out, self.dedup_id, dedup_id.as_bytes());
        }
        if let (Variety::Quota, Some(wanted)) = (question.subject.variety, &question.wanted) {
            nested(&mut out, self.quota_request, |out| {
                nested(out, 1, |out| {
                    bytes(out, 1, self.name.as_bytes());
                    nested(out, 2, |out| {
                        encode_key(1, WireType::Varint, out);
                        encode_varint(wanted.amount as u64, out);
                        encode_key(2, WireType::Varint, out);
                        encode_varint(u64::from(wanted.best_effort), out);
                        true
                    })
                })
            });
        }
        let length = u32::try_from(out.len() - 5).unwrap_or(u32::MAX);
        out[1..5].copy_from_slice(&length.to_be_bytes());
        out.freeze()
    }
}

pub(crate) fn number(given: u32) -> Result<u32, String> {
    if given == 0 || given > MAX_NUMBER {
        return Err(format!("{given} is no number of a field"));
    }
    Ok(given)
}

fn wire(given: i32) -> Result<Wire, String> {
    Wire::try_from(given)
        .ok()
        .filter(|wire| *wire != Wire::Unspecified)
        .ok_or_else(|| format!("wire form {given} is unknown"))
}

fn load(pieces: Vec<compiled::Piece>, depth: usize) -> Result<Vec<Piece>, String> {
    use compiled::piece::Piece as Given;
    if depth > MAX_DEPTH {
        return Err(format!("messages nested deeper than {MAX_DEPTH}"));
    }
    pieces
        .into_iter()
        .map(|piece| {
            Ok(match piece.piece.ok_or("an empty piece")? {
                Given::Literal(bytes) => Piece::Literal(bytes),
                Given::Scalar(scalar) => Piece::Scalar {
                    field: scalar.field.into_boxed_str(),
                    number: number(scalar.number)?,
                    wire: wire(scalar.wire)?,
                    kind: ValueType::try_from(scalar.r#type).unwrap_or(ValueType::Unspecified),
                },
                Given::Nested(nested) => Piece::Nested {
                    number: number(nested.number)?,
                    is_entry: nested.is_entry,
                    pieces: load(nested.pieces, depth + 1)?,
                },
            })
        })
        .collect()
}

/// Whether every value was there.
fn write(pieces: &[Piece], fields: &Fields, out: &mut BytesMut) -> bool {
    let mut is_whole = true;
    for piece in pieces {
        match piece {
            Piece::Literal(bytes) => out.put_slice(bytes),
            Piece::Scalar {
                field,
                number,
                wire,
                kind,
            } => {
                let found = fields.binary_search_by(|(name, _)| (**name).cmp(field)).ok();
                let value = found.and_then(|at| fields[at].1.value.as_ref());
                is_whole &= value.is_some_and(|value| scalar(out, *number, *wire, *kind, value));
            }
            Piece::Nested {
                number,
                is_entry,
                pieces,
            } => {
                let began = out.len();
                let is_complete = nested(out, *number, |out| write(pieces, fields, out));
                if *is_entry && !is_complete {
                    out.truncate(began);
                }
            }
        }
    }
    is_whole
}

/// Writes one value; whether it fits.
fn scalar(out: &mut BytesMut, number: u32, wire: Wire, kind: ValueType, value: &Value) -> bool {
    match (wire, value) {
        (Wire::Text | Wire::Octets, Value::StringValue(text)) => bytes(out, number, text.as_bytes()),
        (Wire::Octets, Value::BytesValue(octets)) => bytes(out, number, octets),
        (Wire::Varint, Value::Int64Value(value)) => {
            encode_key(number, WireType::Varint, out);
            encode_varint(*value as u64, out);
        }
        (Wire::Zigzag, Value::Int64Value(value)) => {
            encode_key(number, WireType::Varint, out);
            encode_varint(((value << 1) ^ (value >> 63)) as u64, out);
        }
        (Wire::Fixed32, Value::Int64Value(value)) => {
            encode_key(number, WireType::ThirtyTwoBit, out);
            out.put_u32_le(*value as u32);
        }
        (Wire::Fixed64, Value::Int64Value(value)) => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.put_i64_le(*value);
        }
        (Wire::FloatBits, Value::DoubleValue(value)) => {
            encode_key(number, WireType::ThirtyTwoBit, out);
            out.put_f32_le(*value as f32);
        }
        (Wire::DoubleBits, Value::DoubleValue(value)) => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.put_f64_le(*value);
        }
        (Wire::Boolean, Value::BoolValue(value)) => {
            encode_key(number, WireType::Varint, out);
            out.put_u8(u8::from(*value));
        }
        (Wire::Moment, Value::TimestampValue(time)) => time_like(out, number, time.seconds, time.nanos),
        (Wire::Span, Value::DurationValue(span)) => time_like(out, number, span.seconds, span.nanos),
        (Wire::Entries, Value::StringMapValue(map)) => {
            for (key, value) in &map.entries {
                nested(out, number, |out| {
                    bytes(out, 1, key.as_bytes());
                    bytes(out, 2, value.as_bytes());
                    true
                });
            }
        }
        (Wire::BoxedMoment, value) => return boxed(out, number, Wire::Moment, value),
        (Wire::BoxedSpan, value) => return boxed(out, number, Wire::Span, value),
        (Wire::BoxedOctets, value) => return boxed(out, number, Wire::Octets, value),
        (Wire::BoxedEntries, value) => return boxed(out, number, Wire::Entries, value),
        (Wire::BoxedText, value) => return boxed(out, number, Wire::Text, value),
        (Wire::AnyValue, value) => {
            let (member, wire) = match kind {
                ValueType::String => (1, Wire::Text),
                ValueType::Int64 => (2, Wire::Varint),
                ValueType::Double => (3, Wire::DoubleBits),
                ValueType::Bool => (4, Wire::Boolean),
                ValueType::IpAddress => (5, Wire::BoxedOctets),
                ValueType::Timestamp => (6, Wire::BoxedMoment),
                ValueType::Duration => (7, Wire::BoxedSpan),
                ValueType::EmailAddress => (8, Wire::BoxedText),
                ValueType::DnsName => (9, Wire::BoxedText),
                ValueType::Uri => (10, Wire::BoxedText),
                ValueType::StringMap => (11, Wire::BoxedEntries),
                ValueType::Unspecified => return false,
            };
            let began = out.len();
            let is_complete = nested(out, number, |out| scalar(out, member, wire, kind, value));
            if !is_complete {
                out.truncate(began);
            }
            return is_complete;
        }
        _ => return false,
    }
    true
}

/// In a message whose field 1 it is.
fn boxed(out: &mut BytesMut, number: u32, wire: Wire, value: &Value) -> bool {
    let began = out.len();
    let is_complete = nested(out, number, |out| scalar(out, 1, wire, ValueType::Unspecified, value));
    if !is_complete {
        out.truncate(began);
    }
    is_complete
}

fn time_like(out: &mut BytesMut, number: u32, seconds: i64, nanos: i32) {
    nested(out, number, |out| {
        encode_key(1, WireType::Varint, out);
        encode_varint(seconds as u64, out);
        encode_key(2, WireType::Varint, out);
        encode_varint(i64::from(nanos) as u64, out);
        true
    });
}

fn bytes(out: &mut BytesMut, number: u32, value: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

/// A message; its length, known at its end, goes in front of it. Returns what `body` returns.
fn nested(out: &mut BytesMut, number: u32, body: impl FnOnce(&mut BytesMut) -> bool) -> bool {
    encode_key(number, WireType::LengthDelimited, out);
    let at = out.len();
    out.put_u8(0);
    let is_complete = body(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return is_complete;
    }
    let mut prefix = [0; 10];
    let mut rest = &mut prefix[..];
    encode_varint(length as u64, &mut rest);
    let size = 10 - rest.len();
    out.put_bytes(0, size - 1);
    out.copy_within(at + 1..at + 1 + length, at + size);
    out[at..at + size].copy_from_slice(&prefix[..size]);
    is_complete
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use meshwright_policy::{Asked, Host, Subject, Wanted};

    use super::*;

    fn value(value: Value) -> AttributeValue {
        AttributeValue { value: Some(value) }
    }

    fn question(variety: Variety, fields: Vec<(&str, Value)>) -> Question {
        Question {
            asked: Arc::new(Asked {
                handler: "h.ns".into(),
                adapter: "a".into(),
                host: Host::Remote,
                is_open: false,
                timeout: Duration::from_secs(1),
            }),
            subject: Arc::new(Subject {
                instance: "i.ns".into(),
                template: "t".into(),
                variety,
            }),
            fields: fields
                .into_iter()
                .map(|(name, field)| (name.into(), value(field)))
                .collect(),
            wanted: Some(Wanted {
                amount: -1,
                best_effort: true,
                deduplication_id: None,
            }),
        }
    }

    fn plan(pieces: Vec<compiled::Piece>) -> Plan {
        let encoding = compiled::Encoding {
            method: "/a.B/C".to_owned(),
            name: "i.instance.ns".to_owned(),
            instance: 1,
            adapter_config: 2,
            dedup_id: 3,
            quota_request: 4,
            pieces,
            ..Default::default()
        };
        Plan::load(encoding).expect("a plan")
    }

    fn scalar_piece(field: &str, number: u32, wire: Wire, kind: ValueType) -> compiled::Piece {
        compiled::Piece {
            piece: Some(compiled::piece::Piece::Scalar(compiled::piece::Scalar {
                field: field.to_owned(),
                number,
                wire: wire.into(),
                r#type: kind.into(),
            })),
        }
    }

    #[test]
    fn a_message_of_any_length_has_its_length_in_front() {
        for length in [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 100_000] {
            let text = "x".repeat(length);
            let plan = plan(vec![scalar_piece("t", 5, Wire::Text, ValueType::String)]);
            let asked = question(Variety::Check, vec![("t", Value::StringValue(text.clone()))]);
            let request = plan.request(&asked, b"", "id");
            let inner = 1 + prost::length_delimiter_len(length) + length;
            let mut expected = vec![0x0A];
            encode_varint(inner as u64, &mut expected);
            expected.push(0x2A);
            encode_varint(length as u64, &mut expected);
            expected.extend_from_slice(text.as_bytes());
            expected.extend_from_slice(b"\x1a\x02id");
            assert_eq!(&request[5..], expected);
            assert_eq!(request[1..5], u32::try_from(expected.len()).unwrap().to_be_bytes());
        }
    }

    #[test]
    fn a_quota_carries_its_amount_under_the_instance_name() {
        let request = plan(vec![]).request(&question(Variety::Quota, vec![]), b"", "");
        let params = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x01";
        let mut entry = b"\x0a\x0di.instance.ns\x12\x0d".to_vec();
        entry.extend_from_slice(params);
        let mut expected = b"\x0a\x00\x1a\x00\x22\x20\x0a\x1e".to_vec();
        expected.extend_from_slice(&entry);
        assert_eq!(&request[5..], expected);
    }

    #[test]
    fn an_entry_without_its_value_is_left_out() {
        let entry = |name: &str| compiled::Piece {
            piece: Some(compiled::piece::Piece::Nested(compiled::piece::Nested {
                number: 1,
                is_entry: true,
                pieces: vec![
                    compiled::Piece {
                        piece: Some(compiled::piece::Piece::Literal(Bytes::from_static(b"\x0a\x01k"))),
                    },
                    scalar_piece(name, 2, Wire::AnyValue, ValueType::Int64),
                ],
            })),
        };
        let plan = plan(vec![entry("a"), entry("b")]);
        let request = plan.request(&question(Variety::Check, vec![("b", Value::Int64Value(1))]), b"", "");
        assert_eq!(&request[5..], b"\x0a\x09\x0a\x07\x0a\x01k\x12\x02\x10\x01\x1a\x00");
    }

    #[test]
    fn unknown_forms_and_numbers_are_refused() {
        for number in [0, 1 << 29] {
            let encoding = compiled::Encoding {
                method: "/a.B/C".to_owned(),
                instance: number,
                ..Default::default()
            };
            assert!(Plan::load(encoding).is_err());
        }
        assert!(wire(0).is_err());
        assert!(wire(99).is_err());
    }
}
