//! Attributes on their own, as records carry them.

use std::collections::HashMap;
use std::net::IpAddr;

use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value as Plain;
use meshwright_api::istio::mixer::v1::attributes::{AttributeValue, StringMap};
use meshwright_policy::{Attributes, Map, Value};

/// Gives an attribute its value.
pub(super) fn set(attributes: &mut Attributes, name: &str, value: Value<'_>) {
    let value = match value {
        Value::Text(text) => Plain::StringValue(text.into_owned()),
        Value::Int(value) => Plain::Int64Value(value),
        Value::Double(value) => Plain::DoubleValue(value),
        Value::Bool(value) => Plain::BoolValue(value),
        Value::Time(time) => Plain::TimestampValue(prost_types::Timestamp {
            seconds: time.seconds,
            nanos: time.nanos as i32,
        }),
        Value::Duration(nanos) => Plain::DurationValue(prost_types::Duration {
            seconds: nanos / 1_000_000_000,
            nanos: (nanos % 1_000_000_000) as i32,
        }),
        Value::Address(IpAddr::V4(address)) => Plain::BytesValue(address.octets().to_vec().into()),
        Value::Address(IpAddr::V6(address)) => Plain::BytesValue(address.octets().to_vec().into()),
        Value::Map(Map::Entries(entries)) => return set_map(attributes, name, entries.clone()),
        // Rows of the table have no other maps.
        Value::Map(_) => return,
    };
    insert(attributes, name, value);
}

pub(super) fn set_map(attributes: &mut Attributes, name: &str, entries: HashMap<String, String>) {
    insert(attributes, name, Plain::StringMapValue(StringMap { entries }));
}

fn insert(attributes: &mut Attributes, name: &str, value: Plain) {
    attributes.insert(name.to_owned(), AttributeValue { value: Some(value) });
}
