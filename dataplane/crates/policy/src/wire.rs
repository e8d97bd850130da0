//! Reads protobuf's wire format in place: attributes are looked at where they lie, so that a check copies nothing that
//! no rule asks for. Whatever the bytes are, the answer is a field or `Malformed`.

use thiserror::Error;

/// Bytes that aren't protobuf, or not of the message that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed protobuf: {0}")]
pub struct Malformed(pub &'static str);

/// One field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// Integers, bools, enums.
    Varint(u64),
    /// Eight bytes, doubles among them.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// Text, bytes, messages, packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// Bytes, or an embedded message.
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("expected a length-delimited field")),
        }
    }

    /// A string.
    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a string isn't UTF-8"))
    }

    /// A number as it is coded.
    pub fn varint(self) -> Result<u64, Malformed> {
        match self {
            Field::Varint(value) => Ok(value),
            _ => Err(Malformed("expected a varint field")),
        }
    }

    /// An int32: negative numbers come as ten bytes, cut to the lower half as protobuf says.
    pub(crate) fn int32(self) -> Result<i32, Malformed> {
        self.varint().map(|value| value as i32)
    }

    pub(crate) fn int64(self) -> Result<i64, Malformed> {
        self.varint().map(|value| value as i64)
    }

    /// A zigzag-coded sint32.
    pub(crate) fn sint32(self) -> Result<i32, Malformed> {
        let value = self.varint()? as u32;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    pub(crate) fn double(self) -> Result<f64, Malformed> {
        match self {
            Field::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(Malformed("expected a fixed64 field")),
        }
    }
}

/// Of a field (protobuf's encoding, "Message Structure").
const MAX_NUMBER: u32 = (1 << 29) - 1;

/// The fields of one message, in the order of the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn read_varint(&mut self) -> Result<u64, Malformed> {
        // Tags and most values are one byte.
        if let Some((&first, rest)) = self.0.split_first()
            && first < 0x80
        {
            self.0 = rest;
            return Ok(u64::from(first));
        }
        let mut value = 0u64;
        for (position, &byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte < 0x80 {
                self.0 = &self.0[position + 1..];
                return Ok(value);
            }
        }
        Err(Malformed("a varint doesn't end"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Malformed("a field is longer than its message"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn read(&mut self) -> Result<(u32, Field<'a>), Malformed> {
        let tag = self.read_varint()?;
        // 0 is no number either: who writes such a field on (protobuf's own writers refuse to) makes what nobody reads.
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|number| (1..=MAX_NUMBER).contains(number))
            .ok_or(Malformed("a field number isn't from 1 to 536870911"))?;
        let field = match tag & 7 {
            0 => Field::Varint(self.read_varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(array(self.take(8)?))),
            2 => {
                let length = usize::try_from(self.read_varint()?).map_err(|_| Malformed("a length is too large"))?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(array(self.take(4)?))),
            _ => return Err(Malformed("a wire type that proto3 doesn't use")),
        };
        Ok((number, field))
    }
}

/// `bytes` has `N` elements: `take` was asked for as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut result = [0; N];
    result.copy_from_slice(bytes);
    result
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Field<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Key and value of a map entry whose key is sint32; a value that was left out is None (its type's default).
pub(crate) fn entry(bytes: &[u8]) -> Result<(i32, Option<Field<'_>>), Malformed> {
    let (mut key, mut value) = (0, None);
    for field in Fields(bytes) {
        match field? {
            (1, field) => key = field.sint32()?,
            (2, field) => value = Some(field),
            _ => {}
        }
    }
    Ok((key, value))
}

/// Seconds and nanoseconds of a Timestamp or Duration.
pub(crate) fn seconds_and_nanos(bytes: &[u8]) -> Result<(i64, i32), Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, field) => seconds = field.int64()?,
            (2, field) => nanos = field.int32()?,
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_that_no_field_has_are_refused() {
        for tag in [0u64, 1 << 32, (1 << 32) | (5 << 3), u64::MAX] {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(tag, &mut bytes);
            bytes.push(7);
            assert!(Fields(&bytes).next().is_some_and(|field| field.is_err()), "{tag}");
        }
        let largest = [0xf8, 0xff, 0xff, 0xff, 0x0f, 7];
        assert_eq!(Fields(&largest).next(), Some(Ok((MAX_NUMBER, Field::Varint(7)))));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_fields_or_an_error(bytes: Vec<u8>) {
            let mut count = 0;
            for field in Fields(&bytes) {
                count += 1;
                if let Ok((_, Field::Bytes(inner))) = field {
                    let _ = (entry(inner), seconds_and_nanos(inner));
                }
            }
            prop_assert!(count <= bytes.len());
        }

        #[test]
        fn reads_what_prost_writes(words: Vec<String>, strings: std::collections::HashMap<i32, i32>) {
            use prost::Message;
            let message = meshwright_api::istio::mixer::v1::CompressedAttributes { words, strings, ..Default::default() };
            let bytes = message.encode_to_vec();
            let mut words = Vec::new();
            let mut strings = std::collections::HashMap::new();
            for field in Fields(&bytes) {
                match field.unwrap() {
                    (1, field) => words.push(field.text().unwrap().to_owned()),
                    (2, field) => {
                        let (key, value) = entry(field.bytes().unwrap()).unwrap();
                        strings.insert(key, value.map_or(0, |value| value.sint32().unwrap()));
                    }
                    (number, _) => prop_assert!(false, "unexpected field {number}"),
                }
            }
            prop_assert_eq!(words, message.words);
            prop_assert_eq!(strings, message.strings);
        }
    }
}
