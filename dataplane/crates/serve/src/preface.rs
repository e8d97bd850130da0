//! Waits for the first words of a new HTTP/2 connection.
//!
//! A client that says nothing after its handshake is closed, or silent peers would hold all places; and a server that
//! has said something has accepted the client's certificate (in TLS 1.3 the client's handshake is over before that).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// Bytes of "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" (RFC 9113, section 3.4).
pub(crate) const OF_CLIENT: usize = 24;
/// Bytes of a frame's header: the server begins with SETTINGS.
pub(crate) const OF_SERVER: usize = 9;

/// A stream whose peer must send its first bytes in time.
#[derive(Debug)]
pub(crate) struct Preface<S> {
    stream: S,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    timer: Pin<Box<Sleep>>,
    missing: usize,
    arrived: oneshot::Sender<()>,
}

impl<S> Preface<S> {
    /// Expect `length` bytes within `timeout`; the receiver hears of their arrival.
    pub(crate) fn expect(length: usize, timeout: Duration, stream: S) -> (Self, oneshot::Receiver<()>) {
        let (arrived, arrival) = oneshot::channel();
        let timer = Box::pin(tokio::time::sleep(timeout));
        (
            Self {
                stream,
                waiting: Some(Waiting {
                    timer,
                    missing: length,
                    arrived,
                }),
            },
            arrival,
        )
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Preface<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let poll = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some(mut waiting) = this.waiting.take() {
            waiting.missing = waiting.missing.saturating_sub(buffer.filled().len() - before);
            if waiting.missing == 0 {
                let _ = waiting.arrived.send(()); // a server doesn't listen for it
            } else if waiting.timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer didn't begin HTTP/2 in time",
                )));
            } else {
                this.waiting = Some(waiting);
            }
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Preface<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
