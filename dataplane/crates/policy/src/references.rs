//! What a decision was made from. Every attribute and every constant key of a map has a number in its policy, so that
//! noting a read is one store; keys that expressions compute are kept beside.

use meshwright_api::istio::mixer::v1 as mixer;
use mixer::referenced_attributes::AttributeMatch;

use crate::dictionary;
use crate::hash::HashMap;
use crate::names::Slot;
use crate::program::Program;

/// How an attribute was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Absence,
    Exact,
}

/// The attributes and keys that one evaluation read.
#[derive(Debug, Clone, Default)]
pub struct References {
    numbered: Vec<Option<Condition>>,
    computed: Vec<(Slot, String, Condition)>,
}

impl References {
    pub(crate) fn new(count: usize) -> Self {
        References {
            numbered: vec![None; count],
            computed: Vec::new(),
        }
    }

    pub(crate) fn set(&mut self, reference: u32, condition: Condition) {
        self.numbered[reference as usize] = Some(condition);
    }

    pub(crate) fn set_key(&mut self, slot: Slot, key: &str, condition: Condition) {
        if !self
            .computed
            .iter()
            .any(|(known, text, _)| *known == slot && text == key)
        {
            self.computed.push((slot, key.to_owned(), condition));
        }
    }

    /// Adds what another evaluation under the same policy read. Where both read the same, this one's finding stays.
    pub fn join(&mut self, other: &References) {
        if self.numbered.len() < other.numbered.len() {
            self.numbered.resize(other.numbered.len(), None);
        }
        for (own, read) in self.numbered.iter_mut().zip(&other.numbered) {
            *own = own.or(*read);
        }
        for (slot, key, condition) in &other.computed {
            self.set_key(*slot, key, *condition);
        }
    }

    /// Name, key and whether it was there, of everything that was read.
    pub fn list(&self, program: &Program) -> Vec<(String, Option<String>, bool)> {
        let attributes = program.names.len();
        let read = |slot: Slot, key: Option<&str>, condition: Condition| {
            let name = program.names.name(slot).to_owned();
            (name, key.map(str::to_owned), condition == Condition::Exact)
        };
        let numbered = self.numbered.iter().enumerate();
        let numbered = numbered.filter_map(|(number, condition)| {
            let condition = (*condition)?;
            Some(match number.checked_sub(attributes) {
                None => read(number as Slot, None, condition),
                Some(pair) => {
                    let (slot, key) = &program.expressions.keys[pair];
                    read(*slot, Some(key), condition)
                }
            })
        });
        let computed = self.computed.iter();
        numbered
            .chain(computed.map(|(slot, key, condition)| read(*slot, Some(key), *condition)))
            .collect()
    }

    /// As the wire has it, with indices that a caller knows who has `global_words` words of the dictionary.
    pub(crate) fn message(&self, program: &Program, global_words: u32) -> mixer::ReferencedAttributes {
        let mut words = MessageWords {
            global_words,
            indices: HashMap::default(),
            words: Vec::new(),
        };
        let mut matches = Vec::new();
        let attributes = program.names.len();
        let mut add = |slot: Slot, key: Option<&str>, condition: Condition| {
            let condition = match condition {
                Condition::Absence => mixer::referenced_attributes::Condition::Absence,
                Condition::Exact => mixer::referenced_attributes::Condition::Exact,
            };
            matches.push(AttributeMatch {
                name: words.index(program.names.name(slot)),
                condition: condition.into(),
                regex: String::new(),
                map_key: key.map_or(0, |key| words.index(key)),
            });
        };
        for (number, condition) in self.numbered.iter().enumerate() {
            match (condition, number.checked_sub(attributes)) {
                (Some(condition), None) => add(number as Slot, None, *condition),
                (Some(condition), Some(pair)) => {
                    let (slot, key) = &program.expressions.keys[pair];
                    add(*slot, Some(key), *condition);
                }
                (None, _) => {}
            }
        }
        for (slot, key, condition) in &self.computed {
            add(*slot, Some(key), *condition);
        }
        mixer::ReferencedAttributes {
            words: words.words,
            attribute_matches: matches,
        }
    }
}

struct MessageWords {
    global_words: u32,
    indices: HashMap<String, i32>,
    words: Vec<String>,
}

impl MessageWords {
    fn index(&mut self, word: &str) -> i32 {
        if let Some(index) = dictionary::index(word).filter(|index| (*index as u32) < self.global_words) {
            return index;
        }
        if let Some(&index) = self.indices.get(word) {
            return index;
        }
        let index = !(self.words.len() as i32);
        self.words.push(word.to_owned());
        self.indices.insert(word.to_owned(), index);
        index
    }
}
