//! Replies that adapters let be used again: asked the same by another request, the adapter isn't asked.
//!
//! Kept by the whole evaluated instance, so that a reply is used for just the question that it answers; a new policy
//! brings handlers of its own, and with them questions that nobody was asked yet. Bounded: a shard that is full forgets
//! what has ended, and if nothing has, all it knows.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use meshwright_api::istio::mixer::v1::attributes::AttributeValue;
use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value;
use meshwright_policy::{Asked, Question, Reply, Subject, Variety};
use prost::Message;

const SHARDS: usize = 16;
/// Replies a shard keeps at the most.
const MAX_REPLIES: usize = 256;
/// Longer questions, and replies with more output, aren't kept.
const MAX_BYTES: usize = 4096;

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    asked: Arc<Asked>,
    subject: Arc<Subject>,
    fields: Box<[u8]>,
}

impl Key {
    /// The question's; None when its reply isn't to be kept: quotas are charged each time.
    pub(crate) fn of(question: &Question) -> Option<Self> {
        if question.subject.variety == Variety::Quota {
            return None;
        }
        let mut fields = Vec::with_capacity(128);
        for (name, value) in &question.fields {
            put(&mut fields, name.as_bytes());
            put_value(&mut fields, value);
            if fields.len() > MAX_BYTES {
                return None;
            }
        }
        Some(Key {
            asked: question.asked.clone(),
            subject: question.subject.clone(),
            fields: fields.into(),
        })
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.asked, &other.asked)
            && Arc::ptr_eq(&self.subject, &other.subject)
            && self.fields == other.fields
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        Arc::as_ptr(&self.asked).hash(hasher);
        Arc::as_ptr(&self.subject).hash(hasher);
        self.fields.hash(hasher);
    }
}

#[derive(Debug)]
struct Entry {
    reply: Reply,
    /// On the clock of the caller, in nanoseconds.
    until: u64,
    /// Negative: no limit.
    uses: i32,
}

/// All replies that are kept.
#[derive(Debug, Default)]
pub(crate) struct KeptReplies {
    shards: [Mutex<HashMap<Key, Entry, RandomState>>; SHARDS],
    hasher: RandomState,
}

impl KeptReplies {
    /// What was replied to the same question, valid for as long as is left of it.
    pub(crate) fn find(&self, key: &Key, now: u64) -> Option<Reply> {
        let mut shard = self.shard(key);
        let entry = shard.get_mut(key)?;
        let left = entry.until.saturating_sub(now);
        if left == 0 || entry.uses == 0 {
            shard.remove(key);
            return None;
        }
        if entry.uses > 0 {
            entry.uses -= 1;
        }
        Some(Reply {
            valid_nanos: i64::try_from(left).unwrap_or(i64::MAX),
            ..entry.reply.clone()
        })
    }

