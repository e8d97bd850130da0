//! What Python says in a call, on its way to HTTP/2: metadata, messages, the end.
//!
//! Bounded: when [`MESSAGES`] or [`BYTES`] wait for the network, a write waits, in Python's loop or in its handler's
//! own thread. One allocation a call: most calls say one thing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use meshwright_serve::Outcome;
use pyo3::exceptions::PyConnectionError;
use pyo3::prelude::*;

use crate::serve_mailbox::Post;

const ENDED: &str = "the call has ended";
/// Messages that wait for the network at most.
const MESSAGES: usize = 64;
/// Bytes after which no further message is taken; one message may be longer.
const BYTES: usize = 256 << 10;
/// Bytes up to which messages that wait share a frame (HTTP/2's default frame size).
const FRAME: usize = 16 << 10;

/// One thing said.
pub(crate) enum Said {
    /// Initial metadata; first, or not at all.
    Metadata(Box<HeaderMap>),
    /// A message in its frame.
    Message(Bytes),
    /// The end of a server's answer, with the last message if there is one. Without an outcome it is a plain OK.
    End(Option<Bytes>, Option<Box<Outcome>>),
}

impl Said {
    pub(crate) fn failure(outcome: Outcome) -> Self {
        Self::End(None, Some(Box::new(outcome)))
    }

    fn len(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Metadata(_) | Self::End(..) => 0,
        }
    }
}

/// A message that waits for room, and the future of whoever said it.
type Waiting = (Said, Arc<Post>, Py<PyAny>);

#[derive(Default)]
struct State {
    said: VecDeque<Said>,
    bytes: usize,
    waiting: VecDeque<Waiting>,
    reader: Option<Waker>,
    /// Nobody reads any more: the call has ended.
    closed: bool,
    writers: usize,
    /// Threads that wait in `say_blocking`. Waking none costs a system call all the same.
    blocked: usize,
}

impl State {
    fn has_room(&self) -> bool {
        self.said.len() < MESSAGES && self.bytes < BYTES && self.waiting.is_empty()
    }

    fn push(&mut self, said: Said) -> Option<Waker> {
        self.bytes += said.len();
        self.said.push_back(said);
        self.reader.take()
    }
}

#[derive(Default)]
struct Pipe {
    state: Mutex<State>,
    room: Condvar,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing half.
pub(crate) struct Outbox(Arc<Pipe>);

/// The reading half.
pub(crate) struct Outgoing(Arc<Pipe>);

pub(crate) fn outbox() -> (Outbox, Outgoing) {
    let pipe = Arc::new(Pipe::default());
    pipe.lock().writers = 1;
    (Outbox(pipe.clone()), Outgoing(pipe))
}

impl Clone for Outbox {
    fn clone(&self) -> Self {
        self.0.lock().writers += 1;
        Self(self.0.clone())
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.writers -= 1;
        let reader = if state.writers == 0 { state.reader.take() } else { None };
        drop(state);
        wake(reader);
    }
}

fn wake(reader: Option<Waker>) {
    if let Some(reader) = reader {
        reader.wake();
    }
}

fn ended() -> PyErr {
    PyConnectionError::new_err(ENDED)
}

impl Outbox {
    /// Whether a message can be said at once; an error when the call has ended.
    pub(crate) fn has_room(&self) -> PyResult<bool> {
        let state = self.0.lock();
        if state.closed {
            Err(ended())
        } else {
            Ok(state.has_room())
        }
    }

    /// Say something whether or not there is room: metadata, the end, or a message after `has_room`.
    pub(crate) fn say(&self, said: Said) {
        let mut state = self.0.lock();
        if state.closed {
            return;
        }
        // The end comes after what waits; a handler that has ended waits for nothing else.
        let early = std::mem::take(&mut state.waiting);
        let (mut told, mut reader) = (Vec::new(), None);
        for (said, post, future) in early {
            reader = state.push(said).or(reader);
            told.push((post, future));
        }
        reader = state.push(said).or(reader);
        drop(state);
        wake(reader);
        complete(told);
    }

    /// Say a message once there is room, and then complete `future`.
    pub(crate) fn wait(&self, said: Said, post: Arc<Post>, future: Py<PyAny>) {
        let mut state = self.0.lock();
        if state.closed {
            drop(state);
            return post.complete(future, |_| Err(ended()));
        }
        if !state.has_room() {
            return state.waiting.push_back((said, post, future));
        }
        let reader = state.push(said);
        drop(state);
        wake(reader);
        post.complete(future, |py| Ok(py.None()));
    }

