//! Holds a connection's writes back for one turn of the runtime, so that what is ready together is sent together.
//!
//! The answers of a batch are ready at once, each in a task of its own. tokio runs a task that was woken by the last
//! one next ("LIFO slot"): the connection would be run after each answer, and each be a TLS record and a system call.
//! A call that is alone on its connection waits for nobody.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::activity::Activity;

/// A stream whose writes begin one turn late.
#[derive(Debug)]
pub(crate) struct Cork<S> {
    inner: S,
    /// The calls on the connection, where they are known.
    activity: Option<Arc<Activity>>,
    /// Whether the others have had their turn since the last flush.
    waited: bool,
}

impl<S> Cork<S> {
    pub(crate) fn new(inner: S, activity: Option<Arc<Activity>>) -> Self {
        Self {
            inner,
            activity,
            waited: false,
        }
    }

    /// Wait for the others, once: a task that wakes itself goes behind all that are ready.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let is_alone = self.activity.as_ref().is_some_and(|activity| activity.calls() <= 1);
        if std::mem::replace(&mut self.waited, true) || is_alone {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context));
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context));
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.waited = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_is_ready_goes_first() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let activity = Activity::new();
        let calls = [activity.begin(), activity.begin()];
        let mut stream = Cork::new(ours, Some(activity));
        let others = Arc::new(AtomicUsize::new(0));
        for round in 1..=2 {
            for _ in 0..10 {
                let others = others.clone();
                tokio::spawn(async move { others.fetch_add(1, Ordering::Relaxed) });
            }
            stream.write_all(b"sent").await.expect("there is room");
            assert_eq!(others.load(Ordering::Relaxed), round * 10, "the others came first");
            stream.write_all(b" more").await.expect("there is room");
            stream.flush().await.expect("nothing is held");
            let mut read = [0; 9];
            theirs.read_exact(&mut read).await.expect("it was sent");
            assert_eq!(&read, b"sent more");
        }
        drop(calls);
        let waits = others.clone();
        tokio::spawn(async move { waits.fetch_add(1, Ordering::Relaxed) });
        stream.write_all(b"alone").await.expect("there is room");
        assert_eq!(others.load(Ordering::Relaxed), 20, "there is nobody to wait for");
    }
}
