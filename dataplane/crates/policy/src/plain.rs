//! Values as messages in full: what reports, questions and replies are made of. Everything is copied out of the caller's
//! dictionary, since adapters read it long after the request.

use std::net::IpAddr;

use meshwright_api::istio::mixer::v1 as mixer;
use mixer::attributes::attribute_value::Value as Wire;
use mixer::attributes::{AttributeValue, StringMap};

use crate::value::{self, Map, Time, Value};

/// The value of a message; None when it has none, or bytes that aren't an address.
pub(crate) fn read(message: &AttributeValue) -> Option<Value<'_>> {
    Some(match message.value.as_ref()? {
        Wire::StringValue(text) => Value::text(text),
        Wire::Int64Value(value) => Value::Int(*value),
        Wire::DoubleValue(value) => Value::Double(*value),
        Wire::BoolValue(value) => Value::Bool(*value),
        Wire::BytesValue(bytes) => Value::Address(value::address(bytes)?),
        Wire::TimestampValue(time) => Value::Time(Time::new(time.seconds, time.nanos)),
        Wire::DurationValue(duration) => Value::Duration(value::duration_nanos(duration.seconds, duration.nanos)),
        Wire::StringMapValue(map) => Value::Map(Map::Entries(&map.entries)),
    })
}

/// The message of a value.
pub(crate) fn write(value: Value<'_>) -> AttributeValue {
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
            entries: map.to_owned(),
        }),
    };
    AttributeValue { value: Some(value) }
}
