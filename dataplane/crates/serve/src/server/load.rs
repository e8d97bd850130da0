//! What a server has on its hands, and when that is too much: bytes held for peers, and calls that wait for the
//! fallback's handlers.
//!
//! Bytes are counted where they wait, not where they pass: a message that arrives and is taken in one go costs nothing
//! here. Waiting is judged as CoDel does it: not how many wait, which a burst may raise for a moment, but whether
//! everybody has waited too long for a while.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::limits::Limits;
use crate::server::account::Account;
use crate::telemetry::stats::{self, Stats};

/// How long a call waits to be read on while too much is held; then it ends with RESOURCE_EXHAUSTED.
const PATIENCE: Duration = Duration::from_secs(10);
/// After how long to try again when too much is held.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes below which a message on its way out isn't worth counting.
const SMALL: usize = 1024;

/// The load of one server.
#[derive(Debug)]
pub struct Load {
    pub(crate) stats: Arc<Stats>,
    memory: usize,
    memory_per_peer: usize,
    room: Notify,
    queue: Queue,
}

impl Load {
    /// Nothing yet.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            stats: Arc::default(),
            memory: limits.memory,
            memory_per_peer: limits.memory_per_peer,
            room: Notify::new(),
            queue: Queue::new(limits.queue_delay),
        })
    }

    /// The counters of the server.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// A call wants to wait for its handler; an error when it had better not.
    pub fn wait(self: &Arc<Self>) -> Result<Waiting, Status> {
        self.queue.enter(Instant::now()).map_err(|delay| {
            stats::add(&self.stats.calls_shed_waiting);
            let text = format!("calls wait longer than {delay:?} for this server's handlers; try again later");
            refusal(text, delay)
        })?;
        Ok(self.joined())
    }

    /// The same for a health check, which is never refused: it must say how slow the server is.
    pub fn wait_regardless(self: &Arc<Self>) -> Waiting {
        self.queue.waiting.fetch_add(1, Ordering::Relaxed);
        self.joined()
    }

    fn joined(self: &Arc<Self>) -> Waiting {
        Waiting {
            load: self.clone(),
            since: Some(Instant::now()),
        }
    }

    /// A call finds as many under way as there may be.
    pub fn too_many(&self, calls: usize) -> Status {
        stats::add(&self.stats.calls_shed);
        refusal(
            format!("this server works on {calls} calls already; try again later"),
            RETRY,
        )
    }
}

