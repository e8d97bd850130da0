//! Ids of decisions, by which people find one again in spans, logs and metadata. Random bytes for each would cost more
//! than many a decision: the process has some, and counts.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Unique among all processes; written as `PROCESS-NUMBER` in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecisionId {
    process: u64,
    number: u64,
}

impl fmt::Display for DecisionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}-{:x}", self.process, self.number)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Decisions {
    last: AtomicU64,
}

impl Decisions {
    pub(crate) fn next(&self) -> DecisionId {
        static PROCESS: LazyLock<u64> = LazyLock::new(|| {
            // Without random numbers the time must do: ids are for finding, not for keeping secrets.
            getrandom::u64().unwrap_or_else(|_| {
                let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                time.map_or(0, |time| time.as_nanos() as u64)
            })
        });
        DecisionId {
            process: *PROCESS,
            number: self.last.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_in_their_number_only() {
        let decisions = Decisions::default();
        let [first, second] = [decisions.next().to_string(), decisions.next().to_string()];
        assert_eq!(first.split_once('-').unwrap().0, second.split_once('-').unwrap().0);
        assert!(first.ends_with("-1") && second.ends_with("-2"), "{first} {second}");
    }
}