    /// Keeps a reply for as long as its adapter allows.
    pub(crate) fn keep(&self, key: Key, reply: &Reply, now: u64) {
        let Some(valid) = u64::try_from(reply.valid_nanos).ok().filter(|valid| *valid > 0) else {
            return;
        };
        if reply.uses == 0 || size(reply) > MAX_BYTES {
            return;
        }
        let mut shard = self.shard(&key);
        if shard.len() >= MAX_REPLIES {
            shard.retain(|_, entry| entry.until > now && entry.uses != 0);
            if shard.len() >= MAX_REPLIES {
                shard.clear();
            }
        }
        let entry = Entry {
            reply: reply.clone(),
            until: now.saturating_add(valid),
            // The caller that asked has one of them.
            uses: if reply.uses > 0 { reply.uses - 1 } else { reply.uses },
        };
        shard.insert(key, entry);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    fn shard(&self, key: &Key) -> std::sync::MutexGuard<'_, HashMap<Key, Entry, RandomState>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(reply: &Reply) -> usize {
    let outputs: usize = reply
        .outputs
        .iter()
        .map(|(name, value)| name.len() + value.encoded_len())
        .sum();
    reply.status.encoded_len() + outputs
}

fn put(buffer: &mut Vec<u8>, part: &[u8]) {
    buffer.extend_from_slice(&(part.len() as u32).to_le_bytes());
    buffer.extend_from_slice(part);
}

/// Equal values are equal bytes: a map's entries in the order of their names.
fn put_value(buffer: &mut Vec<u8>, value: &AttributeValue) {
    let Some(Value::StringMapValue(map)) = &value.value else {
        return put(buffer, &value.encode_to_vec());
    };
    let mut entries: Vec<_> = map.entries.iter().collect();
    entries.sort_unstable();
    // No other value begins so: a field of a message has at least its number and kind.
    buffer.extend_from_slice(&u32::MAX.to_le_bytes());
    buffer.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (name, text) in entries {
        put(buffer, name.as_bytes());
        put(buffer, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use meshwright_api::istio::mixer::v1::attributes::StringMap;
    use meshwright_policy::Host;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    struct Handler {
        asked: Arc<Asked>,
        subject: Arc<Subject>,
    }

    impl Handler {
        fn new(variety: Variety) -> Self {
            Handler {
                asked: Arc::new(Asked {
                    handler: "h.n".into(),
                    adapter: "a".into(),
                    host: Host::Python,
                    is_open: false,
                    timeout: Duration::from_secs(1),
                }),
                subject: Arc::new(Subject {
                    instance: "i.n".into(),
                    template: "t".into(),
                    variety,
                }),
            }
        }

        fn question(&self, fields: &[(&str, Value)]) -> Question {
            let field = |(name, value): &(&str, Value)| {
                let value = AttributeValue {
                    value: Some(value.clone()),
                };
                (Arc::from(*name), value)
            };
            Question {
                asked: self.asked.clone(),
                subject: self.subject.clone(),
                fields: fields.iter().map(field).collect(),
                wanted: None,
            }
        }

        fn key(&self, fields: &[(&str, Value)]) -> Key {
            Key::of(&self.question(fields)).unwrap()
        }
    }

    fn text(value: &str) -> Value {
        Value::StringValue(value.to_owned())
    }

    fn reply(valid: u64, uses: i32) -> Reply {
        Reply {
            valid_nanos: valid as i64,
            uses,
            ..Reply::default()
        }
    }

    #[test]
    fn a_reply_serves_its_own_question_for_its_time() {
        let (kept, handler) = (KeptReplies::default(), Handler::new(Variety::Check));
        kept.keep(handler.key(&[("value", text("ann"))]), &reply(5 * SECOND, -1), 0);
        let again = handler.key(&[("value", text("ann"))]);
        assert_eq!(kept.find(&again, 2 * SECOND).unwrap().valid_nanos, 3 * SECOND as i64);
        assert!(kept.find(&handler.key(&[("value", text("bob"))]), 0).is_none());
        assert!(kept.find(&handler.key(&[("other", text("ann"))]), 0).is_none());
        assert!(
            kept.find(&handler.key(&[("value", Value::BytesValue("ann".into()))]), 0)
                .is_none()
        );
        assert!(kept.find(&again, 5 * SECOND).is_none());
        assert_eq!(kept.len(), 0);
    }

    #[test]
    fn a_new_policys_handler_is_asked_anew() {
        let (kept, before, after) = (
            KeptReplies::default(),
            Handler::new(Variety::Check),
            Handler::new(Variety::Check),
        );
        kept.keep(before.key(&[]), &reply(SECOND, -1), 0);
        assert!(kept.find(&after.key(&[]), 0).is_none());
    }

    #[test]
    fn uses_are_counted_with_the_first() {
        let (kept, handler) = (KeptReplies::default(), Handler::new(Variety::Check));
        kept.keep(handler.key(&[]), &reply(SECOND, 3), 0);
        let found = (0..9).filter(|_| kept.find(&handler.key(&[]), 0).is_some()).count();
        assert_eq!(found, 2);
    }

    #[test]
    fn what_may_not_be_used_again_is_not_kept() {
        let (kept, handler) = (KeptReplies::default(), Handler::new(Variety::Check));
        for reply in [
            reply(0, -1),
            reply(SECOND, 0),
            Reply {
                valid_nanos: -1,
                uses: -1,
                ..Reply::default()
            },
        ] {
            kept.keep(handler.key(&[]), &reply, 0);
        }
        assert_eq!(kept.len(), 0);
        assert!(Key::of(&Handler::new(Variety::Quota).question(&[])).is_none());
        let long = "x".repeat(MAX_BYTES + 1);
        assert!(Key::of(&handler.question(&[("value", text(&long))])).is_none());
    }

    #[test]
    fn equal_maps_are_equal_however_they_are_ordered() {
        let (kept, handler) = (KeptReplies::default(), Handler::new(Variety::Check));
        let map = |names: &[&str]| {
            let entries: HashMap<_, _> = names.iter().map(|name| ((*name).to_owned(), "v".to_owned())).collect();
            Value::StringMapValue(StringMap { entries })
        };
        kept.keep(
            handler.key(&[("labels", map(&["a", "b", "c", "d"]))]),
            &reply(SECOND, -1),
            0,
        );
        for _ in 0..20 {
            assert!(
                kept.find(&handler.key(&[("labels", map(&["d", "c", "b", "a"]))]), 0)
                    .is_some()
            );
        }
        assert!(
            kept.find(&handler.key(&[("labels", map(&["a", "b", "c"]))]), 0)
                .is_none()
        );
    }

    #[test]
    fn memory_is_bounded() {
        let (kept, handler) = (KeptReplies::default(), Handler::new(Variety::Check));
        for number in 0..20_000 {
            kept.keep(
                handler.key(&[("value", Value::Int64Value(number))]),
                &reply(SECOND, -1),
                0,
            );
        }
        assert!(kept.len() <= SHARDS * MAX_REPLIES);
        assert!(kept.len() > 0);
    }
}
