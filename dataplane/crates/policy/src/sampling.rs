//! Which of the requests that match a rule its actions are done for. The engine has no randomness of its own: picks by
//! key are a function of the key, others come from a counter that is mixed well and begins somewhere else in each process.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use meshwright_api::meshwright::policy::v1 as compiled;

use crate::error::{BadRequest, Refused};
use crate::evaluate::{Evaluation, Failure};
use crate::expression::{At, Expressions};
use crate::value::{Type, Value};

/// Both must pick the request.
#[derive(Debug)]
pub(crate) struct Sampling {
    random: Option<Random>,
    rate_limit: Option<RateLimit>,
}

#[derive(Debug)]
struct Random {
    numerator: u64,
    denominator: u64,
    rate: Option<At>,
    key: Option<At>,
    counter: AtomicU64,
}

#[derive(Debug)]
struct RateLimit {
    window: u64,
    max_unsampled: u64,
    rate: u64,
    /// The window's number and how many it has seen.
    seen: Mutex<(u64, u64)>,
}

impl Sampling {
    pub(crate) fn load(given: &compiled::Sampling, expressions: &Expressions, place: &str) -> Result<Self, Refused> {
        let place = format!("{place}.sampling");
        let random = match &given.random {
            None => None,
            Some(random) => {
                if random.denominator == 0 {
                    return Err(Refused::new(place, "the denominator must be positive"));
                }
                let expect = |node: Option<u32>, kinds: &[Type]| {
                    node.map(|node| expressions.expect(node, kinds, &place)).transpose()
                };
                Some(Random {
                    numerator: random.numerator,
                    denominator: random.denominator,
                    rate: expect(random.rate, &[Type::Int64, Type::Double])?,
                    key: expect(random.key, &[Type::String])?,
                    counter: AtomicU64::new(seed()),
                })
            }
        };
        let rate_limit = match &given.rate_limit {
            None => None,
            Some(limit) => match (
                u64::try_from(limit.window_nanos),
                u64::try_from(limit.max_unsampled),
                u64::try_from(limit.rate),
            ) {
                (Ok(window @ 1..), Ok(max_unsampled), Ok(rate @ 1..)) => Some(RateLimit {
                    window,
                    max_unsampled,
                    rate,
                    seen: Mutex::new((0, 0)),
                }),
                _ => return Err(Refused::new(place, "a rate limit needs a positive window and rate")),
            },
        };
        Ok(Sampling { random, rate_limit })
    }

    /// Whether it picks this request. What decided is referred to; where that isn't the request alone, the answer is
    /// good for one use.
    pub(crate) fn picks(&self, evaluation: &mut Evaluation<'_>, now: u64) -> Result<bool, BadRequest> {
        let mut picked = true;
        if let Some(random) = &self.random {
            picked = random.picks(evaluation)?;
        }
        if let Some(limit) = self.rate_limit.as_ref().filter(|_| picked) {
            evaluation.single_use = true;
            picked = limit.picks(now);
        }
        Ok(picked)
    }
}

impl Random {
    fn picks(&self, evaluation: &mut Evaluation<'_>) -> Result<bool, BadRequest> {
        let numerator = match self.rate.map(|node| evaluation.value(node)) {
            None => self.numerator,
            Some(Ok(Value::Int(rate))) => u64::try_from(rate).unwrap_or_default(),
            // `as` holds at the ends and takes NaN for zero.
            Some(Ok(Value::Double(rate))) => rate as u64,
            Some(Err(Failure::Request(message))) => return Err(BadRequest::Invalid(message)),
            Some(_) => 0,
        };
        if numerator == 0 || numerator >= self.denominator {
            return Ok(numerator != 0);
        }
        let number = match self.key.map(|node| evaluation.text(node)) {
            Some(Ok(key)) => number_of(&key),
            Some(Err(Failure::Request(message))) => return Err(BadRequest::Invalid(message)),
            _ => {
                evaluation.single_use = true;
                mixed(self.counter.fetch_add(1, Ordering::Relaxed))
            }
        };
        Ok(number % self.denominator < numerator)
    }
}

impl RateLimit {
    fn picks(&self, now: u64) -> bool {
        let current = now / self.window;
        let mut seen = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if seen.0 != current {
            *seen = (current, 0);
        }
        seen.1 += 1;
        seen.1 <= self.max_unsampled || (seen.1 - self.max_unsampled).is_multiple_of(self.rate)
    }
}

/// The first eight digits of a UUID, as Envoy takes them; of other keys a hash that is the same everywhere.
fn number_of(key: &str) -> u64 {
    if key.len() == 36
        && let Some(digits) = key.get(..8)
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        && let Ok(number) = u64::from_str_radix(digits, 16)
    {
        return number;
    }
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mixed(hash)
}

/// SplitMix64's step: each input another output, all of them even.
fn mixed(number: u64) -> u64 {
    let mut hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
