//! What keeps one asked handler's trouble from spreading: a bound of questions in flight, a breaker, and numbers that
//! tell of it. Used for adapters in this process and for remote ones alike.
//!
//! A question holds its place until the adapter is really done with it, however long ago its asker gave up: an adapter
//! that hangs fills its places and is then refused at once, instead of filling memory.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which the breaker opens.
const FAILURES: u32 = 5;
/// For how long it opens first; twice as long after each trial that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Upper bounds of the buckets of durations, in microseconds; the last bucket has none.
pub const BOUNDS_MICROS: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
];

/// Why a question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The adapter said so, or raised.
    Raised,
    /// It took too long.
    Deadline,
    /// It answered something that can't be used.
    Invalid,
    /// It isn't there: not open yet, or not any more.
    Away,
    /// Too many questions were in flight.
    Full,
    /// The breaker was open.
    Open,
}

impl Failure {
    /// All of them, in the order of the counters.
    pub const ALL: [Failure; 6] = [
        Failure::Raised,
        Failure::Deadline,
        Failure::Invalid,
        Failure::Away,
        Failure::Full,
        Failure::Open,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Raised => "raised",
            Failure::Deadline => "deadline",
            Failure::Invalid => "invalid",
            Failure::Away => "away",
            Failure::Full => "full",
            Failure::Open => "breaker_open",
        }
    }
}

/// As metrics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Questions pass.
    Closed,
    /// One question may try.
    HalfOpen,
    /// No question passes.
    Open,
}

/// What happened at one handler since the process began.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Questions that were handed over.
    pub asked: u64,
    /// By [`Failure::ALL`].
    pub failures: [u64; Failure::ALL.len()],
    /// Answers by duration; not cumulative, the last one is beyond all bounds.
    pub durations: [u64; BOUNDS_MICROS.len() + 1],
    /// Sum of the durations.
    pub duration_micros: u64,
    /// Questions that the adapter has.
    pub in_flight: usize,
    /// Of now.
    pub breaker: BreakerState,
}

/// One asked handler's guard; it outlives policies, and with them the handler's parameters.
#[derive(Debug)]
pub struct Guard {
    most: AtomicUsize,
    in_flight: AtomicUsize,
    breaker: Mutex<Breaker>,
    asked: AtomicU64,
    failures: [AtomicU64; Failure::ALL.len()],
    durations: [AtomicU64; BOUNDS_MICROS.len() + 1],
    duration_micros: AtomicU64,
}

#[derive(Debug)]
struct Breaker {
    in_a_row: u32,
    /// Not before then; None: closed.
    until: Option<Instant>,
    pause: Duration,
    /// A question tries whether the handler works again.
    trying: bool,
}

