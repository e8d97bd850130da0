//! The last decisions: what was decided, by which rule, from which attributes. Values aren't kept, for they may be secret.
//!
//! Noting a decision costs a clock, a lock and a copy of which attributes it read; its text is made when somebody asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use meshwright_api::meshwright::mixer::v1 as wire;
use meshwright_policy::{Decision, Program, References, Trial};
use prost::Message;
pub(crate) use wire::decision::{Api, Quota};

use crate::decision::DecisionId;

/// Decisions that are kept.
const KEPT: usize = 1024;
/// Rules that are counted; who has more in dry run at a time reads the log.
const MAX_RULES: usize = 4096;
/// Decisions that one reading yields.
const MOST: usize = 256;

/// The log of one process.
#[derive(Debug, Default)]
pub struct DecisionLog {
    ring: Mutex<Ring>,
    /// What dry runs would have denied, by rule.
    tried: Mutex<BTreeMap<String, u64>>,
}

/// A decision as it is noted.
#[derive(Debug)]
pub(crate) struct Noted {
    id: DecisionId,
    api: Api,
    code: i32,
    /// Empty when it passes.
    message: String,
    /// The one that denied, name.namespace.
    rule: Option<String>,
    trials: Vec<Trial>,
    quota: Quota,
    /// What it read, by which policy. Only decisions of the last two policies know: a log must not keep old ones alive.
    made_from: Option<(References, Arc<Program>)>,
}

impl Noted {
    /// `refusal`: code and message of a quota that refused the request.
    pub(crate) fn new(
        id: DecisionId,
        api: Api,
        program: &Arc<Program>,
        decision: &Decision,
        quota: Quota,
        refusal: Option<&(i32, String)>,
    ) -> Self {
        let (code, message) = refusal.map_or((decision.code, decision.message.as_str()), |(code, message)| {
            (*code, message.as_str())
        });
        Noted {
            id,
            api,
            code,
            message: message.to_owned(),
            rule: decision.rule.clone(),
            trials: decision.trials.clone(),
            quota,
            made_from: Some((decision.references.clone(), program.clone())),
        }
    }

    /// Of a rate limit request: no rule denies it, but quotas, whose names are in `refusal`'s message.
    pub(crate) fn limited(
        id: DecisionId,
        made_from: (References, Arc<Program>),
        trials: Vec<Trial>,
        quota: Quota,
        refusal: Option<(i32, String)>,
    ) -> Self {
        let (code, message) = refusal.unwrap_or_default();
        Noted {
            id,
            api: Api::RateLimit,
            code,
            message,
            rule: None,
            trials,
            quota,
            made_from: Some(made_from),
        }
    }
}

#[derive(Debug)]
struct Kept {
    /// Position in the log, counted from zero.
    place: u64,
    time: SystemTime,
    noted: Noted,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Kept>,
    next: u64,
    /// The policy of the newest decision, and the one before it.
    programs: [Option<Arc<Program>>; 2],
}

impl Ring {
    /// Forgets what was read by policies before the last two.
    fn follow(&mut self, program: &Arc<Program>) {
        let is = |known: &Option<Arc<Program>>| known.as_ref().is_some_and(|known| Arc::ptr_eq(known, program));
        if self.programs.iter().any(is) {
            return;
        }
        self.programs.swap(0, 1);
        self.programs[0] = Some(program.clone());
        let current = &self.programs;
        for kept in &mut self.kept {
            let is_known = |(_, made): &(References, Arc<Program>)| {
                let mut known = current.iter().flatten();
                known.any(|known| Arc::ptr_eq(known, made))
            };
            if !kept.noted.made_from.as_ref().is_some_and(is_known) {
                kept.noted.made_from = None;
            }
        }
    }
}

impl DecisionLog {
    /// Keeps a decision, in place of the oldest.
    pub(crate) fn note(&self, noted: Noted) {
        for trial in &noted.trials {
            self.tried(&trial.rule);
        }
        let time = SystemTime::now();
        let mut ring = self.ring();
        if let Some((_, program)) = &noted.made_from {
            ring.follow(program);
        }
        let place = ring.next;
        ring.next += 1;
        let oldest = (ring.kept.len() >= KEPT).then(|| ring.kept.pop_front());
        ring.kept.push_back(Kept { place, time, noted });
        drop(ring);
        // What it held is given back without the lock.
        drop(oldest);
    }

