//! The bounded queue between whoever makes telemetry and whoever takes it away: a call never waits for it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// When the reader is slow, what is new is dropped and counted.
pub struct Queue<T> {
    waiting: Mutex<VecDeque<T>>,
    arrived: Condvar,
    capacity: usize,
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
        Arc::new(Self {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            capacity,
            dropped: AtomicU64::new(0),
        })
    }

    /// Whether the next entry would be dropped, and then count it as that: saves making it.
    pub fn drops(&self) -> bool {
        let is_full = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len() >= self.capacity;
        if is_full {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_full
    }

    /// Queue an entry; when the queue is full it is dropped and counted.
    pub fn record(&self, entry: T) {
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