impl Guard {
    /// With room for `most` questions in flight.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Guard {
            most: AtomicUsize::new(most),
            in_flight: AtomicUsize::new(0),
            breaker: Mutex::new(Breaker {
                in_a_row: 0,
                until: None,
                pause: FIRST_PAUSE,
                trying: false,
            }),
            asked: AtomicU64::new(0),
            failures: Default::default(),
            durations: Default::default(),
            duration_micros: AtomicU64::new(0),
        })
    }

    /// Change the bound; what is in flight stays.
    pub fn resize(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// A place for one question, or why there is none.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Result<Place, Failure> {
        let is_trial = match self.admit(now) {
            Ok(is_trial) => is_trial,
            Err(failure) => return Err(self.count(failure)),
        };
        let most = self.most.load(Ordering::Relaxed);
        let taken = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < most).then_some(taken + 1)
            });
        if taken.is_err() {
            if is_trial {
                self.lock().trying = false;
            }
            return Err(self.count(Failure::Full));
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Place {
            guard: self.clone(),
            began: now,
            is_trial,
            is_told: false,
        })
    }

    /// Open the breaker now, whatever came before: somebody else has seen that the handler does harm.
    pub fn trip(&self, now: Instant) {
        self.lock().open(now);
    }

    /// What happened so far.
    pub fn statistics(&self, now: Instant) -> Statistics {
        let read =
            |counters: &[AtomicU64], index: usize| counters.get(index).map_or(0, |each| each.load(Ordering::Relaxed));
        Statistics {
            asked: self.asked.load(Ordering::Relaxed),
            failures: std::array::from_fn(|index| read(&self.failures, index)),
            durations: std::array::from_fn(|index| read(&self.durations, index)),
            duration_micros: self.duration_micros.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            breaker: match self.lock().until {
                None => BreakerState::Closed,
                Some(until) if until <= now => BreakerState::HalfOpen,
                Some(_) => BreakerState::Open,
            },
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the question may pass, and whether it is the one that tries.
    fn admit(&self, now: Instant) -> Result<bool, Failure> {
        let mut breaker = self.lock();
        match breaker.until {
            None => Ok(false),
            Some(until) if until <= now && !breaker.trying => {
                breaker.trying = true;
                Ok(true)
            }
            Some(_) => Err(Failure::Open),
        }
    }

    fn count(&self, failure: Failure) -> Failure {
        if let Some(counter) = self.failures.get(failure as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        failure
    }
}

impl Breaker {
    fn open(&mut self, now: Instant) {
        self.until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.trying = false;
        self.in_a_row = 0;
    }
}

/// One question in flight. Tell once how it went, then keep it until the adapter is done; dropping it gives the place
/// back. Dropped untold, it says nothing about the handler: the asker went away.
#[derive(Debug)]
pub struct Place {
    guard: Arc<Guard>,
    began: Instant,
    is_trial: bool,
    is_told: bool,
}

impl Place {
    /// The adapter answered.
    pub fn answered(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let micros = u64::try_from(now.duration_since(self.began).as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(counter) = self.guard.durations.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.guard.duration_micros.fetch_add(micros, Ordering::Relaxed);
        let mut breaker = self.guard.lock();
        breaker.in_a_row = 0;
        if self.is_trial {
            breaker.until = None;
            breaker.pause = FIRST_PAUSE;
            breaker.trying = false;
        }
    }

    /// The adapter didn't.
    pub fn failed(&mut self, failure: Failure, now: Instant) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        self.guard.count(failure);
        let mut breaker = self.guard.lock();
        breaker.in_a_row += 1;
        // A question of before the breaker opened tells nothing new.
        if self.is_trial || breaker.until.is_none() && breaker.in_a_row >= FAILURES {
            breaker.open(now);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guard.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_trial && !self.is_told {
            self.guard.lock().trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(guard: &Arc<Guard>, now: Instant) {
        guard.enter(now).unwrap().failed(Failure::Raised, now);
    }

    fn breaker(guard: &Guard, now: Instant) -> BreakerState {
        guard.statistics(now).breaker
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let (guard, now) = (Guard::new(2), Instant::now());
        let first = guard.enter(now).unwrap();
        let _second = guard.enter(now).unwrap();
        assert_eq!(guard.enter(now).unwrap_err(), Failure::Full);
        drop(first);
        let _third = guard.enter(now).unwrap();
        let statistics = guard.statistics(now);
        assert_eq!((statistics.asked, statistics.in_flight), (3, 2));
        assert_eq!(statistics.failures[Failure::Full as usize], 1);
    }

    #[test]
    fn a_question_that_was_told_keeps_its_place() {
        let (guard, now) = (Guard::new(1), Instant::now());
        let mut hanging = guard.enter(now).unwrap();
        hanging.failed(Failure::Deadline, now);
        assert_eq!(guard.enter(now).unwrap_err(), Failure::Full);
    }

    #[test]
    fn failures_in_a_row_open_the_breaker_and_one_trial_closes_it() {
        let (guard, began) = (Guard::new(10), Instant::now());
        for _ in 0..FAILURES {
            assert_eq!(breaker(&guard, began), BreakerState::Closed);
            fail(&guard, began);
        }
        assert_eq!(breaker(&guard, began), BreakerState::Open);
        assert_eq!(guard.enter(began).unwrap_err(), Failure::Open);
        let later = began + FIRST_PAUSE;
        assert_eq!(breaker(&guard, later), BreakerState::HalfOpen);
        let mut trial = guard.enter(later).unwrap();
        assert_eq!(guard.enter(later).unwrap_err(), Failure::Open);
        trial.answered(later);
        assert_eq!(breaker(&guard, later), BreakerState::Closed);
    }

    #[test]
    fn success_in_between_starts_the_count_anew() {
        let (guard, now) = (Guard::new(10), Instant::now());
        for _ in 0..3 {
            for _ in 1..FAILURES {
                fail(&guard, now);
            }
            guard.enter(now).unwrap().answered(now);
        }
        assert_eq!(breaker(&guard, now), BreakerState::Closed);
    }

    #[test]
    fn a_failed_trial_opens_for_twice_as_long() {
        let (guard, began) = (Guard::new(10), Instant::now());
        (0..FAILURES).for_each(|_| fail(&guard, began));
        let trial = began + FIRST_PAUSE;
        fail(&guard, trial);
        assert_eq!(breaker(&guard, trial + FIRST_PAUSE), BreakerState::Open);
        assert_eq!(breaker(&guard, trial + FIRST_PAUSE * 2), BreakerState::HalfOpen);
    }

    #[test]
    fn a_trial_whose_asker_went_away_lets_another_try() {
        let (guard, began) = (Guard::new(10), Instant::now());
        guard.trip(began);
        let later = began + FIRST_PAUSE;
        drop(guard.enter(later).unwrap());
        assert!(guard.enter(later).is_ok());
    }

    #[test]
    fn late_failures_of_before_do_not_prolong_the_pause() {
        let (guard, began) = (Guard::new(10), Instant::now());
        let mut late = guard.enter(began).unwrap();
        guard.trip(began);
        late.failed(Failure::Deadline, began + FIRST_PAUSE);
        assert_eq!(breaker(&guard, began + FIRST_PAUSE), BreakerState::HalfOpen);
    }

    #[test]
    fn durations_fall_into_their_buckets() {
        let (guard, began) = (Guard::new(10), Instant::now());
        for micros in [50, 51, 2_000_000] {
            guard
                .enter(began)
                .unwrap()
                .answered(began + Duration::from_micros(micros));
        }
        let statistics = guard.statistics(began);
        assert_eq!(statistics.durations[..2], [1, 1]);
        assert_eq!(statistics.durations[BOUNDS_MICROS.len()], 1);
        assert_eq!(statistics.duration_micros, 2_000_101);
    }
}