    /// Counts one more that a rule in dry run would have refused.
    pub(crate) fn tried(&self, rule: &str) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = tried.get_mut(rule) {
            *count += 1;
        } else if tried.len() < MAX_RULES {
            tried.insert(rule.to_owned(), 1);
        }
    }

    /// How much each rule in dry run would have refused, by name.namespace.
    pub fn trials(&self) -> Vec<(String, u64)> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.iter().map(|(rule, count)| (rule.clone(), *count)).collect()
    }

    /// A serialised DecisionBatch: those from `from` on that are still kept, at most a few hundred, and where to go on.
    pub fn read(&self, from: u64) -> Vec<u8> {
        self.batch(from).encode_to_vec()
    }

    fn batch(&self, from: u64) -> wire::DecisionBatch {
        let ring = self.ring();
        let chosen = ring.kept.iter().filter(|kept| kept.place >= from).take(MOST);
        let mut batch = wire::DecisionBatch {
            decisions: Vec::new(),
            next: from.max(ring.kept.front().map_or(0, |kept| kept.place)).min(ring.next),
        };
        for kept in chosen {
            batch.decisions.push(kept.message());
            batch.next = kept.place + 1;
        }
        batch
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn message(&self) -> wire::Decision {
        let noted = &self.noted;
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let trials = noted.trials.iter().map(|trial| wire::DryRun {
            rule: trial.rule.clone(),
            code: trial.code,
            message: trial.message.clone(),
        });
        let made_from = noted.made_from.as_ref();
        let reads = made_from.map_or_else(Vec::new, |(references, program)| references.list(program));
        wire::Decision {
            id: noted.id.to_string(),
            time: Some(prost_types::Timestamp {
                seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanos: since.subsec_nanos() as i32,
            }),
            api: noted.api.into(),
            code: noted.code,
            message: noted.message.clone(),
            rule: noted.rule.clone().unwrap_or_default(),
            dry_runs: trials.collect(),
            reads: reads
                .into_iter()
                .map(|(attribute, key, is_there)| wire::Read {
                    attribute,
                    key,
                    value: is_there.then(String::new),
                    generated: false,
                })
                .collect(),
            revision: made_from.map_or_else(String::new, |(_, program)| program.revision().to_owned()),
            quota: noted.quota.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Decisions;

    fn noted(ids: &Decisions, code: i32) -> Noted {
        by(ids, code, &Arc::new(Program::empty()))
    }

    fn by(ids: &Decisions, code: i32, program: &Arc<Program>) -> Noted {
        Noted {
            id: ids.next(),
            api: Api::Mixer,
            code,
            message: String::new(),
            rule: None,
            trials: Vec::new(),
            quota: Quota::None,
            made_from: Some((References::default(), program.clone())),
        }
    }

    #[test]
    fn the_newest_are_kept_and_read_in_order() {
        let (log, ids) = (DecisionLog::default(), Decisions::default());
        for code in 0..KEPT as i32 + 10 {
            log.note(noted(&ids, code));
        }
        let (mut from, mut codes) = (0, Vec::new());
        loop {
            let batch = log.batch(from);
            if batch.decisions.is_empty() {
                break;
            }
            assert!(batch.next > from);
            from = batch.next;
            codes.extend(batch.decisions.iter().map(|decision| decision.code));
        }
        assert_eq!(codes, (10..KEPT as i32 + 10).collect::<Vec<_>>());
        assert_eq!(log.batch(from).next, from);
    }

    #[test]
    fn policies_before_the_last_two_are_let_go() {
        let (log, ids) = (DecisionLog::default(), Decisions::default());
        let programs: Vec<_> = (0..5).map(|_| Arc::new(Program::empty())).collect();
        for program in programs.iter().flat_map(|program| [program, program]) {
            log.note(by(&ids, 0, program));
        }
        let held: Vec<_> = programs.iter().map(|program| Arc::strong_count(program) > 1).collect();
        assert_eq!(held, [false, false, false, true, true]);
        assert_eq!(log.batch(0).decisions.len(), 10);
    }
}
