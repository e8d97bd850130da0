//! The attributes of one request, as far as the policy reads them. Values of compressed attributes stay undecoded
//! until a rule reads them; a value of the wrong type or length is the caller's error, told when it is read.

use crate::dictionary;
use crate::element::Vocabulary;
use crate::generate::Generated;
use crate::hash::HashMap;
use crate::names::{Names, Slot};
use crate::plain;
use crate::value::{self, Map, Time, Value};
use crate::wire::{self, Field, Fields, Malformed};

/// Words that many messages share, with their indices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) words: &'a [&'a str],
    pub(crate) indices: &'a HashMap<&'a str, i32>,
}

/// The words of one message, and behind them the global dictionary.
#[derive(Debug, Clone, Default)]
pub struct Words<'a> {
    own: Vec<&'a str>,
    /// Those of a vocabulary in place of its own.
    shared: Option<Shared<'a>>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(message: Vec<&'a str>) -> Self {
        Words {
            own: message,
            shared: None,
        }
    }

    pub(crate) fn shared(shared: Shared<'a>) -> Self {
        Words {
            own: Vec::new(),
            shared: Some(shared),
        }
    }

    /// The word of an index: zero and above in the global dictionary, below zero in the message.
    pub(crate) fn word(&self, index: i32) -> Option<&'a str> {
        if index >= 0 {
            return dictionary::word(index);
        }
        let words = self.shared.map_or(self.own.as_slice(), |shared| shared.words);
        // -1 is the first; `!` maps it to 0 without overflow at the lowest number.
        words.get(!index as usize).copied()
    }

    /// The index under which Mixer looks a word up: a word of the message hides the same global word.
    pub(crate) fn index(&self, word: &str) -> Option<i32> {
        if let Some(shared) = self.shared {
            return shared.indices.get(word).copied().or_else(|| dictionary::index(word));
        }
        match self.own.iter().rposition(|candidate| *candidate == word) {
            Some(position) => Some(!(position as i32)),
            None => dictionary::index(word),
        }
    }
}

/// Where an attribute's value is.
#[derive(Debug, Clone, Default)]
enum Place<'a> {
    #[default]
    Absent,
    /// Field number of CompressedAttributes (which tells the type) and the entry's value.
    Wire(u32, Option<Field<'a>>),
    Given(Value<'a>),
}

/// The attributes of one request.
#[derive(Debug)]
pub struct Bag<'a> {
    names: &'a Names,
    places: Vec<Place<'a>>,
    words: Words<'a>,
    generated: Option<&'a Generated>,
    is_explained: bool,
}

/// An attribute that is there, but not as its type says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongType(pub(crate) String);

impl<'a> Bag<'a> {
    /// A bag without attributes.
    pub fn new(names: &'a Names) -> Self {
        Bag {
            names,
            places: vec![Place::Absent; names.len()],
            words: Words::default(),
            generated: None,
            is_explained: false,
        }
    }

