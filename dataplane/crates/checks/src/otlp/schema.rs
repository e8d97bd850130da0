//! What OTLP's messages are made of, as far as it takes to tell whether bytes are one: the kinds of all their fields.
//! Payloads are forwarded as they came, so that nothing may be queued that a collector couldn't read later.

use meshwright_policy::wire::{Field, Fields, Malformed};

/// Deeper values no collector reads either.
const MAX_DEPTH: usize = 64;

/// A message's fields by number; others are passed on as they are.
#[derive(Debug)]
pub(crate) struct Schema(&'static [(u32, Kind)]);

#[derive(Debug)]
enum Kind {
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Bytes,
    PackedVarint,
    PackedFixed64,
    Message(&'static Schema),
}

use Kind::{Bytes, Fixed32, Fixed64, Message, PackedFixed64, PackedVarint, Text, Varint};

static ANY_VALUE: Schema = Schema(&[
    (1, Text),
    (2, Varint),
    (3, Varint),
    (4, Fixed64),
    (5, Message(&ARRAY_VALUE)),
    (6, Message(&KEY_VALUE_LIST)),
    (7, Bytes),
]);
static ARRAY_VALUE: Schema = Schema(&[(1, Message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Schema = Schema(&[(1, Message(&KEY_VALUE))]);
pub(crate) static KEY_VALUE: Schema = Schema(&[(1, Text), (2, Message(&ANY_VALUE))]);
pub(crate) static RESOURCE: Schema = Schema(&[(1, Message(&KEY_VALUE)), (2, Varint), (3, Message(&ENTITY_REF))]);
static ENTITY_REF: Schema = Schema(&[(1, Text), (2, Text), (3, Text), (4, Text)]);
pub(crate) static SCOPE: Schema = Schema(&[(1, Text), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);

pub(crate) static SPAN: Schema = Schema(&[
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, Bytes),
    (5, Text),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    (9, Message(&KEY_VALUE)),
    (10, Varint),
    (11, Message(&EVENT)),
    (12, Varint),
    (13, Message(&LINK)),
    (14, Varint),
    (15, Message(&STATUS)),
    (16, Fixed32),
]);
static EVENT: Schema = Schema(&[(1, Fixed64), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);
static LINK: Schema = Schema(&[
    (1, Bytes),
    (2, Bytes),
    (3, Text),
    (4, Message(&KEY_VALUE)),
    (5, Varint),
    (6, Fixed32),
]);
static STATUS: Schema = Schema(&[(2, Text), (3, Varint)]);

pub(crate) static LOG_RECORD: Schema = Schema(&[
    (1, Fixed64),
    (2, Varint),
    (3, Text),
    (5, Message(&ANY_VALUE)),
    (6, Message(&KEY_VALUE)),
    (7, Varint),
    (8, Fixed32),
    (9, Bytes),
    (10, Bytes),
    (11, Fixed64),
    (12, Text),
]);

pub(crate) static METRIC: Schema = Schema(&[
    (1, Text),
    (2, Text),
    (3, Text),
    (5, Message(&GAUGE)),
    (7, Message(&SUM)),
    (9, Message(&HISTOGRAM)),
    (10, Message(&EXPONENTIAL_HISTOGRAM)),
    (11, Message(&SUMMARY)),
    (12, Message(&KEY_VALUE)),
]);
static GAUGE: Schema = Schema(&[(1, Message(&NUMBER_POINT))]);
static SUM: Schema = Schema(&[(1, Message(&NUMBER_POINT)), (2, Varint), (3, Varint)]);
static HISTOGRAM: Schema = Schema(&[(1, Message(&HISTOGRAM_POINT)), (2, Varint)]);
static EXPONENTIAL_HISTOGRAM: Schema = Schema(&[(1, Message(&EXPONENTIAL_POINT)), (2, Varint)]);
static SUMMARY: Schema = Schema(&[(1, Message(&SUMMARY_POINT))]);
static NUMBER_POINT: Schema = Schema(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Message(&EXEMPLAR)),
    (6, Fixed64),
    (7, Message(&KEY_VALUE)),
    (8, Varint),
]);
static HISTOGRAM_POINT: Schema = Schema(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, PackedFixed64),
    (7, PackedFixed64),
    (8, Message(&EXEMPLAR)),
    (9, Message(&KEY_VALUE)),
    (10, Varint),
    (11, Fixed64),
    (12, Fixed64),
]);
static EXPONENTIAL_POINT: Schema = Schema(&[
    (1, Message(&KEY_VALUE)),
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Varint),
    (7, Fixed64),
    (8, Message(&BUCKETS)),
    (9, Message(&BUCKETS)),
    (10, Varint),
    (11, Message(&EXEMPLAR)),
    (12, Fixed64),
    (13, Fixed64),
    (14, Fixed64),
]);
static BUCKETS: Schema = Schema(&[(1, Varint), (2, PackedVarint)]);
static SUMMARY_POINT: Schema = Schema(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Message(&QUANTILE)),
    (7, Message(&KEY_VALUE)),
    (8, Varint),
]);
static QUANTILE: Schema = Schema(&[(1, Fixed64), (2, Fixed64)]);
static EXEMPLAR: Schema = Schema(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Bytes),
    (5, Bytes),
    (6, Fixed64),
    (7, Message(&KEY_VALUE)),
]);

impl Schema {
    /// Whether the bytes are such a message, all the way down.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<(), Malformed> {
        self.check_within(bytes, MAX_DEPTH)
    }

    fn check_within(&self, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed("values nested too deeply"))?;
        for field in Fields(bytes) {
            let (number, field) = field?;
            let Some((_, kind)) = self.0.iter().find(|(known, _)| *known == number) else {
                continue;
            };
            match (kind, field) {
                (Varint | PackedVarint, Field::Varint(_))
                | (Fixed64 | PackedFixed64, Field::Fixed64(_))
                | (Fixed32, Field::Fixed32(_))
                | (Bytes, Field::Bytes(_)) => {}
                (Text, field) => {
                    field.text()?;
                }
                (Message(schema), Field::Bytes(inner)) => schema.check_within(inner, depth)?,
                (PackedFixed64, Field::Bytes(packed)) if packed.len() % 8 == 0 => {}
                (PackedVarint, Field::Bytes(packed)) if is_varints(packed) => {}
                _ => return Err(Malformed("a field of another type than OTLP says")),
            }
        }
        Ok(())
    }
}

fn is_varints(packed: &[u8]) -> bool {
    packed
        .split_inclusive(|byte| *byte < 0x80)
        .all(|varint| varint.len() <= 10 && varint.last().is_some_and(|byte| *byte < 0x80))
}
