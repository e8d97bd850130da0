//! What rules are found by: parts of their conditions that ask one text for equality or a prefix.

use meshwright_api::meshwright::policy::v1 as compiled;

use crate::error::Refused;
use crate::expression::{At, Expressions, Node};
use crate::names::Slot;
use crate::value::{Type, Value};

/// Longer chains gain nothing.
const MAX_KEYS: usize = 16;
/// Of one rule in the index.
const MAX_PLACES: usize = 1024;

/// The text that is asked: an attribute or an entry of one.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    slot: Slot,
    key: Option<Box<str>>,
    pub(crate) node: At,
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot && self.key == other.key
    }
}

/// Holds when the subject is one of the texts, or begins with one of the prefixes.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) subject: Subject,
    pub(crate) equals: Vec<Box<str>>,
    pub(crate) prefixes: Vec<Box<str>>,
}

impl Key {
    pub(crate) fn holds(&self, text: &str) -> bool {
        self.equals.iter().any(|wanted| **wanted == *text)
            || self.prefixes.iter().any(|prefix| text.starts_with(&**prefix))
    }

    fn load(key: &compiled::Key, words: &[String], expressions: &Expressions, place: &str) -> Result<Self, Refused> {
        let node = expressions.expect(key.subject, &[Type::String], place)?;
        let subject = match &expressions.nodes[node as usize] {
            Node::Attribute(slot) => Subject {
                slot: *slot,
                key: None,
                node,
            },
            Node::Index { map, key, .. } => {
                match (&expressions.nodes[*map as usize], &expressions.nodes[*key as usize]) {
                    (Node::Attribute(slot), Node::Constant(Value::Text(key))) => Subject {
                        slot: *slot,
                        key: Some(key.as_ref().into()),
                        node,
                    },
                    _ => {
                        return Err(Refused::new(
                            place,
                            "asks an entry that isn't an attribute's under a constant key",
                        ));
                    }
                }
            }
            _ => return Err(Refused::new(place, "asks neither an attribute nor an entry of one")),
        };
        let texts = |indices: &[u32]| -> Result<Vec<Box<str>>, Refused> {
            indices
                .iter()
                .map(|index| {
                    let word = words.get(*index as usize).map(|word| word.as_str().into());
                    word.ok_or_else(|| Refused::new(place, format!("there is no word {index}")))
                })
                .collect()
        };
        let (equals, prefixes) = (texts(&key.equals)?, texts(&key.prefixes)?);
        if equals.is_empty() && prefixes.is_empty() {
            return Err(Refused::new(place, "asks for nothing"));
        }
        Ok(Key {
            subject,
            equals,
            prefixes,
        })
    }
}

/// All of a rule.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Every one must hold, in order.
    pub(crate) all: Vec<Key>,
    /// If there are any, one of them must hold.
    pub(crate) either: Vec<Key>,
}

impl Keys {
    pub(crate) fn load(
        rule: &compiled::Rule,
        words: &[String],
        expressions: &Expressions,
        place: &str,
    ) -> Result<Self, Refused> {
        if rule.keys.len() + rule.either.len() > MAX_KEYS {
            return Err(Refused::new(place, format!("more than {MAX_KEYS} keys")));
        }
        let load = |name: &str, keys: &[compiled::Key]| -> Result<Vec<Key>, Refused> {
            keys.iter()
                .enumerate()
                .map(|(index, key)| Key::load(key, words, expressions, &format!("{place}.{name}[{index}]")))
                .collect()
        };
        let (all, either) = (load("keys", &rule.keys)?, load("either", &rule.either)?);
        let count = |key: &Key| key.equals.len() + key.prefixes.len();
        let places = all.iter().map(count).fold(1, usize::saturating_mul);
        if places.saturating_mul(either.iter().map(count).sum::<usize>().max(1)) > MAX_PLACES {
            return Err(Refused::new(
                place,
                format!("its keys make more than {MAX_PLACES} combinations"),
            ));
        }
        Ok(Keys { all, either })
    }
}
