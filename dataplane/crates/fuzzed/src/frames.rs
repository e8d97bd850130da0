//! gRPC's message frames, plain and compressed: however the bytes are cut, the same messages come out, within the limit,
//! and what was read is read again after it was written.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use meshwright_serve::Encoding;
use meshwright_serve::wire::frame::{Reader, encode_as};
use tonic::Code;

use crate::input::{Input, pieces};

/// Any bytes as a body.
pub fn frames(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let encoding = match input.byte() % 3 {
        0 => None,
        1 => Some(Encoding::Gzip),
        _ => Some(Encoding::Deflate),
    };
    let limit = [0, 10, 1000, 100_000][usize::from(input.byte() % 4)];
    let seed = input.byte();
    let body = input.rest();
    let (messages, end) = read(pieces(0, body), limit, encoding);
    for seed in [1, seed] {
        assert_eq!(
            read(pieces(seed, body), limit, encoding),
            (messages.clone(), end),
            "cut by {seed}"
        );
    }
    let written: Vec<Bytes> = messages.iter().map(|message| encode_as(encoding, message)).collect();
    let again = read(written.iter().map(|frame| &**frame).collect(), limit, encoding);
    assert_eq!(again, (messages, Code::Ok));
}

/// The messages of a body in pieces, and how it ended.
fn read(pieces: Vec<&[u8]>, limit: usize, encoding: Option<Encoding>) -> (Vec<Bytes>, Code) {
    let body = Pieces(pieces.into_iter().map(Bytes::copy_from_slice).collect());
    let mut reader = Reader::new(body, limit, encoding);
    let mut messages = Vec::new();
    loop {
        let next = pin!(reader.next()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(next)) = next else {
            unreachable!("the body is always ready")
        };
        match next {
            Ok(Some(message)) => {
                assert!(message.len() <= limit, "{} bytes", message.len());
                messages.push(message);
            }
            Ok(None) => return (messages, Code::Ok),
            Err(status) => return (messages, status.code()),
        }
    }
}

struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}
