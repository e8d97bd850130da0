//! The requests of a streaming call, kept for another attempt until the call is committed to the one under way.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

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
    attempt: u64,
}

impl Replay {
    /// Keep up to `limit` bytes of `source`; with more the call is committed.
    pub(crate) fn new(source: Body, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                source,
                kept: Vec::new(),
                bytes: 0,
                limit,
                is_committed: false,
                is_ended: false,
                attempt: 0,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests from their beginning, for a new attempt; those before it get no more. Not once committed.
    pub(crate) fn attempt(self: &Arc<Self>) -> Option<Body> {
        let mut state = self.lock();
        if state.is_committed {
            return None;
        }
        state.attempt += 1;
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

    /// Keep no more: the attempt under way is the last.
    pub(crate) fn commit(&self) {
        self.lock().is_committed = true;
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
        if self.number != state.attempt {
            return Poll::Ready(Some(Err(Status::cancelled("another attempt has taken over"))));
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
        let polled = std::task::ready!(http_body::Body::poll_frame(Pin::new(&mut state.source), context));
        match &polled {
            None => state.is_ended = true,
            Some(Ok(frame)) if !state.is_committed => {
                if let Some(data) = frame.data_ref() {
                    state.bytes += data.len();
                    state.is_committed = state.bytes > state.limit;
                    if !state.is_committed {
                        state.kept.push(data.clone());
                        self.position += 1;
                    }
                }
            }
            Some(_) => {}
        }
        Poll::Ready(polled)
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
        let replay = Replay::new(source(&["a", "b", "c"]), 100);
        let mut first = replay.attempt().expect("open");
        first.frame().await.expect("a").expect("a");
        let second = replay.attempt().expect("open");
        assert!(first.frame().await.expect("an end").is_err());
        assert_eq!(rest(second).await, "abc");
        assert_eq!(rest(replay.attempt().expect("open")).await, "abc");
        replay.commit();
        assert!(replay.attempt().is_none());
    }

    #[tokio::test]
    async fn what_is_too_much_to_keep_commits() {
        let replay = Replay::new(source(&["aaa", "bbb", "ccc"]), 4);
        let mut first = replay.attempt().expect("open");
        first.frame().await.expect("aaa").expect("aaa");
        assert!(replay.is_open());
        let second = replay.attempt().expect("open");
        assert_eq!(rest(second).await, "aaabbbccc");
        assert!(!replay.is_open());
    }

    #[tokio::test]
    async fn committed_in_the_middle_the_rest_follows() {
        let replay = Replay::new(source(&["a", "b", "c"]), 100);
        let mut first = replay.attempt().expect("open");
        for _ in 0..2 {
            first.frame().await.expect("there").expect("there");
        }
        let mut second = replay.attempt().expect("open");
        second.frame().await.expect("a").expect("a");
        replay.commit();
        assert_eq!(rest(second).await, "bc");
    }
}
