//! Reads one descriptor of a rate limit request.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use meshwright_policy::{Bag, Names};

use super::table::{self, Limit};
use super::{given, namespace};

/// A descriptor and who sent it.
#[derive(Debug, Default)]
pub(crate) struct Limited {
    pub(super) domain: Arc<str>,
    pub(super) entries: HashMap<String, String>,
    pub(super) hits: i64,
    caller: Option<Arc<str>>,
    maps: OnceLock<given::Maps>,
}

impl Limited {
    pub(crate) fn new(domain: Arc<str>, entries: Vec<Entry>, hits: i64, caller: Option<Arc<str>>) -> Self {
        let mut by_key = HashMap::with_capacity(entries.len());
        for entry in entries {
            by_key.entry(entry.key).or_insert(entry.value);
        }
        Limited {
            domain,
            entries: by_key,
            hits,
            caller,
            maps: OnceLock::new(),
        }
    }

    /// The attributes that `names` has. An entry that is named as an attribute is that attribute.
    pub(crate) fn bag<'a>(&'a self, names: &'a Names) -> Bag<'a> {
        let mut bag = Bag::new(names);
        let given = || self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let maps = self.maps.get_or_init(|| given::maps(given()));
        given::fill(&mut bag, names, given(), maps);
        for row in table::ROWS {
            if let Some(kind) = names.kind_of(row.name)
                && let Some(value) = match &row.limit {
                    Limit::Nowhere => None,
                    Limit::Entry(keys) => keys
                        .iter()
                        .find_map(|key| self.entry(key))
                        .and_then(|text| given::value(text, kind)),
                    Limit::Itself(column) => (column.read)(self),
                }
            {
                bag.set(row.name, value);
            }
        }
        bag
    }

    pub(super) fn entry(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str)
    }

    pub(super) fn destination_namespace(&self) -> Option<&str> {
        let given = |name: &str| self.entries.get(name).map(String::as_str);
        given("destination.namespace")
            .or_else(|| given("destination.workload.namespace"))
            .or_else(|| given("destination.service.namespace"))
            .or_else(|| namespace(self.caller.as_deref()?))
    }

    pub(super) fn reporter_kind(&self) -> Option<&str> {
        let given = self.entries.get("context.reporter.kind");
        given.map(String::as_str).or(self.caller.as_ref().map(|_| "inbound"))
    }
}
