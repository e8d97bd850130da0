//! Values of attributes and expressions. Text stays where it was found (in the request or the policy) unless a
//! function makes a new one; times and durations are integers, so that comparing them is exact.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use meshwright_api::meshwright::policy::v1 as compiled;

pub(crate) use compiled::Type;

use crate::bag::Words;
use crate::wire::{self, Fields};

/// A moment: seconds since 1970 and nanoseconds of that second (0 to 999,999,999).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// The rest.
    pub nanos: u32,
}

impl Time {
    /// From any pair, such as a Timestamp message carries.
    pub fn new(seconds: i64, nanos: i32) -> Self {
        let carried = i64::from(nanos.div_euclid(1_000_000_000));
        Time {
            seconds: seconds.saturating_add(carried),
            nanos: nanos.rem_euclid(1_000_000_000) as u32,
        }
    }

    /// From nanoseconds since 1970.
    pub fn from_nanos(nanos: i64) -> Self {
        Time {
            seconds: nanos.div_euclid(1_000_000_000),
            nanos: nanos.rem_euclid(1_000_000_000) as u32,
        }
    }
}

/// The value of an attribute or of an expression; e-mail addresses, URIs and DNS names are text.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// STRING, EMAIL_ADDRESS, URI, DNS_NAME
    Text(Cow<'a, str>),
    /// INT64
    Int(i64),
    /// DOUBLE
    Double(f64),
    /// BOOL
    Bool(bool),
    /// TIMESTAMP
    Time(Time),
    /// DURATION in nanoseconds
    Duration(i64),
    /// IP_ADDRESS; an IPv4 address inside IPv6 is IPv4
    Address(IpAddr),
    /// STRING_MAP
    Map(Map<'a>),
}

impl<'a> Value<'a> {
    /// Text that lives as long as the bag.
    pub fn text(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }

    /// The words for a message: "a string", …
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Int(_) => "an int64",
            Value::Double(_) => "a double",
            Value::Bool(_) => "a bool",
            Value::Time(_) => "a timestamp",
            Value::Duration(_) => "a duration",
            Value::Address(_) => "bytes",
            Value::Map(_) => "a string map",
        }
    }

    /// Whether this may be the value of an attribute of type `kind`.
    pub(crate) fn is(&self, kind: Type) -> bool {
        match self {
            Value::Text(_) => matches!(kind, Type::String | Type::EmailAddress | Type::Uri | Type::DnsName),
            Value::Int(_) => kind == Type::Int64,
            Value::Double(_) => kind == Type::Double,
            Value::Bool(_) => kind == Type::Bool,
            Value::Time(_) => kind == Type::Timestamp,
            Value::Duration(_) => kind == Type::Duration,
            Value::Address(_) => kind == Type::IpAddress,
            Value::Map(_) => kind == Type::StringMap,
        }
    }
}

/// As text, the way overrides of quotas and cells name a dimension.
impl fmt::Display for Value<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => out.write_str(text),
            Value::Int(value) => write!(out, "{value}"),
            Value::Double(value) => write!(out, "{value}"),
            Value::Bool(value) => write!(out, "{value}"),
            Value::Time(time) => write!(out, "{}.{:09}", time.seconds, time.nanos),
            Value::Duration(nanos) => write!(out, "{nanos}ns"),
            Value::Address(address) => write!(out, "{address}"),
            Value::Map(_) => out.write_char('?'),
        }
    }
}

/// A string map, read by key only.
#[derive(Debug, Clone, Copy)]
pub enum Map<'a> {
    /// No entries.
    Empty,
    /// As a decoded message holds it.
    Entries(&'a std::collections::HashMap<String, String>),
    /// As it came in compressed attributes.
    #[doc(hidden)]
    Wire(&'a [u8], &'a Words<'a>),
}

impl<'a> Map<'a> {
    /// The value of `key`. Bytes that don't parse hold no entries: the bag has judged them before.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        match *self {
            Map::Empty => None,
            Map::Entries(entries) => entries.get(key).map(String::as_str),
            Map::Wire(bytes, words) => {
                let wanted = words.index(key)?;
                let mut found = None;
                for field in Fields(bytes) {
                    if let Ok((1, field)) = field
                        && let Ok((key, value)) = wire::entry(field.bytes().ok()?)
                        && key == wanted
                    {
                        found = Some(value.map_or(Ok(0), |value| value.sint32()).ok()?);
                    }
                }
                found.and_then(|index| words.word(index))
            }
        }
    }

    /// All entries, each under the word that its key would be asked by.
    pub(crate) fn to_owned(self) -> std::collections::HashMap<String, String> {
        if let Map::Entries(entries) = self {
            return entries.clone();
        }
        let mut entries = std::collections::HashMap::new();
        self.each(|key, value| drop(entries.insert(key.to_owned(), value.to_owned())));
        entries
    }
}

impl<'a> Map<'a> {
    /// Gives every key with its value.
    pub fn each(&self, mut give: impl FnMut(&'a str, &'a str)) {
        match *self {
            Map::Empty => {}
            Map::Entries(entries) => entries.iter().for_each(|(key, value)| give(key, value)),
            Map::Wire(bytes, words) => {
                for field in Fields(bytes) {
                    if let Ok((1, field)) = field
                        && let Ok((key, value)) = field.bytes().and_then(wire::entry)
                        && let Ok(value) = value.map_or(Ok(0), |value| value.sint32())
                        && let (Some(name), Some(value)) = (words.word(key), words.word(value))
                        && words.index(name) == Some(key)
                    {
                        give(name, value);
                    }
                }
            }
        }
    }
}

/// The address in 4 or 16 bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let address = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(address.to_canonical())
}

/// Nanoseconds of a Duration message, held at the ends of int64 (about 292 years).
pub(crate) fn duration_nanos(seconds: i64, nanos: i32) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos))
}
