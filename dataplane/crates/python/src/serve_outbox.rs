//! What Python says in a call, on its way to HTTP/2: metadata, messages, the end.
//!
//! Bounded: when [`AHEAD`] messages wait for the network, a write waits in Python's loop, not in a thread.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use meshwright_serve::Outcome;
use pyo3::exceptions::PyConnectionError;
use pyo3::prelude::*;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::serve_mailbox::Post;
use crate::serve_runtime::runtime;

const ENDED: &str = "the call has ended";
const AHEAD: usize = 64;
/// Bytes up to which messages that wait share a frame (HTTP/2's default frame size).
const FRAME: usize = 16 << 10;

/// One thing said.
pub(crate) enum Said {
    /// Initial metadata; first, or not at all.
    Metadata(HeaderMap),
    /// A message in its frame.
    Message(Bytes),
    /// The end of a server's answer, with the last message if there is one.
    End(Option<Bytes>, Outcome),
}

/// The writing half.
#[derive(Clone)]
pub(crate) struct Outbox {
    sender: mpsc::Sender<Said>,
}

/// The reading half.
pub(crate) type Outgoing = mpsc::Receiver<Said>;

pub(crate) fn outbox() -> (Outbox, Outgoing) {
    let (sender, outgoing) = mpsc::channel(AHEAD);
    (Outbox { sender }, outgoing)
}

impl Outbox {
    /// Whether something can be said at once; an error when the call has ended.
    pub(crate) fn has_room(&self) -> PyResult<bool> {
        if self.sender.is_closed() {
            return Err(PyConnectionError::new_err(ENDED));
        }
        Ok(self.sender.capacity() > 0)
    }

    /// Say something if there is room; gives it back if there is none. An error when the call has ended.
    pub(crate) fn offer(&self, said: Said) -> PyResult<Option<Said>> {
        match self.sender.try_send(said) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(said)) => Ok(Some(said)),
            Err(TrySendError::Closed(_)) => Err(PyConnectionError::new_err(ENDED)),
        }
    }

    /// Say something and complete `future` once there was room.
    pub(crate) fn wait(&self, said: Said, post: Arc<Post>, future: Py<PyAny>) {
        let sender = self.sender.clone();
        runtime().spawn(async move {
            let sent = sender.send(said).await;
            post.complete(future, move |py| match sent {
                Ok(()) => Ok(py.None()),
                Err(_) => Err(PyConnectionError::new_err(ENDED)),
            });
        });
    }

    /// Say something whether or not there is room, without waiting: for the end, which is said once.
    pub(crate) fn say(&self, said: Said) {
        if let Err(TrySendError::Full(said)) = self.sender.try_send(said) {
            let sender = self.sender.clone();
            runtime().spawn(async move {
                let _ = sender.send(said).await; // fails only when the call has ended already
            });
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

impl<W> SaidBody<W> {
    /// One frame for all messages that wait: cheaper here, and kinder to peers that count frames.
    fn gather(&mut self, first: Bytes) -> Bytes {
        let mut gathered = BytesMut::new();
        while gathered.len() < FRAME {
            match self.outgoing.try_recv() {
                Ok(Said::Message(message)) => {
                    if gathered.is_empty() {
                        gathered.extend_from_slice(&first);
                    }
                    gathered.extend_from_slice(&message);
                }
                Ok(other) => {
                    self.first = Some(other);
                    break;
                }
                Err(_) => break, // nothing waits, or it is over: the next poll tells
            }
        }
        if gathered.is_empty() { first } else { gathered.freeze() }
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
            None => std::task::ready!(self.outgoing.poll_recv(context)),
        };
        let frame = match said {
            Some(Said::Metadata(_)) => Frame::data(Bytes::new()), // too late; Python's side refuses it before
            Some(Said::Message(message)) => Frame::data(self.gather(message)),
            Some(Said::End(Some(message), outcome)) => {
                self.first = Some(Said::End(None, outcome));
                Frame::data(message)
            }
            Some(Said::End(None, outcome)) => {
                self.ended = true;
                self.watch.finished();
                Frame::trailers(outcome.into_trailers())
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
