//! The border between a connection's bytes and HTTP/2: what every byte passes before the h2 crate sees it.
//!
//! A client that says nothing after its handshake is closed, or silent peers would hold all places; and a server that
//! has said something has accepted the client's certificate (in TLS 1.3 the client's handshake is over before that).
//! At a server, peers that send frames which only cost are shown out, and authorities of Unix sockets are put right.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::limits::Limits;
use crate::wire::PREFACE;
use crate::wire::authority::Authorities;
use crate::wire::flood::{Flood, Offence};

/// Bytes of a frame's header: the server begins with SETTINGS.
const FRAME_HEADER: usize = 9;

/// A stream whose peer must send its first bytes in time, and must behave.
#[derive(Debug)]
pub(crate) struct Border<S> {
    stream: S,
    waiting: Option<Box<Waiting>>,
    authorities: Option<Authorities>,
    guard: Option<Box<Guard>>,
}

#[derive(Debug)]
struct Waiting {
    timer: Pin<Box<Sleep>>,
    missing: usize,
    arrived: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Guard {
    flood: Flood,
    offence: Arc<OnceLock<Offence>>,
    /// Until when bytes of a peer that was shown out are still read (and dropped): were the connection closed with
    /// unread bytes, the kernel would reset it, and the peer might lose the farewell.
    until: Option<Pin<Box<Sleep>>>,
}

const FAREWELL: Duration = Duration::from_secs(1);

impl<S> Border<S> {
    /// A server's, which notes in `offence` why it ended a connection. `lenient` ones put authorities right.
    pub(crate) fn to_client(stream: S, limits: &Limits, offence: Arc<OnceLock<Offence>>, lenient: bool) -> Self {
        let flood = Flood::new(limits);
        Self {
            stream,
            waiting: Some(Waiting::new(PREFACE, limits.handshake, None)),
            authorities: lenient.then(Authorities::default),
            guard: Some(Box::new(Guard {
                flood,
                offence,
                until: None,
            })),
        }
    }

    /// A client's; the receiver hears when the server has spoken.
    pub(crate) fn to_server(stream: S, timeout: Duration) -> (Self, oneshot::Receiver<()>) {
        let (arrived, arrival) = oneshot::channel();
        let border = Self {
            stream,
            waiting: Some(Waiting::new(FRAME_HEADER, timeout, Some(arrived))),
            authorities: None,
            guard: None,
        };
        (border, arrival)
    }
}

impl Waiting {
    fn new(missing: usize, timeout: Duration, arrived: Option<oneshot::Sender<()>>) -> Box<Self> {
        let timer = Box::pin(tokio::time::sleep(timeout));
        Box::new(Self {
            timer,
            missing,
            arrived,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Border<S> {
    /// Say farewell if that can be done at once: whoever floods may not read.
    fn show_out(&mut self, context: &mut Context<'_>, offence: Offence) {
        if let Some(guard) = &mut self.guard {
            let _ = guard.offence.set(offence); // there is no other yet
            guard.until = Some(Box::pin(tokio::time::sleep(FAREWELL)));
            if let Some(farewell) = guard.flood.farewell(offence) {
                let mut stream = Pin::new(&mut self.stream);
                let _ = stream.as_mut().poll_write(context, &farewell);
                let _ = stream.as_mut().poll_flush(context);
            }
        }
    }

    /// Read and drop; ends with an error.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let offence = self.guard.as_mut().and_then(|guard| {
            let is_over = guard.until.as_mut()?.as_mut().poll(context).is_ready();
            is_over.then_some(guard.offence.get()).flatten()
        });
        let mut dropped = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut dropped);
            let has_more = match offence {
                Some(_) => false,
                None => {
                    ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
                    !buffer.filled().is_empty()
                }
            };
            if !has_more {
                let reason = offence.map_or("the peer has gone", |offence| offence.text());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason)));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Border<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.guard.as_ref().is_some_and(|guard| guard.until.is_some()) {
            return this.poll_out(context);
        }
        let before = buffer.filled().len();
        let poll = Pin::new(&mut this.stream).poll_read(context, buffer);
        let arrived = &mut buffer.filled_mut()[before..];
        if let Some(waiting) = &mut this.waiting {
            waiting.missing = waiting.missing.saturating_sub(arrived.len());
            if waiting.missing == 0 {
                let arrived = waiting.arrived.take();
                let _ = arrived.is_some_and(|arrived| arrived.send(()).is_ok()); // nobody may listen any more
                this.waiting = None;
            } else if waiting.timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer didn't begin HTTP/2 in time",
                )));
            }
        }
        if let Some(guard) = &mut this.guard
            && let Some(offence) = guard.flood.read(arrived)
        {
            buffer.set_filled(before);
            this.show_out(context, offence);
            return this.poll_out(context);
        }
        if let Some(authorities) = &mut this.authorities {
            authorities.pass(arrived);
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Border<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, parts))?;
        if let Some(guard) = &mut self.guard {
            let mut left = written;
            for part in parts {
                let taken = part.len().min(left);
                guard.flood.wrote(&part[..taken]);
                left -= taken;
            }
        }
        Poll::Ready(Ok(written))
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
