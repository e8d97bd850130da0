//! File descriptors that travel beside the bytes of one Unix connection, in both directions.
//!
//! A received descriptor is kept by device and inode until a handler takes it. Peers send the same one again with
//! every call (NSM's grpcfd does): the copy is closed and counted as one more claim, so that as many calls may take it
//! as sent it. What nobody takes is closed after [`LIFETIME`], when newer ones need its place, or with the connection;
//! an open descriptor keeps e.g. a network namespace alive.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use meshwright_handover::claims::{Claims, Closed};
use tokio::time::Instant;

use crate::telemetry::stats::Stats;

/// Descriptors that one connection holds at most in each direction.
pub const CAPACITY: usize = 64;
/// How long a received descriptor waits for its call: longer than any call's deadline ought to be.
pub const LIFETIME: Duration = Duration::from_secs(60);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many descriptors all connections of this process hold now (for metrics, and for tests that look for leaks).
pub fn open() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// A device and inode number: what names a descriptor for both ends.
pub type Key = (u64, u64);

/// Why a descriptor couldn't be taken or sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing with this key came in time.
    #[error("no descriptor of device {0} inode {1} arrived on this connection in time")]
    Missing(u64, u64),
    /// The connection has ended.
    #[error("the connection that would carry the descriptor has ended")]
    Closed,
    /// Too many wait to be sent.
    #[error("{CAPACITY} descriptors wait to be sent on this connection already")]
    Full,
}

/// An owned descriptor that is counted in [`open`].
#[derive(Debug)]
struct Held(Option<OwnedFd>);

