//! Whether and when a failed call is tried again (gRFC A6).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::HeaderName;
use tonic::Code;

use crate::client::service_config::{MethodConfig, RetryPolicy, Throttling};
use crate::client::subchannel::jittered;
use crate::wire::outcome::Outcome;

/// Tells the server how many attempts there were before this one.
pub(crate) const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// By this the server says when to try again, or, negative, not to.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The tokens that failures take and successes give back; retries need half of them.
#[derive(Debug)]
pub(crate) struct Throttle {
    config: Throttling,
    tokens: AtomicU32,
}

impl Throttle {
    pub(crate) fn new(config: Throttling) -> Self {
        Self {
            config,
            tokens: AtomicU32::new(config.max),
        }
    }

    pub(crate) fn succeeded(&self) {
        let add = |tokens: u32| Some((tokens + self.config.ratio).min(self.config.max));
        let _ = self.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, add); // never refuses
    }

    pub(crate) fn failed(&self) {
        let take = |tokens: u32| Some(tokens.saturating_sub(1000));
        let _ = self.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, take); // never refuses
    }

    pub(crate) fn allows(&self) -> bool {
        self.tokens.load(Ordering::Acquire) > self.config.max / 2
    }
}

/// What the server did with an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing: no application has heard of it.
    Never,
    /// It may have worked on it.
    Perhaps,
}

/// The attempts of one call.
#[derive(Debug)]
pub(crate) struct Retries {
    method: Option<Arc<MethodConfig>>,
    throttle: Option<Arc<Throttle>>,
    /// Attempts that count.
    failed: u32,
    /// The exponent of the next pause.
    step: i32,
    is_repeated: bool,
}

impl Retries {
    pub(crate) fn new(method: Option<Arc<MethodConfig>>, throttle: Option<Arc<Throttle>>) -> Self {
        Self {
            method,
            throttle,
            failed: 0,
            step: 0,
            is_repeated: false,
        }
    }

    fn policy(&self) -> Option<&RetryPolicy> {
        self.method.as_ref()?.retry.as_ref()
    }

    /// How many attempts there were before the next, to tell the server.
    pub(crate) fn previous(&self) -> u32 {
        self.failed
    }

    /// How long to pause before the next attempt; nothing when there is none. `is_open`: the requests are still here.
    pub(crate) fn next(&mut self, outcome: &Outcome, seen: Seen, is_open: bool) -> Option<Duration> {
        if seen == Seen::Never && is_open && !self.is_repeated {
            self.is_repeated = true; // once; from then on as the policy says
            return Some(Duration::ZERO);
        }
        let pushback = pushback(outcome);
        self.ended(outcome.code, pushback == Some(None));
        let policy = self.policy()?;
        if !policy.retries(outcome.code) || !is_open || self.failed + 1 >= policy.max_attempts {
            return None;
        }
        if self.throttle.as_ref().is_some_and(|throttle| !throttle.allows()) {
            return None;
        }
        let pause = match pushback {
            Some(pause) => {
                let pause = pause?;
                self.step = 0;
                pause
            }
            None => {
                let longest = policy.max_back_off.as_secs_f64();
                let pause = policy.initial_back_off.as_secs_f64() * policy.multiplier.powi(self.step);
                self.step += 1;
                jittered(Duration::from_secs_f64(pause.min(longest)))
            }
        };
        self.failed += 1;
        Some(pause)
    }

    /// Whether such an end takes a token.
    fn counts(&self, code: Code) -> bool {
        let hedging = self.method.as_ref().and_then(|method| method.hedging.as_ref());
        self.policy().is_some_and(|policy| policy.retries(code)) || hedging.is_some_and(|policy| policy.goes_on(code))
    }

    /// Let the throttle know how an attempt ended.
    pub(crate) fn ended(&self, code: Code, is_refused: bool) {
        if let Some(throttle) = &self.throttle {
            if code == Code::Ok {
                throttle.succeeded();
            } else if is_refused || self.counts(code) {
                throttle.failed();
            }
        }
    }
}

