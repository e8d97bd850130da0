//! Which handlers are left alone for a while: a backend that is away refuses all batches alike, and every attempt marks
//! more records as possible duplicates. One batch at a time tries it again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(500);
/// Whoever tries has so long, before somebody else may.
const TRIAL: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Rest {
    until: Instant,
    pause: Duration,
}

/// By handler.
#[derive(Debug)]
pub(crate) struct Rests {
    longest: Duration,
    rests: Mutex<HashMap<String, Rest>>,
}

impl Rests {
    /// Rests grow from half a second to `longest`.
    pub(crate) fn new(longest: Duration) -> Self {
        Rests {
            longest,
            rests: Mutex::default(),
        }
    }

    /// How long the handler rests yet; None: give it what there is. After a rest this says so once.
    pub(crate) fn left(&self, handler: &str) -> Option<Duration> {
        let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = rests.get_mut(handler)?;
        let now = Instant::now();
        if rest.until > now {
            return Some(rest.until - now);
        }
        rest.until = now + TRIAL;
        None
    }

    /// It took a batch.
    pub(crate) fn end(&self, handler: &str) {
        self.rests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(handler);
    }

    /// It refused one; returns for how long it rests now.
    pub(crate) fn begin(&self, handler: &str) -> Duration {
        let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let rest = rests.entry(handler.to_owned()).or_insert(Rest {
            until: now,
            pause: FIRST / 2,
        });
        rest.pause = (rest.pause * 2).min(self.longest);
        rest.until = now + rest.pause;
        rest.pause
    }

    /// When each of `handlers` rests: until the first may be tried.
    pub(crate) fn all_until<'a>(&self, handlers: impl Iterator<Item = &'a str>) -> Option<Instant> {
        let rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let mut soonest = None;
        for handler in handlers {
            let until = rests.get(handler)?.until;
            soonest = Some(soonest.map_or(until, |other: Instant| other.min(until)));
        }
        soonest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_its_rest_one_tries() {
        let rests = Rests::new(Duration::from_secs(5));
        assert_eq!(rests.left("a"), None);
        let pause = rests.begin("a");
        assert!(rests.left("a").is_some());
        tokio::time::advance(pause).await;
        assert_eq!(rests.left("a"), None);
        assert!(rests.left("a").is_some(), "somebody tries it already");
        assert!(rests.begin("a") > pause);
        rests.end("a");
        assert_eq!(rests.left("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn all_rest_only_when_each_does() {
        let rests = Rests::new(Duration::from_secs(5));
        rests.begin("a");
        assert_eq!(rests.all_until(["a", "b"].into_iter()), None);
        rests.begin("b");
        assert!(rests.all_until(["a", "b"].into_iter()).is_some());
        assert_eq!(rests.all_until([].into_iter()), None);
    }
}