    /// Say a message once there is room; blocks this thread, which doesn't hold the GIL.
    pub(crate) fn say_blocking(&self, said: Said) -> PyResult<()> {
        let mut state = self.0.lock();
        while !state.closed && !state.has_room() {
            state.blocked += 1;
            state = self.0.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
        if state.closed {
            return Err(ended());
        }
        let reader = state.push(said);
        drop(state);
        wake(reader);
        Ok(())
    }
}

fn complete(told: Vec<(Arc<Post>, Py<PyAny>)>) {
    for (post, future) in told {
        post.complete(future, |py| Ok(py.None()));
    }
}

impl Outgoing {
    /// The next thing said; nothing when nobody will say anything.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Said>> {
        let mut state = self.0.lock();
        if let Some(said) = state.said.pop_front() {
            state.bytes -= said.len();
            self.make_room(state);
            return Poll::Ready(Some(said));
        }
        if state.writers == 0 {
            return Poll::Ready(None);
        }
        if !state
            .reader
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            state.reader = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// One frame for all messages that wait: cheaper here, and kinder to peers that count frames.
    fn gather(&mut self, first: Bytes) -> Bytes {
        let mut state = self.0.lock();
        // A large one isn't copied: it is counted as held for as long as the network hasn't taken it.
        if first.len() >= FRAME || !matches!(state.said.front(), Some(Said::Message(_))) {
            return first;
        }
        let mut gathered = BytesMut::with_capacity(first.len() + state.bytes.min(FRAME));
        gathered.extend_from_slice(&first);
        while gathered.len() < FRAME
            && let Some(Said::Message(message)) = state.said.front()
        {
            gathered.extend_from_slice(message);
            state.bytes -= message.len();
            state.said.pop_front();
        }
        self.make_room(state);
        gathered.freeze()
    }

    /// Let in what waits, once half has gone: whoever waits is woken for many messages, not for each.
    fn make_room(&self, mut state: MutexGuard<'_, State>) {
        if state.said.len() > MESSAGES / 2 || state.bytes > BYTES / 2 {
            return;
        }
        if state.blocked > 0 {
            self.0.room.notify_all();
        }
        if state.waiting.is_empty() {
            return;
        }
        let mut told = Vec::new();
        for (said, post, future) in std::mem::take(&mut state.waiting) {
            state.push(said); // the reader is awake: it is here
            told.push((post, future));
        }
        drop(state);
        complete(told);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.said.clear();
        let waiting = std::mem::take(&mut state.waiting);
        if state.blocked > 0 {
            self.0.room.notify_all();
        }
        drop(state);
        for (_, post, future) in waiting {
            post.complete(future, |_| Err(ended()));
        }
    }
}

/// The HTTP/2 body of what is said. `watch` lives as long as the body: its drop says that the call is over.
pub(crate) struct SaidBody<W> {
    first: Option<Said>,
    outgoing: Outgoing,
    ended: bool,
    watch: W,
}

impl<W> SaidBody<W> {
    pub(crate) fn new(first: Option<Said>, outgoing: Outgoing, watch: W) -> Self {
        Self {
            first,
            outgoing,
            ended: false,
            watch,
        }
    }
}

/// Told once, when the end of an answer has been handed to HTTP/2.
pub(crate) trait Finish {
    /// The call has got its end.
    fn finished(&mut self);

    /// What to say when Python went without saying an end; a client's request needs nothing.
    fn unfinished(&self) -> Option<Outcome> {
        None
    }
}

/// The trailers of an end.
pub(crate) fn trailers(outcome: Option<Box<Outcome>>) -> HeaderMap {
    match outcome {
        Some(outcome) => outcome.into_trailers(),
        None => Outcome::ok_trailers(),
    }
}

impl<W: Finish + Unpin> Body for SaidBody<W> {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let said = match self.first.take() {
            Some(said) => Some(said),
            None => std::task::ready!(self.outgoing.poll_next(context)),
        };
        let frame = match said {
            Some(Said::Metadata(_)) => Frame::data(Bytes::new()), // too late; Python's side refuses it before
            Some(Said::Message(message)) => Frame::data(self.outgoing.gather(message)),
            Some(Said::End(Some(message), outcome)) => {
                self.first = Some(Said::End(None, outcome));
                Frame::data(message)
            }
            Some(Said::End(None, outcome)) => {
                self.ended = true;
                self.watch.finished();
                Frame::trailers(trailers(outcome))
            }
            None => {
                self.ended = true;
                self.watch.finished();
                match self.watch.unfinished() {
                    Some(outcome) => Frame::trailers(outcome.into_trailers()),
                    None => return Poll::Ready(None),
                }
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }
}
