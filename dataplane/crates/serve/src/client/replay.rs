//! The requests of a streaming call, kept for another attempt until the call is committed to one.
//!
//! Attempts of a retried call follow one another: each takes over from the one before. Those of a hedged call run beside
//! one another: each reads all that has been kept, and whoever is furthest reads on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

/// What all attempts share.
#[derive(Debug)]
pub(crate) struct Replay {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    source: Body,
    kept: Vec<Bytes>,
    bytes: usize,
    limit: usize,
    is_committed: bool,
    is_ended: bool,
    /// The call is over for its caller: whoever still sends is to cancel its stream.
    is_given_up: bool,
    attempt: u64,
    /// The only attempt that gets requests; nothing: all do.
    only: Option<u64>,
    are_beside: bool,
    /// Attempts that have read all there is. The source wakes one of them.
    waiting: Vec<Waker>,
}

impl State {
    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Replay {
    /// Keep up to `limit` bytes of `source`; with more the call is committed to the attempt that has read them.
    /// `are_beside`: attempts don't end those before them.
    pub(crate) fn new(source: Body, limit: usize, are_beside: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                source,
                kept: Vec::new(),
                bytes: 0,
                limit,
                is_committed: false,
                is_ended: false,
                is_given_up: false,
                attempt: 0,
                only: None,
                are_beside,
                waiting: Vec::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests from their beginning, for a new attempt, numbered from 1. Not once committed.
    pub(crate) fn attempt(self: &Arc<Self>) -> Option<Body> {
        let mut state = self.lock();
        if state.is_committed {
            return None;
        }
        state.attempt += 1;
        if !state.are_beside {
            state.only = Some(state.attempt);
            state.wake(); // the one before ends
        }
        Some(Body::new(Attempt {
            replay: self.clone(),
            number: state.attempt,
            position: 0,
        }))
    }

    /// Whether another attempt can be made.
    pub(crate) fn is_open(&self) -> bool {
        !self.lock().is_committed
    }

    /// Cancel the streams that still send. Dropping the answer doesn't: hyper keeps a stream for as long as it has a body.
    pub(crate) fn give_up(&self) {
        let mut state = self.lock();
        state.is_given_up = true;
        state.wake();
    }

    /// Keep no more: this attempt is the one that counts.
    pub(crate) fn commit(&self, attempt: u64) {
        let mut state = self.lock();
        state.is_committed = true;
        if state.only.is_none() {
            state.only = Some(attempt);
        }
        state.wake();
    }
}

/// The requests of one attempt.
struct Attempt {
    replay: Arc<Replay>,
    number: u64,
    position: usize,
}

impl http_body::Body for Attempt {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let replay = self.replay.clone();
        let mut state = replay.lock();
        if state.only.is_some_and(|only| only != self.number) {
            return Poll::Ready(Some(Err(Status::cancelled("another attempt has taken over"))));
        }
        if state.is_given_up && !state.is_ended {
            return Poll::Ready(Some(Err(cancel())));
        }
        if let Some(frame) = state.kept.get(self.position) {
            let frame = frame.clone();
            self.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        if state.is_committed {
            state.kept = Vec::new();
            self.position = 0;
        }
        if state.is_ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(polled) = http_body::Body::poll_frame(Pin::new(&mut state.source), context) else {
            state.waiting.retain(|waker| !waker.will_wake(context.waker()));
            state.waiting.push(context.waker().clone());
            return Poll::Pending;
        };
        match &polled {
            None => state.is_ended = true,
            Some(Ok(frame)) if !state.is_committed => {
                if let Some(data) = frame.data_ref() {
                    state.bytes += data.len();
                    state.is_committed = state.bytes > state.limit;
                    if state.is_committed {
                        state.only = Some(self.number);
                    } else {
                        state.kept.push(data.clone());
                        self.position += 1;
                    }
                }
            }
            Some(_) => {}
        }
        state.wake(); // the others: there is more for them, or an end
        Poll::Ready(polled)
    }
}

/// The error of a body that makes hyper reset its stream with CANCEL.
fn cancel() -> Status {
    Status::from_error(Box::new(h2::Error::from(h2::Reason::CANCEL)))
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.replay.lock().wake(); // it may be the one that the source would have woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    fn source(parts: &'static [&'static str]) -> Body {
        let frames = parts
            .iter()
            .map(|part| Ok::<_, Status>(Frame::data(Bytes::from_static(part.as_bytes()))));
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    async fn rest(body: Body) -> Bytes {
        body.collect().await.expect("read").to_bytes()
    }

    #[tokio::test]
    async fn each_attempt_begins_anew_and_ends_the_one_before() {
        let replay = Replay::new(source(&["a", "b", "c"]), 100, false);
        let mut first = replay.attempt().expect("open");
        first.frame().await.expect("a").expect("a");
        let second = replay.attempt().expect("open");
        assert!(first.frame().await.expect("an end").is_err());
        assert_eq!(rest(second).await, "abc");
        assert_eq!(rest(replay.attempt().expect("open")).await, "abc");
        replay.commit(2);
        assert!(replay.attempt().is_none());
    }

    #[tokio::test]
    async fn giving_up_ends_a_body_that_waits_with_a_cancel() {
        let endless = Body::new(StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Status>>()));
        let replay = Replay::new(endless, 100, false);
        let mut body = replay.attempt().expect("open");
        let waiting = tokio::spawn(async move { body.frame().await });
        tokio::task::yield_now().await;
        replay.give_up();
        let error = waiting.await.expect("ends").expect("a frame").expect_err("a cancel");
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        assert_eq!(cause.and_then(h2::Error::reason), Some(h2::Reason::CANCEL));
        let ended = Replay::new(source(&["a"]), 100, false);
        let body = ended.attempt().expect("open");
        let body = tokio::spawn(async move {
            let mut body = body;
            body.frame().await.expect("a").expect("a");
            assert!(body.frame().await.is_none());
            body
        });
        let mut body = body.await.expect("read");
        ended.give_up();
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn what_is_too_much_to_keep_commits() {
        let replay = Replay::new(source(&["aaa", "bbb", "ccc"]), 4, false);
        let mut first = replay.attempt().expect("open");
        first.frame().await.expect("aaa").expect("aaa");
        assert!(replay.is_open());
        let second = replay.attempt().expect("open");
        assert_eq!(rest(second).await, "aaabbbccc");
        assert!(!replay.is_open());
    }

    #[tokio::test]
    async fn committed_in_the_middle_the_rest_follows() {
        let replay = Replay::new(source(&["a", "b", "c"]), 100, false);
        let mut first = replay.attempt().expect("open");
        for _ in 0..2 {
            first.frame().await.expect("there").expect("there");
        }
        let mut second = replay.attempt().expect("open");
        second.frame().await.expect("a").expect("a");
        replay.commit(2);
        assert_eq!(rest(second).await, "bc");
    }

    #[tokio::test]
    async fn attempts_beside_one_another_read_the_same() {
        let replay = Replay::new(source(&["a", "b", "c"]), 100, true);
        let (mut first, mut second) = (replay.attempt().expect("open"), replay.attempt().expect("open"));
        for part in ["a", "b"] {
            for attempt in [&mut first, &mut second] {
                let frame = attempt.frame().await.expect("there").expect("there");
                assert_eq!(frame.into_data().expect("data"), part);
            }
        }
        replay.commit(2);
        assert!(first.frame().await.expect("an end").is_err());
        assert_eq!(rest(second).await, "c");
    }

    #[tokio::test]
    async fn too_much_commits_to_the_furthest() {
        let replay = Replay::new(source(&["aaa", "bbb", "ccc"]), 4, true);
        let (mut first, mut second) = (replay.attempt().expect("open"), replay.attempt().expect("open"));
        for attempt in [&mut first, &mut second] {
            attempt.frame().await.expect("there").expect("there");
        }
        second.frame().await.expect("there").expect("there");
        assert!(!replay.is_open());
        assert!(first.frame().await.expect("an end").is_err());
        assert_eq!(rest(second).await, "ccc");
    }

    #[tokio::test]
    async fn one_that_is_given_up_wakes_the_others() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
        let body = Body::new(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver)));
        let replay = Replay::new(body, 100, true);
        let (first, second) = (replay.attempt().expect("open"), replay.attempt().expect("open"));
        let first = tokio::spawn(rest(first));
        tokio::task::yield_now().await; // it waits for the source
        let second = tokio::spawn(rest(second));
        tokio::task::yield_now().await; // now the source would wake this one
        second.abort();
        sender
            .send(Ok(Frame::data(Bytes::from_static(b"a"))))
            .await
            .expect("read");
        drop(sender);
        assert_eq!(first.await.expect("read"), "a");
    }
}
