//! How many messages and bytes went either way in a call, read off the bytes that pass.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::Status;

use crate::server::load::{Charge, Turn};
use crate::wire::outcome::chain;

/// What went in one direction. Bytes are those of the messages as they travelled, compressed or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Whole messages.
    pub messages: u64,
    /// Their bytes, and those of a message that broke off.
    pub bytes: u64,
}

const HEADER: u8 = 5;

/// Follows the frames of messages ("Length-Prefixed-Message") through pieces that are cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    pub(crate) tally: Tally,
    length: u32,
    header: u8, // bytes of the header that were seen; 5 within the message
    left: u32,
}

impl Follower {
    /// Bytes of the message that isn't whole yet.
    fn partial(&self) -> usize {
        match self.header {
            HEADER => (self.length - self.left) as usize + usize::from(HEADER),
            known => known.into(),
        }
    }

    pub(crate) fn take(&mut self, mut piece: &[u8]) {
        loop {
            while self.header < HEADER {
                let Some((byte, rest)) = piece.split_first() else {
                    return;
                };
                if self.header > 0 {
                    self.length = self.length << 8 | u32::from(*byte);
                }
                (self.header, piece, self.left) = (self.header + 1, rest, self.length);
            }
            let count = piece.len().min(self.left as usize);
            self.tally.bytes += count as u64;
            self.left -= count as u32;
            if self.left > 0 {
                return;
            }
            self.tally.messages += 1;
            (self.header, self.length, piece) = (0, 0, &piece[count..]);
        }
    }
}

/// A tally that one side writes and another reads.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    fn set(&self, tally: Tally) {
        self.messages.store(tally.messages, Ordering::Relaxed);
        self.bytes.store(tally.bytes, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Tally {
        Tally {
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A request's body: counted if its call is watched so closely, and held back while too much is held.
pub struct RequestBody {
    inner: Incoming,
    follower: Follower,
    read: Option<Arc<Shared>>,
    charge: Charge,
    waiting: Option<Pin<Box<dyn Future<Output = Option<Turn>> + Send + Sync>>>,
    turn: Option<Turn>,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, read: Option<Arc<Shared>>, charge: Charge) -> Self {
        Self {
            inner,
            follower: Follower::default(),
            read,
            charge,
            waiting: None,
            turn: None,
        }
    }

    /// To count what is kept of this request after it was read, and of its answer.
    pub fn charge(&self) -> Charge {
        self.charge.another(0)
    }

    /// Wait while too much is held for this peer, or for all.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.turn.is_some() || (self.waiting.is_none() && !self.charge.is_full()) {
            return Poll::Ready(Ok(()));
        }
        let charge = &self.charge;
        let waiting = self.waiting.get_or_insert_with(|| charge.turn());
        let turn = ready!(waiting.as_mut().poll(context));
        self.waiting = None;
        self.turn = turn;
        Poll::Ready(if self.turn.is_some() {
            Ok(())
        } else {
            Err(self.charge.refusal())
        })
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RequestBody")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Err(refusal) = ready!(this.poll_room(context)) {
            return Poll::Ready(Some(Err(refusal)));
        }
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        let data = match &frame {
            Some(Ok(frame)) => frame.data_ref(),
            _ => None,
        };
        if let Some(data) = data {
            this.follower.take(data);
            let partial = this.follower.partial();
            this.charge.set(partial);
            if partial == 0 {
                this.turn = None;
            }
            if let Some(read) = &this.read {
                read.set(this.follower.tally);
            }
        }
        Poll::Ready(
            frame.map(|frame| {
                frame.map_err(|error| Status::cancelled(format!("the request broke off: {}", chain(&error))))
            }),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0_u32, 1, 300, 0, 70_000] {
            bytes.push(0);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.resize(bytes.len() + length as usize, 7);
        }
        for size in [1, 2, 3, 4, 5, 6, 7, 299, 16_384, bytes.len()] {
            let mut follower = Follower::default();
            bytes.chunks(size).for_each(|piece| follower.take(piece));
            let expected = Tally {
                messages: 5,
                bytes: 70_301,
            };
            assert_eq!(follower.tally, expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_message_that_breaks_off_counts_its_bytes_only() {
        let mut follower = Follower::default();
        follower.take(&[0, 255, 255, 255, 255, 1, 2, 3]);
        assert_eq!(follower.tally, Tally { messages: 0, bytes: 3 });
    }
}
