//! What each peer has of the server: connections, calls a second, bytes held for it.
//!
//! A connection finds its peer's account once, so that a call costs no look-up. The table is bounded: accounts without a
//! connection are kept only while their rate is used up (a new connection must not refill it), and the oldest of those
//! go first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::limits::{CallRate, Limits};
use crate::peer::Peer;
use crate::server::load::Load;

/// Accounts without a connection that are kept at most.
const REMEMBERED: usize = 4096;

/// One peer's account.
#[derive(Debug)]
pub(crate) struct Account {
    connections: AtomicUsize,
    rate: Option<Rate>,
    pub(crate) held: AtomicUsize,
    /// Who is read on while too much is held.
    pub(crate) turns: Arc<Semaphore>,
    pub(crate) load: Arc<Load>,
}

impl Account {
    pub(crate) fn new(limits: &Limits, load: Arc<Load>) -> Self {
        Self {
            connections: AtomicUsize::new(0),
            rate: limits.call_rate.map(Rate::new),
            held: AtomicUsize::new(0),
            turns: Arc::new(Semaphore::new(1)),
            load,
        }
    }

    /// Count a call; when it is one too many: in how long it wouldn't be.
    pub(crate) fn call(&self) -> Result<(), Duration> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(Instant::now()))
    }

    /// Whether nothing would be lost by forgetting it.
    fn is_clear(&self) -> bool {
        self.connections.load(Ordering::Relaxed) == 0
            && self.rate.as_ref().is_none_or(|rate| rate.is_full(Instant::now()))
    }
}

/// A token bucket in one number: the time at which it would be full (the generic cell rate algorithm).
#[derive(Debug)]
struct Rate {
    since: Instant,
    /// Nanoseconds that a call takes up.
    each: u64,
    /// Nanoseconds that may be taken up ahead.
    ahead: u64,
    full_at: AtomicU64,
}

impl Rate {
    fn new(rate: CallRate) -> Self {
        let each = (1e9 / rate.per_second).clamp(1.0, 1e18) as u64;
        Self {
            since: Instant::now(),
            each,
            ahead: each.saturating_mul(u64::from(rate.burst.max(1))),
            full_at: AtomicU64::new(0),
        }
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(u64::MAX)
    }

    fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = self.at(now);
        let taken = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let next = full_at.max(now).saturating_add(self.each);
                (next - now <= self.ahead).then_some(next)
            });
        match taken {
            Ok(_) => Ok(()),
            Err(full_at) => {
                let next = full_at.max(now).saturating_add(self.each);
                Err(Duration::from_nanos(next - now - self.ahead))
            }
        }
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at.load(Ordering::Relaxed) <= self.at(now)
    }
}

type Table = HashMap<Arc<str>, Arc<Account>>;

/// The accounts of a server.
#[derive(Debug)]
pub(crate) struct Accounts {
    limits: Limits,
    load: Arc<Load>,
    table: Mutex<Table>,
}

/// One connection's part in its peer's account.
#[derive(Debug)]
pub(crate) struct Membership {
    accounts: Arc<Accounts>,
    key: Arc<str>,
    pub(crate) account: Arc<Account>,
}

impl Accounts {
    pub(crate) fn new(limits: &Limits, load: Arc<Load>) -> Arc<Self> {
        Arc::new(Self {
            limits: limits.clone(),
            load,
            table: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Join the account of `key`; nothing when it has too many connections already.
    pub(crate) fn join(self: &Arc<Self>, key: &str) -> Option<Membership> {
        let mut table = self.lock();
        let (key, account) = match table.get_key_value(key) {
            Some((key, account)) => (key.clone(), account.clone()),
            None => {
                self.make_room(&mut table);
                let key: Arc<str> = key.into();
                let account = Arc::new(Account::new(&self.limits, self.load.clone()));
                table.insert(key.clone(), account.clone());
                (key, account)
            }
        };
        if account.connections.load(Ordering::Relaxed) >= self.limits.connections_per_peer {
            return None;
        }
        account.connections.fetch_add(1, Ordering::Relaxed); // only ever changed under the table's lock
        let accounts = self.clone();
        Some(Membership { accounts, key, account })
    }

    fn make_room(&self, table: &mut Table) {
        // Each connection has at most two: its address's while it shakes hands, then its identity's.
        let most = self.limits.connections.saturating_mul(2).saturating_add(REMEMBERED);
        if table.len() < most {
            return;
        }
        table.retain(|_, account| !account.is_clear());
        if table.len() >= most {
            let unused = |account: &Arc<Account>| account.connections.load(Ordering::Relaxed) == 0;
            let victim = table
                .iter()
                .find(|(_, account)| unused(account))
                .map(|(key, _)| key.clone());
            victim.and_then(|key| table.remove(&key));
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut table = self.accounts.lock();
        self.account.connections.fetch_sub(1, Ordering::Relaxed);
        if self.account.is_clear() {
            table.remove(&self.key);
        }
    }
}

/// Who a peer is for its account: the principal, or without one the address it comes from.
pub(crate) fn key_of(peer: &Peer) -> String {
    match peer.principal().as_ref() {
        "anonymous" => address_of(peer),
        principal => principal.to_owned(),
    }
}

/// The address without the port.
pub(crate) fn address_of(peer: &Peer) -> String {
    match peer.uid {
        Some(uid) => format!("unix:uid={uid}"),
        None => peer
            .address
            .rsplit_once(':')
            .map_or(&*peer.address, |(host, _)| host)
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_a_burst_pass_and_then_one_by_one() {
        let rate = Rate::new(CallRate {
            per_second: 10.0,
            burst: 3,
        });
        let begin = rate.since + Duration::from_secs(5);
        for _ in 0..3 {
            assert_eq!(rate.take(begin), Ok(()));
        }
        assert_eq!(rate.take(begin), Err(Duration::from_millis(100)));
        assert_eq!(
            rate.take(begin + Duration::from_millis(60)),
            Err(Duration::from_millis(40))
        );
        assert_eq!(rate.take(begin + Duration::from_millis(100)), Ok(()));
        assert!(!rate.is_full(begin + Duration::from_millis(399)));
        assert!(rate.is_full(begin + Duration::from_millis(400)));
    }

    #[test]
    fn accounts_are_bounded_and_a_used_rate_is_remembered() {
        let rate = CallRate {
            per_second: 0.001,
            burst: 1,
        };
        let limits = Limits {
            call_rate: Some(rate),
            connections_per_peer: 1,
            connections: 1,
            ..Limits::default()
        };
        let accounts = Accounts::new(&limits, Load::new(&limits));
        let first = accounts.join("one").expect("room");
        assert!(accounts.join("one").is_none());
        assert!(first.account.call().is_ok());
        drop(first);
        assert!(accounts.join("one").expect("room again").account.call().is_err());
        drop(accounts.join("unused"));
        assert_eq!(accounts.lock().len(), 1);
        for number in 0..2 * REMEMBERED {
            let _ = accounts.join(&number.to_string()).expect("room").account.call();
        }
        assert!(accounts.lock().len() <= REMEMBERED + 3);
    }
}
