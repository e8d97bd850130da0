//! When requests are due: fixed before the first is sent, whatever the server does.

use std::time::Duration;

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// All gaps are equal.
    #[default]
    Constant,
    /// Gaps are exponential: what many independent users make together.
    Poisson,
}

/// One shard's moments, as times since the beginning. The shards of a run together have its rate.
#[derive(Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    shard: u64,
    shards: u64,
    rate: f64,
    end: Duration,
    taken: u64,
    next: f64,
    random: u64,
}

impl Schedule {
    /// The moments of shard number `shard` of `shards` before `end`, at a rate of all shards together.
    pub fn new(arrivals: Arrivals, rate: f64, shard: usize, shards: usize, end: Duration) -> Self {
        let mut schedule = Self {
            arrivals,
            shard: shard as u64,
            shards: shards as u64,
            rate,
            end,
            taken: 0,
            next: 0.0,
            random: 0x9e37_79b9_7f4a_7c15 ^ (shard as u64 + 1), // any seed: runs are to be repeatable
        };
        schedule.next = match arrivals {
            Arrivals::Constant => schedule.constant(),
            Arrivals::Poisson => schedule.gap(),
        };
        schedule
    }

    /// When the next request is due; None when all are taken.
    pub fn peek(&self) -> Option<Duration> {
        let due = Duration::from_secs_f64(self.next);
        (due < self.end).then_some(due)
    }

    /// Take it.
    pub fn advance(&mut self) {
        self.taken += 1;
        self.next = match self.arrivals {
            Arrivals::Constant => self.constant(),
            Arrivals::Poisson => self.next + self.gap(),
        };
    }

    /// Take all that are left and count those that were due from `from` on.
    pub fn drain(&mut self, from: Duration) -> u64 {
        let mut left = 0;
        while let Some(due) = self.peek() {
            left += u64::from(due >= from);
            self.advance();
        }
        left
    }

    /// Not by adding gaps, whose rounding would add up.
    fn constant(&self) -> f64 {
        (self.taken * self.shards + self.shard) as f64 / self.rate
    }

    fn gap(&mut self) -> f64 {
        // xorshift64*: its upper bits are even enough for gaps.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let bits = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        let share = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
        -share.ln() * self.shards as f64 / self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(arrivals: Arrivals, rate: f64, shards: usize, end: Duration) -> Vec<Duration> {
        let mut moments = Vec::new();
        for shard in 0..shards {
            let mut schedule = Schedule::new(arrivals, rate, shard, shards, end);
            while let Some(due) = schedule.peek() {
                moments.push(due);
                schedule.advance();
            }
        }
        moments.sort();
        moments
    }

    proptest! {
        #[test]
        fn constant_moments_are_evenly_spread_over_shards(rate in 1.0..5000.0_f64, shards in 1..5_usize) {
            let end = Duration::from_secs(2);
            let moments = all(Arrivals::Constant, rate, shards, end);
            prop_assert!((moments.len() as f64 - rate * 2.0).abs() <= 1.0);
            for pair in moments.windows(2) {
                prop_assert!(((pair[1] - pair[0]).as_secs_f64() * rate - 1.0).abs() < 0.01);
            }
        }
    }

    #[test]
    fn poisson_has_the_rate_and_exponential_gaps() {
        let (rate, seconds) = (1000.0, 100);
        for shards in [1, 3] {
            let moments = all(Arrivals::Poisson, rate, shards, Duration::from_secs(seconds));
            let expected = rate * seconds as f64;
            // Five standard deviations of a Poisson count.
            assert!(
                (moments.len() as f64 - expected).abs() < 5.0 * expected.sqrt(),
                "{}",
                moments.len()
            );
            let gaps: Vec<f64> = moments
                .windows(2)
                .map(|pair| (pair[1] - pair[0]).as_secs_f64())
                .collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!(
                (variance.sqrt() / mean - 1.0).abs() < 0.03,
                "{}",
                variance.sqrt() / mean
            );
        }
    }

    #[test]
    fn drain_counts_what_is_left_of_the_measured_time() {
        let mut schedule = Schedule::new(Arrivals::Constant, 10.0, 0, 1, Duration::from_secs(2));
        schedule.advance();
        assert_eq!(schedule.drain(Duration::from_secs(1)), 10);
        assert_eq!(schedule.peek(), None);
    }
}