impl Held {
    fn new(descriptor: OwnedFd) -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self(Some(descriptor))
    }

    fn release(mut self) -> Option<OwnedFd> {
        self.0.take()
    }

    fn copy(&self) -> Option<Self> {
        self.0.as_ref()?.try_clone().ok().map(Self::new)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Sending {
    waiting: VecDeque<Held>,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    received: Claims<Key, Held, Instant>,
    sending: Mutex<Sending>,
    /// Of the server, when it is a server's connection.
    stats: OnceLock<Arc<Stats>>,
}

impl Shared {
    fn count(&self, counter: impl Fn(&Stats) -> &AtomicU64, number: usize) {
        if let Some(stats) = self.stats.get() {
            counter(stats).fetch_add(number as u64, Ordering::Relaxed);
        }
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Give up claims: what they were on was closed.
    fn lose(&self, claims: usize) {
        self.count(|stats| &stats.descriptors_closed, claims);
    }
}

/// The descriptors of one connection; clones are the same set.
#[derive(Clone, Debug)]
pub struct Descriptors {
    shared: Arc<Shared>,
}

impl Default for Descriptors {
    fn default() -> Self {
        let shared = Shared {
            received: Claims::new(CAPACITY),
            sending: Mutex::default(),
            stats: OnceLock::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Descriptors {
    /// Count what comes from now on in `stats`.
    pub(crate) fn count_in(&self, stats: &Arc<Stats>) {
        let _ = self.shared.stats.set(stats.clone()); // once; a connection stays with its server
    }

    /// Wait for the descriptor of (st_dev, st_ino) until `timeout`, and take it: the caller owns it.
    pub async fn take(&self, key: Key, timeout: Duration) -> Result<OwnedFd, Refused> {
        let taking = self.shared.received.take(&key, Held::copy);
        let missing = Refused::Missing(key.0, key.1);
        match tokio::time::timeout(timeout, taking).await {
            Ok(Ok(taken)) => {
                self.shared.count(|stats| &stats.descriptors_claimed, 1);
                self.shared.lose(taken.lost);
                taken.thing.release().ok_or(missing)
            }
            Ok(Err(Closed)) => Err(Refused::Closed),
            Err(_) => Err(missing),
        }
    }

    /// Send `descriptor` in front of the next bytes that are written to the peer.
    pub fn send(&self, descriptor: OwnedFd) -> Result<(), Refused> {
        let mut sending = self.shared.sending();
        if sending.closed {
            return Err(Refused::Closed);
        }
        if sending.waiting.len() >= CAPACITY {
            return Err(Refused::Full);
        }
        sending.waiting.push_back(Held::new(descriptor));
        Ok(())
    }

    /// The keys of what has arrived and nobody has taken.
    pub fn waiting(&self) -> Vec<Key> {
        self.shared.received.waiting()
    }

    /// Keep a descriptor that arrived.
    pub(crate) fn arrived(&self, descriptor: OwnedFd) {
        self.shared.count(|stats| &stats.descriptors_received, 1);
        let Ok(key) = key_of(descriptor.as_raw_fd()) else {
            return self.shared.lose(1);
        };
        let arrival = self.shared.received.arrive(key, Held::new(descriptor), Instant::now());
        self.shared.lose(arrival.lost);
        if arrival.unwatched {
            tokio::spawn(expire(Arc::downgrade(&self.shared)));
        }
    }

    /// Whether a descriptor waits to be sent.
    pub(crate) fn is_sending(&self) -> bool {
        !self.shared.sending().waiting.is_empty()
    }

    /// Hand the first descriptor that waits to be sent to `send`; it is gone when `send` succeeded.
    pub(crate) fn send_first(&self, send: impl FnOnce(RawFd) -> io::Result<usize>) -> Option<io::Result<usize>> {
        let mut sending = self.shared.sending();
        let descriptor = sending.waiting.front()?.0.as_ref()?.as_raw_fd();
        let result = send(descriptor);
        if result.is_ok() {
            sending.waiting.pop_front();
            self.shared.count(|stats| &stats.descriptors_sent, 1);
        }
        Some(result)
    }

    /// Close all that is held; the connection has ended.
    pub(crate) fn close(&self) {
        self.shared.lose(self.shared.received.close());
        let mut sending = self.shared.sending();
        sending.closed = true;
        sending.waiting.clear();
    }
}

/// Close what nobody took in time; ends when nothing is held any more.
async fn expire(shared: Weak<Shared>) {
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let now = Instant::now();
            let (lost, oldest) = shared.received.expire(|arrived| arrived + LIFETIME <= now);
            shared.lose(lost);
            let Some(oldest) = oldest else { return };
            oldest + LIFETIME
        };
        tokio::time::sleep_until(next).await;
    }
}

/// Device and inode of an open descriptor.
pub fn key_of(descriptor: RawFd) -> io::Result<Key> {
    // SAFETY: an all-zero `stat` is a valid value of that plain C structure.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `status` is valid for writes; a bad descriptor only makes the call fail.
    if unsafe { libc::fstat(descriptor, &raw mut status) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((status.st_dev, status.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn file() -> (OwnedFd, Key) {
        let path = std::env::temp_dir().join(format!("serve-fd-{}-{:?}", std::process::id(), Instant::now()));
        let file = OwnedFd::from(File::create(&path).expect("temporary file"));
        std::fs::remove_file(path).expect("temporary file");
        let key = key_of(file.as_raw_fd()).expect("open");
        (file, key)
    }

    #[tokio::test]
    async fn each_arrival_may_be_taken_once() {
        let descriptors = Descriptors::default();
        let (file, key) = file();
        descriptors.arrived(file.try_clone().expect("copy"));
        descriptors.arrived(file);
        assert_eq!(descriptors.waiting(), [key]);
        for _ in 0..2 {
            let taken = descriptors.take(key, Duration::ZERO).await.expect("arrived");
            assert_eq!(key_of(taken.as_raw_fd()).expect("open"), key);
        }
        let missing = descriptors.take(key, Duration::ZERO).await;
        assert_eq!(missing.expect_err("taken"), Refused::Missing(key.0, key.1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_closed_in_time() {
        let descriptors = Descriptors::default();
        descriptors.arrived(file().0);
        tokio::time::sleep(LIFETIME + Duration::from_secs(1)).await;
        assert!(descriptors.waiting().is_empty());
    }

    #[tokio::test]
    async fn the_newest_are_kept_and_the_end_wakes_who_waits() {
        let descriptors = Descriptors::default();
        let (_, first) = {
            let (file, key) = file();
            descriptors.arrived(file);
            ((), key)
        };
        for _ in 0..CAPACITY {
            descriptors.arrived(file().0);
        }
        assert_eq!(descriptors.waiting().len(), CAPACITY);
        assert!(!descriptors.waiting().contains(&first));
        let waiting = descriptors.clone();
        let waiter = tokio::spawn(async move { waiting.take((0, 0), Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        descriptors.close();
        assert_eq!(waiter.await.expect("no panic").expect_err("closed"), Refused::Closed);
    }
}
