//! Writes the few protobuf fields that forwarding needs.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// A length-delimited field.
pub(crate) fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// How long that is.
pub(crate) fn bytes_len(number: u32, length: usize) -> usize {
    key_len(number) + encoded_len_varint(length as u64) + length
}

/// An integer field; nothing for zero.
pub(crate) fn integer(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        encode_key(number, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// A KeyValue with a string.
pub(crate) fn text_attribute(key: &str, value: &str) -> Vec<u8> {
    let mut any = Vec::with_capacity(value.len() + 4);
    bytes(&mut any, 1, value.as_bytes());
    let mut pair = Vec::with_capacity(key.len() + any.len() + 8);
    bytes(&mut pair, 1, key.as_bytes());
    bytes(&mut pair, 2, &any);
    pair
}
