//! The way to adapters that aren't part of the engine: the Python host and the remote channel implement `Ask` and are
//! given to the state with `State::set_ask`. The state asks all questions of a request at the same time, holds each to
//! its handler's timeout, and lets the engine apply the failure policy to whatever didn't come back.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use arc_swap::ArcSwapOption;
use meshwright_policy::{Answer, Failed, Host, Question};
use meshwright_serve::telemetry::span::Current;

use crate::kept::{KeptReplies, Key};

/// An answer to come.
pub type Asking = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Who brings questions to adapters: `state.set_ask(Host::Remote, Arc::new(channels))`.
pub trait Ask: Send + Sync + std::fmt::Debug {
    /// Has one question answered. All questions of a request are given one after the other before the first of their
    /// futures is polled, so an implementation can collect them. It need not watch the timeout, but a future that is
    /// dropped isn't waited for any longer: the timeout passed, or the caller went away. `span` is the request's, where it
    /// belongs to a trace.
    fn ask(&self, question: Question, span: Option<&Current>) -> Asking;
}

/// The ways there are, none at first, and what came back and may be used again.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    python: ArcSwapOption<Arc<dyn Ask>>,
    remote: ArcSwapOption<Arc<dyn Ask>>,
    kept: Arc<KeptReplies>,
    found: AtomicU64,
}

impl Ways {
    fn to(&self, host: Host) -> &ArcSwapOption<Arc<dyn Ask>> {
        match host {
            Host::Python => &self.python,
            Host::Remote => &self.remote,
        }
    }

    pub(crate) fn set(&self, host: Host, way: Arc<dyn Ask>) {
        self.to(host).store(Some(Arc::new(way)));
    }

    /// Questions that were answered with a reply from before.
    pub(crate) fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// Replies that may be used again.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// One answer for each question, in their order. `now` in nanoseconds of a clock that never goes back.
    pub(crate) async fn ask(&self, questions: Vec<Question>, now: u64, span: Option<&Current>) -> Vec<Answer> {
        let asking = questions.into_iter().map(|one| self.kept_or_begun(one, now, span));
        let mut asking: Vec<Result<Answer, Asking>> = asking.collect();
        // They are few: whenever one has news, all that are left are asked.
        poll_fn(|context| {
            let mut is_ready = true;
            for one in &mut asking {
                if let Err(future) = one {
                    match future.as_mut().poll(context) {
                        Poll::Ready(answer) => *one = Ok(answer),
                        Poll::Pending => is_ready = false,
                    }
                }
            }
            if is_ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        asking.into_iter().filter_map(Result::ok).collect()
    }

    fn kept_or_begun(&self, question: Question, now: u64, span: Option<&Current>) -> Result<Answer, Asking> {
        let Some(key) = Key::of(&question) else {
            return Err(self.begin(question, span));
        };
        if let Some(reply) = self.kept.find(&key, now) {
            self.found.fetch_add(1, Ordering::Relaxed);
            return Ok(Ok(reply));
        }
        let (asking, kept) = (self.begin(question, span), self.kept.clone());
        Err(Box::pin(async move {
            let answer = asking.await;
            if let Ok(reply) = &answer {
                kept.keep(key, reply, now);
            }
            answer
        }))
    }

    fn begin(&self, question: Question, span: Option<&Current>) -> Asking {
        let asked = question.asked.clone();
        let Some(way) = self.to(asked.host).load_full() else {
            let reason = format!("nothing here runs adapter {}", asked.adapter);
            return Box::pin(std::future::ready(Err(Failed::Because(reason))));
        };
        let answer = way.ask(question, span);
        Box::pin(async move {
            tokio::time::timeout(asked.timeout, answer)
                .await
                .unwrap_or(Err(Failed::TimedOut))
        })
    }
}
