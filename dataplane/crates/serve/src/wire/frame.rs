//! gRPC's messages on an HTTP/2 body: a flag byte, four bytes of length, then the message ("Length-Prefixed-Message").
//!
//! Messages that arrive in one piece are handed on without a copy. The flag says that a message is compressed, in the
//! encoding that the headers name.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tonic::Status;

use crate::wire::compression::Encoding;

const HEADER: usize = 5;

/// A message in its frame.
pub fn encode(message: &[u8]) -> Bytes {
    put(0, message)
}

/// A message in its frame, compressed where that makes it shorter.
pub fn encode_as(encoding: Option<Encoding>, message: &[u8]) -> Bytes {
    match encoding.and_then(|encoding| encoding.compress(message)) {
        Some(compressed) => put(1, &compressed),
        None => put(0, message),
    }
}

fn put(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + message.len());
    frame.put_u8(flag);
    // Longer than the length field can say is far beyond any limit on messages.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Reads the messages of a body, and then its trailers.
#[derive(Debug)]
pub struct Reader<B> {
    body: B,
    limit: usize,
    encoding: Option<Encoding>,
    chunk: Bytes,
    partial: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Reader<B> {
    /// Read `body`, whose messages may have `limit` bytes, and be compressed if there is an `encoding`.
    pub fn new(body: B, limit: usize, encoding: Option<Encoding>) -> Self {
        Self {
            body,
            limit,
            encoding,
            chunk: Bytes::new(),
            partial: BytesMut::new(),
            trailers: None,
            ended: false,
        }
    }

    /// The next message; nothing at the end. The outer error is the transport's.
    pub async fn next(&mut self) -> Result<Result<Option<Bytes>, Status>, B::Error> {
        loop {
            match self.take() {
                Ok(None) => {}
                found => return Ok(found),
            }
            if self.ended {
                let is_whole = self.chunk.is_empty() && self.partial.is_empty();
                let cut = || Status::internal("the stream ended in the middle of a message");
                return Ok(if is_whole { Ok(None) } else { Err(cut()) });
            }
            match self.body.frame().await.transpose()? {
                None => self.ended = true,
                Some(frame) => match frame.into_data() {
                    Ok(data) if self.chunk.is_empty() && self.partial.is_empty() => self.chunk = data,
                    Ok(data) => {
                        let chunk = std::mem::take(&mut self.chunk);
                        self.partial.extend_from_slice(&chunk);
                        self.partial.extend_from_slice(&data);
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.ended = true;
                    }
                },
            }
        }
    }

    /// The trailers, once the end has been read.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// A whole message out of what has arrived.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let arrived: &[u8] = if self.partial.is_empty() {
            &self.chunk
        } else {
            &self.partial
        };
        let Some(mut header) = arrived.get(..HEADER) else {
            return Ok(None);
        };
        let encoding = match (header.get_u8(), self.encoding) {
            (0, _) => None,
            (1, Some(encoding)) => Some(encoding),
            (1, None) => {
                let text = "the message is marked as compressed, but the headers name no grpc-encoding";
                return Err(Status::internal(text));
            }
            (flag, _) => {
                return Err(Status::internal(format!(
                    "{flag} is no flag of a message: expected 0 or 1"
                )));
            }
        };
        let length = header.get_u32() as usize;
        if length > self.limit {
            let limit = self.limit;
            return Err(Status::resource_exhausted(format!(
                "a message of {length} bytes; the limit is {limit}"
            )));
        }
        if arrived.len() < HEADER + length {
            return Ok(None);
        }
        let message = if self.partial.is_empty() {
            self.chunk.advance(HEADER);
            self.chunk.split_to(length)
        } else {
            self.partial.advance(HEADER);
            self.partial.split_to(length).freeze()
        };
        match encoding {
            None => Ok(Some(message)),
            Some(encoding) => Ok(Some(encoding.inflate(&message, self.limit)?.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    struct Chunks(VecDeque<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
        }
    }

    async fn read(bytes: &[u8], chunk: usize, limit: usize, encoding: Option<Encoding>) -> Result<Vec<Bytes>, Status> {
        let chunks = bytes.chunks(chunk).map(Bytes::copy_from_slice).collect();
        let mut reader = Reader::new(Chunks(chunks), limit, encoding);
        let mut messages = Vec::new();
        while let Some(message) = reader.next().await.expect("infallible")? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn messages_survive_every_way_of_cutting() {
        let sent = [Bytes::from_static(b"first"), Bytes::new(), Bytes::from(vec![7; 300])];
        let bytes: Vec<u8> = sent.iter().flat_map(|message| encode(message)).collect();
        for chunk in 1..=bytes.len() {
            assert_eq!(
                read(&bytes, chunk, 300, None).await.expect("well formed"),
                sent,
                "chunks of {chunk}"
            );
        }
    }

    #[tokio::test]
    async fn compressed_and_plain_messages_mix() {
        let sent = [Bytes::from(vec![7; 300]), Bytes::from_static(b"too short to gain")];
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let frames: Vec<Bytes> = sent.iter().map(|message| encode_as(Some(encoding), message)).collect();
            assert_eq!((frames[0][0], frames[1][0]), (1, 0), "the flags");
            let read = read(&frames.concat(), 11, 300, Some(encoding)).await;
            assert_eq!(read.expect("well formed"), sent);
        }
    }

    #[tokio::test]
    async fn what_is_too_long_cut_or_wrongly_marked_is_refused() {
        let bytes = encode(&[1; 10]);
        assert_eq!(
            read(&bytes, 100, 9, None).await.expect_err("too long").code(),
            tonic::Code::ResourceExhausted
        );
        assert_eq!(
            read(&bytes[..12], 100, 10, None).await.expect_err("cut").code(),
            tonic::Code::Internal
        );
        for bad in [&[1, 0, 0, 0, 0], &[2, 0, 0, 0, 0]] {
            let refused = read(bad, 100, 10, None).await.expect_err("wrongly marked");
            assert_eq!(refused.code(), tonic::Code::Internal);
        }
        let bomb = encode_as(Some(Encoding::Gzip), &vec![0; 10 << 20]);
        let refused = read(&bomb, usize::MAX, 1 << 20, Some(Encoding::Gzip)).await;
        assert_eq!(refused.expect_err("a bomb").code(), tonic::Code::ResourceExhausted);
    }
}
