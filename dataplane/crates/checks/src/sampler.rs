//! Which attributes requests and reports really carry, with a few examples: what an author of rules can build on.
//!
//! Looking at every request would cost more than deciding about it, so one is looked at every few milliseconds; memory
//! is bounded, and nothing that may be secret is kept.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use meshwright_api::meshwright::mixer::v1 as wire;
use meshwright_policy::{CheckRequest, Seen};
use prost::Message;

use crate::secrets;

/// Between two requests that are looked at: a busy process spends no more than a thousandth of a core on this.
const PAUSE: u64 = 10_000_000;
/// Names, each with or without a key.
const MAX_NAMES: usize = 1024;
/// Keys of one map.
const MAX_KEYS: usize = 128;
const MAX_EXAMPLES: usize = 3;
/// Of an example, in characters.
const MAX_SHOWN: usize = 64;
/// Longer names and keys are nobody's attributes.
const MAX_NAME: usize = 256;

/// What was seen since the start.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Nanoseconds of the state's clock.
    next: AtomicU64,
    seen: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sampled: u64,
    left_out: u64,
    names: BTreeMap<(Box<str>, Option<Box<str>>), Known>,
    keys: BTreeMap<Box<str>, usize>,
}

#[derive(Debug, Default)]
struct Known {
    types: BTreeMap<&'static str, u64>,
    examples: Vec<String>,
    is_secret: bool,
}

impl Sampler {
    /// Whether to look at the request of now.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        now >= next
            && (self.next)
                .compare_exchange(next, now + PAUSE, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Looks at a Check.
    pub(crate) fn check(&self, request: &CheckRequest<'_>) {
        // A request that can't be read is told to its caller, not here.
        if let Ok(seen) = request.seen() {
            self.add(seen);
        }
    }

    /// Looks at what was seen of one request.
    pub(crate) fn add(&self, seen: Vec<Seen<'_>>) {
        let mut table = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        table.sampled += 1;
        for each in seen {
            table.add(&each);
        }
    }

    /// A serialised AttributesResponse: what was seen of names that begin with `prefix`.
    pub fn read(&self, prefix: &str) -> Vec<u8> {
        self.response(prefix).encode_to_vec()
    }

    fn response(&self, prefix: &str) -> wire::AttributesResponse {
        let table = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let attributes = table
            .names
            .iter()
            .filter(|((name, _), _)| name.starts_with(prefix))
            .map(|((name, key), known)| wire::SeenAttribute {
                name: name.to_string(),
                key: key.as_deref().map(str::to_owned),
                types: known
                    .types
                    .iter()
                    .map(|(kind, count)| ((*kind).to_owned(), *count))
                    .collect(),
                examples: known.examples.clone(),
                secret: known.is_secret,
            })
            .collect();
        wire::AttributesResponse {
            sampled: table.sampled,
            attributes,
            left_out: table.left_out,
        }
    }
}

impl Table {
    fn add(&mut self, seen: &Seen<'_>) {
        if seen.name.len() > MAX_NAME || seen.key.is_some_and(|key| key.len() > MAX_NAME) {
            self.left_out += 1;
            return;
        }
        let place = (Box::from(seen.name), seen.key.map(Box::from));
        if !self.names.contains_key(&place) {
            if self.names.len() >= MAX_NAMES {
                self.left_out += 1;
                return;
            }
            if seen.key.is_some() {
                let keys = self.keys.entry(seen.name.into()).or_default();
                if *keys >= MAX_KEYS {
                    self.left_out += 1;
                    return;
                }
                *keys += 1;
            }
        }
        let known = self.names.entry(place).or_default();
        *known.types.entry(seen.kind).or_default() += 1;
        known.is_secret |= secrets::is_secret(seen.name, seen.key);
        let value = &*seen.value;
        if known.is_secret || secrets::looks_secret(value) {
            return;
        }
        if known.examples.len() < MAX_EXAMPLES {
            let shown = shown(secrets::without_query(seen.name, seen.key, value));
            if !known.examples.contains(&shown) {
                known.examples.push(shown);
            }
        }
    }
}

fn shown(value: &str) -> String {
    let mut shown: String = value.chars().take(MAX_SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(name: &'a str, key: Option<&'a str>, value: &str) -> Seen<'a> {
        Seen {
            name,
            key,
            kind: "STRING",
            value: value.to_owned().into(),
        }
    }

    fn find<'a>(response: &'a wire::AttributesResponse, name: &str, key: Option<&str>) -> &'a wire::SeenAttribute {
        let found = response
            .attributes
            .iter()
            .find(|each| each.name == name && each.key.as_deref() == key);
        found.unwrap_or_else(|| panic!("no {name} {key:?}"))
    }

    #[test]
    fn one_request_in_a_while_is_looked_at() {
        let sampler = Sampler::default();
        assert!(sampler.is_due(5));
        assert!(!sampler.is_due(6));
        assert!(!sampler.is_due(PAUSE));
        assert!(sampler.is_due(PAUSE + 5));
    }

    #[test]
    fn types_are_counted_and_a_few_examples_kept() {
        let sampler = Sampler::default();
        for path in ["/a", "/b", "/a", "/c", "/d"] {
            sampler.add(vec![seen("request.path", None, path)]);
        }
        let response = sampler.response("request.");
        let path = find(&response, "request.path", None);
        assert_eq!(response.sampled, 5);
        assert_eq!(path.types["STRING"], 5);
        assert_eq!(path.examples, ["/a", "/b", "/c"]);
        assert!(sampler.response("source.").attributes.is_empty());
    }

    #[test]
    fn secrets_are_never_kept() {
        let sampler = Sampler::default();
        sampler.add(vec![
            seen("request.headers", Some("Authorization"), "Basic c2VjcmV0"),
            seen("request.headers", Some("cookie"), "session=c2VjcmV0"),
            seen("request.headers", Some("x-forwarded-for"), "Bearer c2VjcmV0"),
            seen("request.api_key", None, "c2VjcmV0"),
            seen("request.path", None, "/login?token=c2VjcmV0"),
            seen("request.headers", Some(":path"), "/login?token=c2VjcmV0"),
            seen("request.referer", None, "https://a.example/?code=c2VjcmV0"),
            seen("request.query_params", Some("access_token"), "c2VjcmV0"),
            seen("request.auth.raw_claims", None, "{\"sub\":\"c2VjcmV0\"}"),
            seen("request.auth.claims", Some("email"), "c2VjcmV0"),
        ]);
        let response = sampler.response("");
        assert_eq!(response.attributes.len(), 10);
        assert!(!format!("{response:?}").contains("c2VjcmV0"), "{response:?}");
        assert_eq!(find(&response, "request.path", None).examples, ["/login"]);
        assert!(find(&response, "request.headers", Some("cookie")).secret);
    }

    #[test]
    fn memory_is_bounded() {
        let sampler = Sampler::default();
        for number in 0..5000 {
            let (name, key) = (format!("x.{number}"), format!("k{number}"));
            sampler.add(vec![
                seen("request.headers", Some(&key), &"v".repeat(10_000)),
                seen(&name, None, "y"),
            ]);
        }
        let response = sampler.response("");
        assert_eq!(response.attributes.len(), MAX_NAMES);
        assert_eq!(response.left_out, 10_000 - MAX_NAMES as u64);
        let longest = response
            .attributes
            .iter()
            .flat_map(|each| &each.examples)
            .map(|text| text.chars().count());
        assert_eq!(longest.max(), Some(MAX_SHOWN + 1));
    }
}
