//! The attributes that a policy reads, numbered. A bag keeps only these: whatever else a request carries is skipped by
//! one look in a table (global words) or one hash (words of the message).

use std::sync::LazyLock;

use crate::dictionary;
use crate::hash::HashMap;
use crate::value::Type;

/// Number of an attribute within one policy.
pub(crate) type Slot = u32;

/// Attribute names, types and numbers of one policy.
#[derive(Debug, Default)]
pub struct Names {
    slots: HashMap<Box<str>, Slot>,
    attributes: Vec<(Box<str>, Type)>,
    /// By index in the global dictionary.
    global: Vec<Option<Slot>>,
}

impl Names {
    /// Every attribute that the global dictionary names, for looking at what a request carries; types mean nothing here.
    pub fn dictionary() -> &'static Names {
        static NAMES: LazyLock<Names> = LazyLock::new(|| {
            let mut names = Names::default();
            for word in dictionary::WORDS.iter().filter(|word| word.contains('.')) {
                names.add(word, Type::String);
            }
            names
        });
        &NAMES
    }

    /// Adds an attribute; None when the name is there already with another type.
    pub(crate) fn add(&mut self, name: &str, kind: Type) -> Option<Slot> {
        if let Some(&slot) = self.slots.get(name) {
            return (self.attributes[slot as usize].1 == kind).then_some(slot);
        }
        let slot = self.attributes.len() as Slot;
        self.slots.insert(name.into(), slot);
        self.attributes.push((name.into(), kind));
        self.global.resize(dictionary::WORDS.len(), None);
        if let Some(index) = dictionary::index(name) {
            self.global[index as usize] = Some(slot);
        }
        Some(slot)
    }

    pub(crate) fn len(&self) -> usize {
        self.attributes.len()
    }

    /// The type of an attribute that the policy reads; None for any other.
    pub fn kind_of(&self, name: &str) -> Option<Type> {
        self.slot(name).map(|slot| self.kind(slot))
    }

    pub(crate) fn slot(&self, name: &str) -> Option<Slot> {
        self.slots.get(name).copied()
    }

    pub(crate) fn global(&self, index: i32) -> Option<Slot> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.global.get(index).copied().flatten())
    }

    pub(crate) fn name(&self, slot: Slot) -> &str {
        &self.attributes[slot as usize].0
    }

    pub(crate) fn kind(&self, slot: Slot) -> Type {
        self.attributes[slot as usize].1
    }
}
