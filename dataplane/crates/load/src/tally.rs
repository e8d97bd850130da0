//! What a run has found: latencies in an HDR histogram, answers by status, failures by name.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::connection::{Answer, Failure};

/// Nanoseconds that are told apart at the lower end, and what is the longest.
const FINEST: u64 = 100;
const LONGEST: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;
/// Names of failures that are kept apart; what comes after is counted together.
const MOST_NAMES: usize = 16;
/// The width of a bucket that a plot gets, relative to where it begins.
const BUCKET_GROWTH: f64 = 1.05;

/// Latencies.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let made = Histogram::new_with_bounds(FINEST, LONGEST, DIGITS);
        Self(made.unwrap_or_else(|error| unreachable!("constants that make a histogram: {error}")))
    }
}

/// Latencies from `start` to below `end`, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The shortest.
    pub start: u64,
    /// The end, which belongs to the next one.
    pub end: u64,
    /// How many.
    pub count: u64,
}

impl Latencies {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LONGEST).max(FINEST));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok(), "both have the same bounds");
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share (0 to 1) doesn't exceed, in nanoseconds.
    pub fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    /// The shortest.
    pub fn min(&self) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.min() }
    }

    /// The longest.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// The standard deviation.
    pub fn deviation(&self) -> f64 {
        self.0.stdev()
    }

    /// All of them in some hundred buckets, as fine everywhere as a plot on a logarithmic axis wants it.
    pub fn buckets(&self) -> Vec<Bucket> {
        let mut buckets: Vec<Bucket> = Vec::new();
        for found in self.0.iter_recorded() {
            let step = ((found.value_iterated_to() as f64).ln() / BUCKET_GROWTH.ln()).floor();
            let start = BUCKET_GROWTH.powf(step) as u64;
            match buckets.last_mut() {
                Some(last) if last.start == start => last.count += found.count_at_value(),
                _ => buckets.push(Bucket {
                    start,
                    end: BUCKET_GROWTH.powf(step + 1.0) as u64,
                    count: found.count_at_value(),
                }),
            }
        }
        buckets
    }
}

/// What a run, or one shard of it, has found in the measured time.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// From when a request was due to the end of its answer, or until it was known that none comes.
    pub latencies: Latencies,
    /// From when a request was due to when it was sent: the generator's own part.
    pub lag: Latencies,
    /// Answers by status, of HTTP or of gRPC.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Requests that were due and for which no connection was free before the end.
    pub unsent: u64,
    /// Bytes of bodies that came.
    pub bytes: u64,
    /// Connections opened in place of others.
    pub reconnects: u64,
    /// Requests before the measured time.
    pub warm_up: u64,
    /// From the beginning of the measured time to the last answer, or to its end when that is later.
    pub elapsed: Duration,
}

impl Report {
    pub(crate) fn note(&mut self, outcome: Result<Answer, Failure>, latency: Duration, lag: Duration) {
        self.latencies.record(latency);
        self.lag.record(lag);
        match outcome {
            Ok(answer) => {
                *self.statuses.entry(answer.status).or_default() += 1;
                self.bytes += answer.bytes;
            }
            Err(failure) => self.fail(failure.to_string(), 1),
        }
    }

    fn fail(&mut self, name: String, count: u64) {
        let is_known = self.failures.contains_key(&name) || self.failures.len() < MOST_NAMES;
        let name = if is_known { name } else { "other".to_owned() };
        *self.failures.entry(name).or_default() += count;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies);
        self.lag.add(&other.lag);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (name, count) in other.failures {
            self.fail(name, count);
        }
        self.unsent += other.unsent;
        self.bytes += other.bytes;
        self.reconnects += other.reconnects;
        self.warm_up += other.warm_up;
        self.elapsed = self.elapsed.max(other.elapsed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn buckets_hold_every_latency_in_order(latencies in proptest::collection::vec(100_u64..10_000_000_000, 1..200)) {
            let mut all = Latencies::default();
            for latency in &latencies {
                all.record(Duration::from_nanos(*latency));
            }
            let buckets = all.buckets();
            prop_assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), latencies.len() as u64);
            prop_assert!(buckets.windows(2).all(|pair| pair[0].end <= pair[1].start + 1));
            let longest = *latencies.iter().max().expect("at least one");
            prop_assert!((all.max() as f64 / longest as f64 - 1.0).abs() < 0.002);
        }
    }

    #[test]
    fn names_of_failures_are_bounded() {
        let mut report = Report::default();
        for number in 0..100 {
            report.note(
                Err(Failure::Broken(format!("reason {number}"))),
                Duration::ZERO,
                Duration::ZERO,
            );
        }
        assert_eq!(report.failures.len(), MOST_NAMES + 1);
        assert_eq!(report.failures.values().sum::<u64>(), 100);
    }
}