    /// With the attributes that generators made, in place of the request's own. The answer then refers to what the
    /// generators read.
    pub fn with<'b>(self, generated: &'b Generated) -> Bag<'b>
    where
        'a: 'b,
    {
        let mut bag: Bag<'b> = self;
        for (slot, value) in &generated.values {
            if let Some(value) = plain::read(value) {
                bag.places[*slot as usize] = Place::Given(value);
            }
        }
        bag.generated = Some(generated);
        bag
    }

    /// Has whatever is decided about this request explain itself: `Decision::explanation` and the like.
    pub fn explained(mut self) -> Self {
        self.is_explained = true;
        self
    }

    pub(crate) fn is_explained(&self) -> bool {
        self.is_explained
    }

    pub(crate) fn generated(&self) -> Option<&'a Generated> {
        self.generated
    }

    pub(crate) fn is_generated(&self, slot: Slot) -> bool {
        self.generated
            .is_some_and(|generated| generated.values.iter().any(|(known, _)| *known == slot))
    }

    /// Gives an attribute its value; one that the policy doesn't read is dropped.
    pub fn set(&mut self, name: &str, value: Value<'a>) {
        if let Some(slot) = self.names.slot(name) {
            self.places[slot as usize] = Place::Given(value);
        }
    }

    /// From a CompressedAttributes message. Indices without a word are skipped.
    pub fn compressed(names: &'a Names, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut bag = Bag::new(names);
        // A global index whose word the message has too is dead: Mixer looks such a word up under the message's index.
        let mut shadowed: Vec<Option<i32>> = vec![None; names.len()];
        let mut words = Vec::new();
        for field in Fields(bytes) {
            if let (1, field) = field? {
                let word = field.text()?;
                words.push(word);
                if let Some(slot) = names.slot(word) {
                    shadowed[slot as usize] = Some(!(words.len() as i32 - 1));
                }
            }
        }
        bag.words = Words::new(words);
        for field in Fields(bytes) {
            let (number, field) = field?;
            if !(2..=9).contains(&number) {
                continue;
            }
            let (key, value) = wire::entry(field.bytes()?)?;
            let slot = if key >= 0 {
                names.global(key)
            } else {
                bag.words.word(key).and_then(|word| names.slot(word))
            };
            if let Some(slot) = slot
                && shadowed[slot as usize].is_none_or(|index| index == key)
            {
                bag.places[slot as usize] = Place::Wire(number, value);
            }
        }
        Ok(bag)
    }

    /// Attributes that were set, by name.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.places.iter().enumerate().filter_map(|(slot, place)| match place {
            Place::Given(value) => Some((self.names.name(slot as Slot), value)),
            _ => None,
        })
    }

    /// From a CompressedAttributes message without words of its own, whose words are `vocabulary`, made with `names`.
    pub(crate) fn element(
        names: &'a Names,
        bytes: &'a [u8],
        vocabulary: &'a Vocabulary<'a>,
    ) -> Result<Self, Malformed> {
        let mut bag = Bag::new(names);
        bag.words = vocabulary.words();
        for field in Fields(bytes) {
            let (number, field) = field?;
            if !(2..=9).contains(&number) {
                continue;
            }
            let (key, value) = wire::entry(field.bytes()?)?;
            let slot = if key >= 0 {
                names.global(key)
            } else {
                vocabulary.slot(key)
            };
            if let Some(slot) = slot
                && vocabulary.is_index_of(slot, key)
            {
                bag.places[slot as usize] = Place::Wire(number, value);
            }
        }
        Ok(bag)
    }

    /// The value of an attribute as its type says.
    pub(crate) fn get(&self, slot: Slot) -> Result<Option<Value<'_>>, WrongType> {
        let value = match &self.places[slot as usize] {
            Place::Absent => return Ok(None),
            Place::Given(value) => value.clone(),
            Place::Wire(number, field) => match self.decode(*number, *field) {
                Ok(Some(value)) => value,
                Ok(None) => return Ok(None),
                Err(Malformed(reason)) => return Err(self.wrong(slot, reason)),
            },
        };
        if value.is(self.names.kind(slot)) {
            return Ok(Some(value));
        }
        Err(self.wrong(slot, value.describe()))
    }

    fn wrong(&self, slot: Slot, found: &str) -> WrongType {
        let (name, kind) = (self.names.name(slot), self.names.kind(slot).as_str_name());
        WrongType(format!("attribute {name} must be of type {kind}, not {found}"))
    }

    fn decode(&self, number: u32, field: Option<Field<'a>>) -> Result<Option<Value<'_>>, Malformed> {
        let bytes = || field.map_or(Ok(&[][..]), Field::bytes);
        let integer = || field.map_or(Ok(0), Field::int64);
        Ok(Some(match number {
            2 => match self.words.word(field.map_or(Ok(0), Field::sint32)?) {
                Some(word) => Value::text(word),
                None => return Ok(None),
            },
            3 => Value::Int(integer()?),
            4 => Value::Double(field.map_or(Ok(0.0), Field::double)?),
            5 => Value::Bool(integer()? != 0),
            6 => {
                let (seconds, nanos) = wire::seconds_and_nanos(bytes()?)?;
                Value::Time(Time::new(seconds, nanos))
            }
            7 => {
                let (seconds, nanos) = wire::seconds_and_nanos(bytes()?)?;
                Value::Duration(value::duration_nanos(seconds, nanos))
            }
            8 => {
                // Of all types that policies know only IP_ADDRESS is made of bytes.
                let address = value::address(bytes()?).ok_or(Malformed("bytes that aren't 4 or 16 long"))?;
                Value::Address(address)
            }
            _ => {
                let entries = bytes()?;
                for field in Fields(entries) {
                    if let (1, field) = field? {
                        wire::entry(field.bytes()?)?;
                    }
                }
                Value::Map(Map::Wire(entries, &self.words))
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use meshwright_api::istio::mixer::v1 as mixer;
    use prost::Message;

    use super::*;
    use crate::value::Type;

    fn names() -> Names {
        let mut names = Names::default();
        for (name, kind) in [
            ("source.ip", Type::IpAddress),
            ("request.path", Type::String),
            ("request.headers", Type::StringMap),
        ] {
            names.add(name, kind);
        }
        names
    }

    #[test]
    fn a_word_of_the_message_hides_the_global_one() {
        let names = names();
        let message = mixer::CompressedAttributes {
            words: vec!["request.path".into(), "/hidden".into()],
            strings: [(17, -2)].into(),
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        assert!(Bag::compressed(&names, &bytes).unwrap().get(1).unwrap().is_none());
        let bytes = mixer::CompressedAttributes {
            strings: [(-1, -2)].into(),
            ..message
        }
        .encode_to_vec();
        assert!(Bag::compressed(&names, &bytes).unwrap().get(1).unwrap().is_some());
    }

    #[test]
    fn indices_without_a_word_are_absent() {
        let names = names();
        for index in [222, i32::MAX, -1, i32::MIN] {
            let message = mixer::CompressedAttributes {
                strings: [(17, index)].into(),
                ..Default::default()
            };
            let bytes = message.encode_to_vec();
            assert!(
                Bag::compressed(&names, &bytes).unwrap().get(1).unwrap().is_none(),
                "{index}"
            );
            let message = mixer::CompressedAttributes {
                strings: [(index, 92)].into(),
                ..Default::default()
            };
            assert!(Bag::compressed(&names, &message.encode_to_vec()).is_ok(), "{index}");
        }
    }

    #[test]
    fn an_address_of_another_length_and_headers_as_text_are_errors_that_name_the_attribute() {
        let names = names();
        let message = mixer::CompressedAttributes {
            bytes: [(0, vec![1, 2, 3].into())].into(),
            strings: [(15, 92)].into(),
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        let bag = Bag::compressed(&names, &bytes).unwrap();
        for (slot, name) in [(0, "source.ip"), (2, "request.headers")] {
            let WrongType(message) = bag.get(slot).unwrap_err();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn a_map_is_read_by_key() {
        let names = names();
        let map = mixer::StringMap {
            entries: [(65, -1), (-2, 90)].into(),
        };
        let message = mixer::CompressedAttributes {
            words: vec!["shop".into(), "x-tier".into()],
            string_maps: [(15, map)].into(),
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        let bag = Bag::compressed(&names, &bytes).unwrap();
        let Some(Value::Map(map)) = bag.get(2).unwrap() else {
            panic!("a map")
        };
        assert_eq!(
            (map.get("host"), map.get("x-tier"), map.get("cookie")),
            (Some("shop"), Some("GET"), None)
        );
    }
}
