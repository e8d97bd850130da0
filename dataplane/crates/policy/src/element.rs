//! A Report of istio.mixer.v1 read in place: its elements stay as they came until a rule reads an attribute of one, and
//! the words that they share are looked at once for all of them.

use meshwright_api::istio::mixer::v1 as mixer;
use prost::Message;

use crate::bag::{Bag, Shared, Words};
use crate::dictionary;
use crate::error::BadRequest;
use crate::hash::HashMap;
use crate::names::{Names, Slot};
use crate::report::{Attributes, Dictionary, expand_one};
use crate::wire::{self, Field, Fields, Malformed};

/// Elements of one call: a sidecar sends 100. Two bytes are an element, and each one is a record.
const MAX_ELEMENTS: usize = 10_000;
/// What one element may become when its words are written out, in bytes: they are sent once and may be used anywhere.
pub const MAX_ELEMENT: usize = 1 << 20;
/// A share for the memory of a map's entry.
const ENTRY: usize = 64;

/// A ReportRequest, read in place.
#[derive(Debug, Default)]
pub struct Report<'a> {
    /// CompressedAttributes as they came.
    pub elements: Vec<&'a [u8]>,
    /// For elements without words of their own.
    pub default_words: Vec<&'a str>,
    /// Each element changes what the ones before it have left.
    pub is_delta: bool,
}

impl<'a> Report<'a> {
    /// Reads the message; elements are left as they are.
    pub fn read(bytes: &'a [u8]) -> Result<Self, BadRequest> {
        let mut report = Report {
            is_delta: true,
            ..Default::default()
        };
        let mut claimed = 0;
        for field in Fields(bytes) {
            match field? {
                (1, field) => report.elements.push(field.bytes()?),
                (2, field) => report.default_words.push(field.text()?),
                (3, field) => claimed = field.varint()? as u32,
                (4, field) => report.is_delta = field.int32()? != INDEPENDENT,
                _ => {}
            }
        }
        let known = dictionary::WORDS.len();
        if claimed as usize > known {
            return Err(BadRequest::Dictionary { known, claimed });
        }
        if report.elements.len() > MAX_ELEMENTS {
            return Err(BadRequest::Invalid(format!(
                "more than {MAX_ELEMENTS} elements in one report; send fewer at a time"
            )));
        }
        Ok(report)
    }
}

const INDEPENDENT: i32 = mixer::report_request::RepeatedAttributesSemantics::IndependentEncoding as i32;

/// Words that many elements share, with what a policy knows of each.
#[derive(Debug)]
pub struct Vocabulary<'a> {
    words: Vec<&'a str>,
    indices: HashMap<&'a str, i32>,
    /// By position in `words`.
    slots: Vec<Option<Slot>>,
    /// The index of an attribute that the message has a word for: its global index is dead then, as in checks.
    shadowed: Vec<Option<i32>>,
}

impl<'a> Vocabulary<'a> {
    /// For bags of the policy that has `names`.
    pub fn new(names: &Names, words: Vec<&'a str>) -> Self {
        let mut indices = HashMap::with_capacity_and_hasher(words.len(), Default::default());
        let mut shadowed = vec![None; names.len()];
        let mut slots = Vec::with_capacity(words.len());
        for (position, word) in words.iter().enumerate() {
            let index = !(position as i32);
            indices.insert(*word, index);
            let slot = names.slot(word);
            if let Some(slot) = slot {
                shadowed[slot as usize] = Some(index);
            }
            slots.push(slot);
        }
        Vocabulary {
            words,
            indices,
            slots,
            shadowed,
        }
    }

    pub(crate) fn words(&'a self) -> Words<'a> {
        Words::shared(Shared {
            words: &self.words,
            indices: &self.indices,
        })
    }

    /// The attribute of an index below zero.
    pub(crate) fn slot(&self, index: i32) -> Option<Slot> {
        self.slots.get(!index as usize).copied().flatten()
    }

    pub(crate) fn is_index_of(&self, slot: Slot, index: i32) -> bool {
        self.shadowed[slot as usize].is_none_or(|own| own == index)
    }

    /// The attributes of an element that `names` names, which made this vocabulary.
    pub fn bag(&'a self, names: &'a Names, element: &'a [u8]) -> Result<Bag<'a>, Malformed> {
        if has_words(element)? {
            Bag::compressed(names, element)
        } else {
            Bag::element(names, element, self)
        }
    }

    /// For elements in full, by `expand`.
    pub fn dictionary(&self) -> Dictionary<'a> {
        Dictionary::new(self.words.clone())
    }

    /// Whether an element is what it should be, all of it: who takes it out of the queue can read it.
    pub fn check(&self, element: &[u8]) -> Result<(), BadRequest> {
        let own = own_words(element)?;
        let words = if own.is_empty() { &self.words } else { &own };
        let mut size = 0;
        let mut word = |index: i32| {
            let word = if index >= 0 {
                dictionary::word(index)
            } else {
                words.get(!index as usize).copied()
            };
            size += ENTRY + word.map_or(0, str::len);
            if size > MAX_ELEMENT {
                return Err(BadRequest::Invalid(format!(
                    "larger than {MAX_ELEMENT} bytes when its words are written out"
                )));
            }
            Ok(())
        };
        for field in Fields(element) {
            let (number, field) = field?;
            if !(2..=9).contains(&number) {
                continue;
            }
            let (key, value) = wire::entry(field.bytes()?)?;
            word(key)?;
            match number {
                2 => word(value.map_or(Ok(0), Field::sint32)?)?,
                3 | 5 => drop(value.map_or(Ok(0), Field::varint)?),
                4 => drop(value.map_or(Ok(0.0), Field::double)?),
                6 | 7 => drop(wire::seconds_and_nanos(value.map_or(Ok(&[][..]), Field::bytes)?)?),
                8 => drop(value.map_or(Ok(&[][..]), Field::bytes)?),
                _ => {
                    for field in Fields(value.map_or(Ok(&[][..]), Field::bytes)?) {
                        if let (1, field) = field? {
                            let (key, value) = wire::entry(field.bytes()?)?;
                            word(key)?;
                            word(value.map_or(Ok(0), Field::sint32)?)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// All attributes of an element by name, `shared` being the dictionary of its vocabulary; `check` has passed it.
pub fn expand_element(element: &[u8], shared: &Dictionary<'_>) -> Result<Attributes, BadRequest> {
    let message = mixer::CompressedAttributes::decode(element)
        .map_err(|error| BadRequest::Invalid(format!("malformed attributes: {error}")))?;
    expand_one(&message, shared, MAX_ELEMENT)
}

fn has_words(element: &[u8]) -> Result<bool, Malformed> {
    for field in Fields(element) {
        if let (1, _) = field? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn own_words(element: &[u8]) -> Result<Vec<&str>, Malformed> {
    let mut words = Vec::new();
    for field in Fields(element) {
        if let (1, field) = field? {
            words.push(field.text()?);
        }
    }
    Ok(words)
}