/// Bytes that wait on this server for one peer, counted until this is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Charge {
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self { account, bytes: 0 }
    }

    /// Another charge of the same peer.
    pub fn another(&self, bytes: usize) -> Self {
        let mut charge = Self::new(self.account.clone());
        charge.set(bytes);
        charge
    }

    /// Count `bytes` from now on.
    pub fn set(&mut self, bytes: usize) {
        let (account, load) = (&self.account, &self.account.load);
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            account.held.fetch_add(more, Ordering::Relaxed);
            load.stats.bytes_held.fetch_add(more as u64, Ordering::Relaxed);
        } else if bytes < self.bytes {
            let less = self.bytes - bytes;
            let peers = account.held.fetch_sub(less, Ordering::Relaxed);
            let all = load.stats.bytes_held.fetch_sub(less as u64, Ordering::Relaxed);
            let crosses = |limit: usize, before: u64| before >= limit as u64 && before - (less as u64) < limit as u64;
            if crosses(load.memory, all) || crosses(load.memory_per_peer, peers as u64) {
                load.room.notify_waiters();
            }
        }
        self.bytes = bytes;
    }

    /// What a call is told when too much is held.
    pub(crate) fn refusal(&self) -> Status {
        stats::add(&self.account.load.stats.calls_shed_memory);
        let text = "this server holds as many bytes of messages as it may, for this caller or for all; try again later";
        refusal(text, RETRY)
    }

    /// Whether so much is held that no more should be taken in for this peer.
    pub(crate) fn is_full(&self) -> bool {
        is_full(&self.account)
    }

    /// Wait until there is room, or until it is this call's turn to be read on without; nothing when that takes too
    /// long. One call of each peer is read on at a time, so that messages of which parts are held come to their ends.
    pub(crate) fn turn(&self) -> Pin<Box<dyn Future<Output = Option<Turn>> + Send + Sync>> {
        let account = self.account.clone();
        Box::pin(async move {
            let turns = account.turns.clone();
            let room = async {
                loop {
                    let room = account.load.room.notified();
                    tokio::pin!(room);
                    room.as_mut().enable();
                    if !is_full(&account) {
                        return;
                    }
                    room.await;
                }
            };
            let turn = async {
                tokio::select! {
                    () = room => Turn(None),
                    permit = turns.acquire_owned() => Turn(permit.ok()),
                }
            };
            tokio::time::timeout(PATIENCE, turn).await.ok()
        })
    }

    /// A charge for so many bytes; none for so few that it isn't worth it.
    pub fn counted(&self, bytes: usize) -> Option<Self> {
        (bytes >= SMALL).then(|| self.another(bytes))
    }

    /// `bytes` that stay counted for as long as anybody holds them; small ones aren't worth it.
    pub fn hold(&self, bytes: Bytes) -> Bytes {
        if bytes.len() < SMALL {
            return bytes;
        }
        let charge = self.another(bytes.len());
        Bytes::from_owner(Held { bytes, _charge: charge })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The right to be read on.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held, then dropped")] Option<OwnedSemaphorePermit>);

struct Held {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// RESOURCE_EXHAUSTED, and after how long to try again (gRFC A6).
pub fn refusal(text: impl Into<String>, retry: Duration) -> Status {
    let milliseconds = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", MetadataValue::from(milliseconds));
    Status::with_metadata(Code::ResourceExhausted, text, metadata)
}

fn is_full(account: &Account) -> bool {
    let load = &account.load;
    load.stats.bytes_held.load(Ordering::Relaxed) >= load.memory as u64
        || account.held.load(Ordering::Relaxed) >= load.memory_per_peer
}

/// A call in the queue for its handler.
#[derive(Debug)]
pub struct Waiting {
    load: Arc<Load>,
    since: Option<Instant>,
}

impl Waiting {
    /// Its turn has come.
    pub fn over(mut self) {
        if let Some(since) = self.since.take() {
            self.load.queue.leave(Some(since), Instant::now());
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.since.take().is_some() {
            self.load.queue.leave(None, Instant::now());
        }
    }
}

#[derive(Debug)]
struct Queue {
    begin: Instant,
    /// Nanoseconds; zero: never too long.
    target: u64,
    waiting: AtomicUsize,
    /// When the queue last moved, in nanoseconds since `begin`.
    moved: AtomicU64,
    /// Until when the wait must have fallen below the target; zero while it is below.
    until: AtomicU64,
    refusing: AtomicBool,
}

impl Queue {
    fn new(target: Option<Duration>) -> Self {
        Self {
            begin: Instant::now(),
            target: target.map_or(0, |target| u64::try_from(target.as_nanos()).unwrap_or(u64::MAX >> 2)),
            waiting: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            until: AtomicU64::new(0),
            refusing: AtomicBool::new(false),
        }
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begin).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Join; when refused: for how long to stay away.
    fn enter(&self, now: Instant) -> Result<(), Duration> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.moved.store(self.at(now), Ordering::Relaxed); // whoever finds nobody waiting is let in
        } else if self.target > 0 {
            let stuck = self.at(now).saturating_sub(self.moved.load(Ordering::Relaxed)) > self.target.saturating_mul(2);
            if stuck || self.refusing.load(Ordering::Relaxed) {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                return Err(Duration::from_nanos(self.target));
            }
        }
        Ok(())
    }

    /// Leave; with the time of joining if the wait ended in a handler.
    fn leave(&self, since: Option<Instant>, now: Instant) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let Some(since) = since.filter(|_| self.target > 0) else {
            return;
        };
        let waited = self.at(now).saturating_sub(self.at(since));
        let now = self.at(now);
        self.moved.store(now, Ordering::Relaxed);
        if waited < self.target {
            if self.until.load(Ordering::Relaxed) != 0 {
                self.until.store(0, Ordering::Relaxed);
                self.refusing.store(false, Ordering::Relaxed);
            }
            return;
        }
        match self.until.load(Ordering::Relaxed) {
            0 => self.until.store(now.saturating_add(self.target), Ordering::Relaxed),
            until if now >= until => self.refusing.store(true, Ordering::Relaxed),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_too_long_for_too_long_refuses_until_it_is_short_again() {
        let queue = Queue::new(Some(Duration::from_secs(1)));
        let at = |seconds: f64| queue.begin + Duration::from_secs_f64(seconds);
        for number in 0..30 {
            let entered = queue.enter(at(f64::from(number) / 10.0));
            match number {
                ..22 => assert!(entered.is_ok(), "call {number}: too long, but not for long enough"),
                25.. => assert!(entered.is_err(), "call {number}"),
                _ => {}
            }
            if number >= 12 {
                queue.leave(Some(at(f64::from(number - 12) / 10.0)), at(f64::from(number) / 10.0));
            }
        }
        assert!(queue.enter(at(3.0)).is_err());
        queue.leave(Some(at(2.5)), at(3.1));
        assert!(queue.enter(at(3.1)).is_ok());
    }

    #[test]
    fn a_queue_that_stands_still_refuses_and_an_empty_one_never() {
        let queue = Queue::new(Some(Duration::from_secs(1)));
        let at = |seconds: u64| queue.begin + Duration::from_secs(seconds);
        assert!(queue.enter(at(10)).is_ok());
        assert!(queue.enter(at(11)).is_ok());
        assert!(queue.enter(at(13)).is_err());
        queue.leave(None, at(13));
        queue.leave(None, at(13));
        assert!(queue.enter(at(13)).is_ok());
    }

    #[test]
    fn what_is_held_is_counted_until_it_is_dropped() {
        let limits = Limits {
            memory: 10_000,
            memory_per_peer: 5_000,
            ..Limits::default()
        };
        let load = Load::new(&limits);
        let one = Charge::new(Arc::new(Account::new(&limits, load.clone())));
        let other = Charge::new(Arc::new(Account::new(&limits, load.clone())));
        let held = one.hold(Bytes::from(vec![0; 5_000]));
        assert!(one.is_full() && !other.is_full());
        let more = other.hold(Bytes::from(vec![0; 4_999]));
        assert!(!other.is_full());
        let part = other.another(1);
        assert!(other.is_full());
        drop((held.slice(1..2), more, part));
        assert!(one.is_full() && !other.is_full());
        drop(held);
        assert_eq!(load.stats.bytes_held.load(Ordering::Relaxed), 0);
    }
}
