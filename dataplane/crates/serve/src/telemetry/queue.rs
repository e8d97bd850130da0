//! The bounded queue between whoever makes telemetry and whoever takes it away: a call never waits for it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// When the reader is slow, what is new is dropped and counted.
pub struct Queue<T> {
    waiting: Mutex<VecDeque<T>>,
    arrived: Condvar,
    capacity: usize,
    wanted: AtomicBool,
    dropped: AtomicU64,
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Queue")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl<T> Queue<T> {
    /// A queue of at most `capacity` entries.
    pub fn new(capacity: usize) -> Arc<Self> {
        Self::make(capacity, true)
    }

    /// One that takes nothing before the first `drain`: in a process without an exporter nobody ever comes for it.
    pub fn from_first_drain(capacity: usize) -> Arc<Self> {
        Self::make(capacity, false)
    }

    fn make(capacity: usize, wanted: bool) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            capacity,
            wanted: AtomicBool::new(wanted),
            dropped: AtomicU64::new(0),
        })
    }

    /// Whether the next entry would not be taken: saves making it. For want of room it is counted as dropped.
    pub fn drops(&self) -> bool {
        if !self.wanted.load(Ordering::Relaxed) {
            return true;
        }
        let is_full = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len() >= self.capacity;
        if is_full {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_full
    }

    /// Queue an entry; when the queue is full it is dropped and counted.
    pub fn record(&self, entry: T) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.capacity {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(entry);
        if waiting.len() == 1 {
            self.arrived.notify_one();
        }
    }

    /// Take all queued entries, at most `most`; wait up to `timeout` for the first. Blocks its thread.
    pub fn drain(&self, most: usize, timeout: Duration) -> Vec<T> {
        self.wanted.store(true, Ordering::Relaxed);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut waiting, _) = self
            .arrived
            .wait_timeout_while(waiting, timeout, |waiting| waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(most);
        waiting.drain(..count).collect()
    }

    /// How many entries were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_before_somebody_comes_for_it() {
        let queue = Queue::from_first_drain(1);
        assert!(queue.drops());
        queue.record(1);
        assert!(queue.drain(10, Duration::ZERO).is_empty());
        assert_eq!(queue.dropped(), 0, "nobody wanted it");
        assert!(!queue.drops());
        queue.record(2);
        assert!(queue.drops(), "full");
        assert_eq!(queue.drain(10, Duration::ZERO), [2]);
        assert_eq!(queue.dropped(), 1);
    }
}
