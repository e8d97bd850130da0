//! From one task that reads ahead to one receiver that takes a message at a time, in order.
//!
//! Bounded: the task waits when the receiver is behind. The receiver leaves a waiter (an asyncio future) when there is
//! nothing; which message a waiter gets is decided on the receiver's own thread, because it may have given up by then,
//! and its message must not be lost.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::sync::{Mutex, MutexGuard, lock};

/// Messages of type `M` for waiters of type `W`.
#[derive(Debug)]
pub struct Inbox<M, W> {
    state: Mutex<State<M, W>>,
    size: usize,
    count: usize,
}

#[derive(Debug)]
struct State<M, W> {
    messages: VecDeque<(M, usize)>,
    size: usize,
    ended: bool,
    waiting: Option<W>,
    /// Whether a delivery has been asked for that hasn't begun.
    delivering: bool,
    /// The reading task, while it waits for room.
    reader: Option<Waker>,
}

/// What a receiver gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<M, W> {
    /// The next message.
    Message(M, W),
    /// There are no more.
    End(W),
    /// Nothing yet: a waiter is kept until the next delivery.
    Later,
}

impl<M, W> Inbox<M, W> {
    /// Read ahead until `size` bytes or `count` messages wait; the last message may go beyond `size`.
    pub fn new(size: usize, count: usize) -> Self {
        let state = State {
            messages: VecDeque::new(),
            size: 0,
            ended: false,
            waiting: None,
            delivering: false,
            reader: None,
        };
        Self {
            state: Mutex::new(state),
            size,
            count,
        }
    }

    fn has_room(&self, state: &State<M, W>) -> bool {
        state.size < self.size && state.messages.len() < self.count
    }

    /// Add a message of `size` bytes, when there is room. For one task. True: have the receiver's thread call
    /// [`deliver`](Self::deliver).
    #[must_use = "true asks for a delivery"]
    pub async fn put(&self, message: M, size: usize) -> bool {
        let mut message = Some(message);
        poll_fn(|context| {
            let mut state = lock(&self.state);
            if !self.has_room(&state) {
                state.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            if let Some(message) = message.take() {
                state.size += size;
                state.messages.push_back((message, size));
            }
            Poll::Ready(asks(state))
        })
        .await
    }

    /// No more messages follow. True as for [`put`](Self::put).
    #[must_use = "true asks for a delivery"]
    pub fn end(&self) -> bool {
        let mut state = lock(&self.state);
        state.ended = true;
        asks(state)
    }

    /// On the receiver's thread, once for each time that it was asked for: the waiter to serve, by
    /// [`take`](Self::take) if it still waits.
    pub fn deliver(&self) -> Option<W> {
        let mut state = lock(&self.state);
        state.delivering = false;
        state.waiting.take()
    }

    /// Take the next message for `waiter`. One at a time: a second waiter replaces the first.
    pub fn take(&self, waiter: W) -> Taken<M, W> {
        let mut state = lock(&self.state);
        if state.messages.is_empty() && !state.ended {
            let replaced = state.waiting.replace(waiter);
            drop(state);
            drop(replaced); // without the lock: it may be anything
            return Taken::Later;
        }
        match self.pop(state) {
            Some(message) => Taken::Message(message, waiter),
            None => Taken::End(waiter),
        }
    }

    /// Take the next message if there is one, for nobody who would wait for it.
    pub fn poll(&self) -> Taken<M, ()> {
        let state = lock(&self.state);
        if state.messages.is_empty() && !state.ended {
            return Taken::Later;
        }
        match self.pop(state) {
            Some(message) => Taken::Message(message, ()),
            None => Taken::End(()),
        }
    }

    fn pop(&self, mut state: MutexGuard<'_, State<M, W>>) -> Option<M> {
        let (message, size) = state.messages.pop_front()?;
        state.size -= size;
        let reader = if self.has_room(&state) {
            state.reader.take()
        } else {
            None
        };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Some(message)
    }
}

/// Whether somebody waits and no delivery is on its way yet.
fn asks<M, W>(mut state: MutexGuard<'_, State<M, W>>) -> bool {
    state.waiting.is_some() && !std::mem::replace(&mut state.delivering, true)
}
