//! How many messages and bytes went either way in a call, read off the bytes that pass.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

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

/// A request's body, counted if its call is watched so closely.
#[derive(Debug)]
pub struct RequestBody {
    inner: Incoming,
    follower: Follower,
    read: Option<Arc<Shared>>,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, read: Option<Arc<Shared>>) -> Self {
        Self {
            inner,
            follower: Follower::default(),
            read,
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let (Some(read), Some(Ok(frame))) = (&this.read, &frame)
            && let Some(data) = frame.data_ref()
        {
            this.follower.take(data);
            read.set(this.follower.tally);
        }
        Poll::Ready(frame)
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
