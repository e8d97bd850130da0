//! What is wrong at the moment, for whoever tells the world: Python.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What may be wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Storing into the queue, and taking out of it.
    Records,
    /// The connection to NATS.
    Bus,
    /// A native handler, by name.
    Handler(String),
}

/// The reason of each part that has one.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<BTreeMap<Part, String>>);

impl Health {
    /// Nothing is wrong, or this is.
    pub(crate) fn set(&self, part: Part, reason: Option<String>) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => drop(faults.insert(part, reason)),
            None => drop(faults.remove(&part)),
        }
    }

    /// Part and reason.
    pub(crate) fn faults(&self) -> Vec<(String, String)> {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |part: &Part| match part {
            Part::Records => "records".to_owned(),
            Part::Bus => "bus".to_owned(),
            Part::Handler(name) => format!("adapter {name}"),
        };
        faults
            .iter()
            .map(|(part, reason)| (name(part), reason.clone()))
            .collect()
    }
}
