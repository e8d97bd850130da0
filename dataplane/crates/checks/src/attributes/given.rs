//! Attributes that a proxy's configuration gives by name, as text: ext_authz's `context_extensions`, custom tags of
//! access logs, descriptor entries, metadata `meshwright.attributes`. `source.labels.app` is the entry `app` of the map
//! `source.labels`.

use std::collections::HashMap;
use std::net::IpAddr;

use meshwright_api::meshwright::policy::v1::Type;
use meshwright_policy::{Bag, Map, Names, Value};

use super::table;

/// Maps by the attribute's name.
pub(crate) type Maps = HashMap<&'static str, HashMap<String, String>>;

/// Sets what `names` has; a value that isn't of its attribute's type is left out.
pub(crate) fn fill<'a>(
    bag: &mut Bag<'a>,
    names: &Names,
    given: impl Iterator<Item = (&'a str, &'a str)>,
    maps: &'a Maps,
) {
    for (name, text) in given {
        if let Some(kind) = names.kind_of(name)
            && let Some(value) = value(text, kind)
        {
            bag.set(name, value);
        }
    }
    for (name, entries) in maps {
        bag.set(name, Value::Map(Map::Entries(entries)));
    }
}

/// The entries of maps among what is given.
pub(crate) fn maps<'a>(given: impl Iterator<Item = (&'a str, &'a str)>) -> Maps {
    let mut maps = Maps::new();
    for (name, text) in given {
        for map in table::maps() {
            if let Some(key) = name.strip_prefix(map).and_then(|rest| rest.strip_prefix('.'))
                && is_said(text)
            {
                maps.entry(map).or_default().insert(key.to_owned(), text.to_owned());
            }
        }
    }
    maps
}

/// Text as a value of that type. Empty text is nothing, and so is Envoy's `-`.
pub(crate) fn value(text: &str, kind: Type) -> Option<Value<'_>> {
    if !is_said(text) {
        return None;
    }
    match kind {
        Type::String | Type::EmailAddress | Type::Uri | Type::DnsName => Some(Value::text(text)),
        Type::Int64 => text.parse().ok().map(Value::Int),
        Type::Double => text.parse().ok().map(Value::Double),
        Type::Bool => text.parse().ok().map(Value::Bool),
        Type::IpAddress => text
            .parse()
            .ok()
            .map(|address: IpAddr| Value::Address(address.to_canonical())),
        Type::Unspecified | Type::Timestamp | Type::Duration | Type::StringMap => None,
    }
}

fn is_said(text: &str) -> bool {
    !matches!(text, "" | "-")
}
