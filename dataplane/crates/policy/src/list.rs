//! The list checker: is a value on a list, which is either who may pass or who may not?

use std::net::IpAddr;

use ipnet::IpNet;
use regex::RegexSet;

use meshwright_api::meshwright::policy::v1::handler::list_checker::EntryType;

use crate::hash::HashMap;
use crate::value::Value;

const NOT_FOUND: i32 = 5;
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
/// Characters of a value that a message repeats.
const SHOWN: usize = 200;

#[derive(Debug)]
enum Entries {
    Exact(HashMap<Box<str>, ()>),
    /// In lower case.
    AnyCase(HashMap<Box<str>, ()>),
    Networks(Vec<IpNet>),
    Patterns(RegexSet),
}

/// A list, ready to be asked.
#[derive(Debug)]
pub(crate) struct List {
    entries: Entries,
    is_blacklist: bool,
}

impl List {
    pub(crate) fn new(kind: EntryType, entries: &[String], is_blacklist: bool) -> Result<Self, String> {
        let entries = match kind {
            EntryType::Strings => Entries::Exact(entries.iter().map(|entry| (entry.as_str().into(), ())).collect()),
            EntryType::CaseInsensitiveStrings => {
                Entries::AnyCase(entries.iter().map(|entry| (entry.to_lowercase().into(), ())).collect())
            }
            EntryType::IpAddresses => {
                Entries::Networks(entries.iter().map(|entry| network(entry)).collect::<Result<_, _>>()?)
            }
            EntryType::Regex => Entries::Patterns(
                regex::RegexSetBuilder::new(entries)
                    .size_limit(10 << 20)
                    .build()
                    .map_err(|error| error.to_string())?,
            ),
        };
        Ok(List { entries, is_blacklist })
    }

    /// Ok, or code and message of the denial.
    pub(crate) fn check(&self, value: &Value<'_>) -> Result<(), (i32, String)> {
        let text = value.to_string();
        let shown: String = text.chars().take(SHOWN).collect();
        let is_listed = match &self.entries {
            Entries::Exact(entries) => entries.contains_key(text.as_str()),
            Entries::AnyCase(entries) => entries.contains_key(text.to_lowercase().as_str()),
            Entries::Patterns(patterns) => patterns.is_match(&text),
            Entries::Networks(networks) => {
                let address = match value {
                    Value::Address(address) => *address,
                    _ => match text.parse::<IpAddr>() {
                        Ok(address) => address.to_canonical(),
                        Err(_) => return Err((INVALID_ARGUMENT, format!("{shown} is not a valid IP address"))),
                    },
                };
                networks.iter().any(|network| network.contains(&address))
            }
        };
        match (is_listed, self.is_blacklist) {
            (true, true) => Err((PERMISSION_DENIED, format!("{shown} is blacklisted"))),
            (false, false) => Err((NOT_FOUND, format!("{shown} is not whitelisted"))),
            _ => Ok(()),
        }
    }
}

fn network(entry: &str) -> Result<IpNet, String> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    entry
        .parse()
        .map_err(|_| format!("{entry:?} is neither an IP address nor a CIDR block"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(kind: EntryType, entries: &[&str], is_blacklist: bool, value: &str) -> i32 {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let list = List::new(kind, &entries, is_blacklist).unwrap();
        list.check(&Value::text(value)).err().map_or(0, |(code, _)| code)
    }

    #[test]
    fn each_kind_of_entry_finds_its_own() {
        use EntryType::{CaseInsensitiveStrings, IpAddresses, Regex, Strings};
        assert_eq!(code(Strings, &["v1", "v2"], false, "v1"), 0);
        assert_eq!(code(Strings, &["v1", "v2"], false, "V1"), NOT_FOUND);
        assert_eq!(code(CaseInsensitiveStrings, &["Ann"], true, "aNN"), PERMISSION_DENIED);
        assert_eq!(code(IpAddresses, &["10.57.0.0/16", "::1"], false, "10.57.3.4"), 0);
        assert_eq!(code(IpAddresses, &["10.57.0.0/16"], false, "::ffff:10.57.3.4"), 0);
        assert_eq!(code(IpAddresses, &["10.57.0.0/16"], false, "10.58.3.4"), NOT_FOUND);
        assert_eq!(code(IpAddresses, &["10.57.0.0/16"], true, "ten"), INVALID_ARGUMENT);
        assert_eq!(
            code(Regex, &["^/admin/", "secret"], true, "/a/secret/b"),
            PERMISSION_DENIED
        );
        assert_eq!(code(Strings, &[], true, "anything"), 0);
    }
}
