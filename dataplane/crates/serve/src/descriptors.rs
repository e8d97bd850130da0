//! File descriptors that travel beside the bytes of one Unix connection, in both directions.
//!
//! A received descriptor is kept by device and inode until a handler takes it. Peers send the same one again with
//! every call (NSM's grpcfd does): the copy is closed and counted as one more claim, so that as many calls may take it
//! as sent it. What nobody takes is closed after [`LIFETIME`], when newer ones need its place, or with the connection;
//! an open descriptor keeps e.g. a network namespace alive.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

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
}

impl Drop for Held {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Received {
    descriptor: Held,
    claims: usize,
    arrived: Instant,
}

#[derive(Debug, Default)]
struct State {
    received: HashMap<Key, Received>,
    sending: VecDeque<Held>,
    closed: bool,
    expiring: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The descriptors of one connection; clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Descriptors {
    shared: Arc<Shared>,
}

impl Descriptors {
    /// Wait for the descriptor of (st_dev, st_ino) until `timeout`, and take it: the caller owns it.
    pub async fn take(&self, key: Key, timeout: Duration) -> Result<OwnedFd, Refused> {
        let until = Instant::now() + timeout;
        loop {
            let arrival = self.shared.arrived.notified();
            tokio::pin!(arrival);
            arrival.as_mut().enable();
            if let Some(descriptor) = self.take_now(key)? {
                return Ok(descriptor);
            }
            if tokio::time::timeout_at(until, arrival).await.is_err() {
                return self.take_now(key)?.ok_or(Refused::Missing(key.0, key.1));
            }
        }
    }

    fn take_now(&self, key: Key) -> Result<Option<OwnedFd>, Refused> {
        let mut state = self.shared.lock();
        let Some(received) = state.received.get_mut(&key) else {
            return if state.closed { Err(Refused::Closed) } else { Ok(None) };
        };
        if received.claims > 1
            && let Some(copy) = received.descriptor.0.as_ref().and_then(|kept| kept.try_clone().ok())
        {
            received.claims -= 1;
            return Ok(Some(copy));
        }
        Ok(state
            .received
            .remove(&key)
            .and_then(|received| received.descriptor.release()))
    }

    /// Send `descriptor` in front of the next bytes that are written to the peer.
    pub fn send(&self, descriptor: OwnedFd) -> Result<(), Refused> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.sending.len() >= CAPACITY {
            return Err(Refused::Full);
        }
        state.sending.push_back(Held::new(descriptor));
        Ok(())
    }

    /// The keys of what has arrived and nobody has taken.
    pub fn waiting(&self) -> Vec<Key> {
        self.shared.lock().received.keys().copied().collect()
    }

    /// Keep a descriptor that arrived.
    pub(crate) fn arrived(&self, descriptor: OwnedFd) {
        let Ok(key) = key_of(descriptor.as_raw_fd()) else {
            return;
        };
        let now = Instant::now();
        let mut state = self.shared.lock();
        if state.closed {
            return;
        }
        if let Some(known) = state.received.get_mut(&key) {
            known.claims += 1;
            known.arrived = now;
        } else {
            if state.received.len() >= CAPACITY {
                let oldest = state
                    .received
                    .iter()
                    .min_by_key(|(_, received)| received.arrived)
                    .map(|(key, _)| *key);
                oldest.and_then(|key| state.received.remove(&key));
            }
            state.received.insert(
                key,
                Received {
                    descriptor: Held::new(descriptor),
                    claims: 1,
                    arrived: now,
                },
            );
        }
        if !std::mem::replace(&mut state.expiring, true) {
            tokio::spawn(expire(Arc::downgrade(&self.shared)));
        }
        drop(state);
        self.shared.arrived.notify_waiters();
    }

    /// Whether a descriptor waits to be sent.
    pub(crate) fn is_sending(&self) -> bool {
        !self.shared.lock().sending.is_empty()
    }

    /// Hand the first descriptor that waits to be sent to `send`; it is gone when `send` succeeded.
    pub(crate) fn send_first(&self, send: impl FnOnce(RawFd) -> io::Result<usize>) -> Option<io::Result<usize>> {
        let mut state = self.shared.lock();
        let descriptor = state.sending.front()?.0.as_ref()?.as_raw_fd();
        let result = send(descriptor);
        if result.is_ok() {
            state.sending.pop_front();
        }
        Some(result)
    }

    /// Close all that is held; the connection has ended.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.received.clear();
        state.sending.clear();
        drop(state);
        self.shared.arrived.notify_waiters();
    }
}

/// Close what nobody took in time; ends when nothing is held any more.
async fn expire(shared: Weak<Shared>) {
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = shared.lock();
            let now = Instant::now();
            state.received.retain(|_, received| now < received.arrived + LIFETIME);
            match state
                .received
                .values()
                .map(|received| received.arrived + LIFETIME)
                .min()
            {
                Some(next) => next,
                None => {
                    state.expiring = false;
                    return;
                }
            }
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