/// What the server says about another attempt: nothing, after which time, or never.
pub(crate) fn pushback(outcome: &Outcome) -> Option<Option<Duration>> {
    let value = outcome.metadata.get(PUSHBACK)?;
    let milliseconds = value.to_str().ok().and_then(|text| text.parse::<i32>().ok());
    Some(
        milliseconds
            .and_then(|number| u64::try_from(number).ok())
            .map(Duration::from_millis),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::service_config::ServiceConfig;
    use http::HeaderValue;

    const CONFIG: &str = r#"{"methodConfig": [{"name": [{}], "retryPolicy": {
        "maxAttempts": 4, "initialBackoff": "1s", "maxBackoff": "3s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]}}], "retryThrottling": {"maxTokens": 4, "tokenRatio": 0.5}}"#;

    fn retries() -> Retries {
        let config = ServiceConfig::parse(CONFIG).expect("well formed");
        let throttle = config.throttling.map(|throttling| Arc::new(Throttle::new(throttling)));
        Retries::new(config.method("/a/b").cloned(), throttle)
    }

    fn outcome(code: Code, pushback: Option<&'static str>) -> Outcome {
        let mut outcome = Outcome::new(code, "");
        if let Some(pushback) = pushback {
            outcome.metadata.insert(PUSHBACK, HeaderValue::from_static(pushback));
        }
        outcome
    }

    fn near(pause: Option<Duration>, seconds: f64) {
        let pause = pause.expect("another attempt").as_secs_f64();
        assert!(
            (seconds * 0.79..seconds * 1.21).contains(&pause),
            "{pause} for {seconds}"
        );
    }

    #[test]
    fn pauses_grow_and_attempts_end() {
        let mut retries = retries();
        retries.throttle = None;
        let unavailable = outcome(Code::Unavailable, None);
        near(retries.next(&unavailable, Seen::Perhaps, true), 1.0);
        near(retries.next(&unavailable, Seen::Perhaps, true), 2.0);
        near(retries.next(&unavailable, Seen::Perhaps, true), 3.0);
        assert_eq!(retries.previous(), 3);
        assert_eq!(retries.next(&unavailable, Seen::Perhaps, true), None);
    }

    #[test]
    fn other_codes_and_sent_requests_end_the_call() {
        let mut retries = retries();
        assert_eq!(retries.next(&outcome(Code::Internal, None), Seen::Perhaps, true), None);
        assert_eq!(
            retries.next(&outcome(Code::Unavailable, None), Seen::Perhaps, false),
            None
        );
        assert_eq!(
            retries.next(&outcome(Code::Unavailable, None), Seen::Never, false),
            None
        );
    }

    #[test]
    fn what_nobody_saw_is_repeated_once_without_counting() {
        let mut retries = retries();
        retries.method = None;
        let refused = outcome(Code::Unavailable, None);
        assert_eq!(retries.next(&refused, Seen::Never, true), Some(Duration::ZERO));
        assert_eq!(retries.previous(), 0);
        assert_eq!(retries.next(&refused, Seen::Never, true), None);
    }

    #[test]
    fn the_server_says_when_and_whether() {
        let mut retries = retries();
        let later = outcome(Code::Unavailable, Some("70"));
        assert_eq!(
            retries.next(&later, Seen::Perhaps, true),
            Some(Duration::from_millis(70))
        );
        for never in ["-1", "soon"] {
            assert_eq!(
                retries.next(&outcome(Code::Unavailable, Some(never)), Seen::Perhaps, true),
                None
            );
        }
    }

    #[test]
    fn failures_use_up_the_tokens_and_successes_bring_them_back() {
        let mut first = retries();
        let unavailable = outcome(Code::Unavailable, None);
        assert!(first.next(&unavailable, Seen::Perhaps, true).is_some()); // 3 of 4 left
        assert!(first.next(&unavailable, Seen::Perhaps, true).is_none()); // 2: no more than half
        first.ended(Code::Ok, false); // 2.5
        first.ended(Code::Ok, false); // 3
        first.ended(Code::Ok, false); // 3.5
        first.failed = 0;
        assert!(first.next(&unavailable, Seen::Perhaps, true).is_some()); // 2.5
    }
}
