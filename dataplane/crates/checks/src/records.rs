//! The queue of records between the handlers and Python. Bounded by bytes: when it is full a caller is refused or
//! waits, whatever it is used to, and nothing that was taken is dropped.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

/// Room is counted in pieces of this many bytes, since a semaphore counts to 2^29 at the most on 32-bit machines.
const PIECE: usize = 256;

/// Serialised `meshwright.mixer.v1.Record`s.
#[derive(Debug)]
pub struct Queue {
    records: Mutex<VecDeque<Bytes>>,
    arrived: Condvar,
    room: Semaphore,
    pieces: usize,
}

impl Queue {
    /// A queue of at most `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let pieces = (capacity / PIECE).clamp(1, Semaphore::MAX_PERMITS);
        Queue {
            records: Mutex::default(),
            arrived: Condvar::new(),
            room: Semaphore::new(pieces),
            pieces,
        }
    }

    /// Takes all records or none.
    pub fn offer(&self, records: Vec<Bytes>) -> bool {
        let pieces = records
            .iter()
            .map(|record| self.pieces_of(record))
            .fold(0u32, u32::saturating_add);
        match self.room.try_acquire_many(pieces) {
            Ok(permit) => permit.forget(),
            Err(_) => return false,
        }
        self.append(records);
        true
    }

    /// Takes a record as soon as there is room.
    pub async fn put(&self, record: Bytes) {
        // The semaphore is never closed.
        if let Ok(permit) = self.room.acquire_many(self.pieces_of(&record)).await {
            permit.forget();
        }
        self.append(vec![record]);
    }

    /// Whether the record would have to wait.
    pub fn is_full_for(&self, record: &Bytes) -> bool {
        self.room.available_permits() < self.pieces_of(record) as usize
    }

    /// All records, at most `most`; waits up to `timeout` for the first. Blocks its thread.
    pub fn drain(&self, most: usize, timeout: Duration) -> Vec<Bytes> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut records, _) = self
            .arrived
            .wait_timeout_while(records, timeout, |records| records.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let count = records.len().min(most);
        let taken: Vec<Bytes> = records.drain(..count).collect();
        drop(records);
        self.room
            .add_permits(taken.iter().map(|record| self.pieces_of(record) as usize).sum());
        taken
    }

    /// Records that wait.
    pub fn len(&self) -> usize {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A record larger than the whole queue counts as the whole, so that it passes through an empty one.
    fn pieces_of(&self, record: &Bytes) -> u32 {
        u32::try_from(record.len().div_ceil(PIECE).clamp(1, self.pieces)).unwrap_or(u32::MAX)
    }

    fn append(&self, new: Vec<Bytes>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.extend(new);
        drop(records);
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_all_of_a_batch_or_none() {
        let queue = Queue::new(4 * PIECE);
        let record = || Bytes::from(vec![0; PIECE]);
        assert!(queue.offer(vec![record(), record(), record()]));
        assert!(!queue.offer(vec![record(), record()]));
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.drain(2, Duration::ZERO).len(), 2);
        assert!(queue.offer(vec![record(), record()]));
    }

    #[tokio::test]
    async fn a_waiting_record_goes_in_when_there_is_room() {
        let queue = std::sync::Arc::new(Queue::new(PIECE));
        queue.put(Bytes::from_static(b"first")).await;
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.put(Bytes::from_static(b"second")).await }
        });
        assert_eq!(queue.drain(1, Duration::ZERO), ["first"]);
        waiting.await.unwrap();
        assert_eq!(queue.drain(9, Duration::from_secs(5)), ["second"]);
    }

    #[tokio::test]
    async fn a_record_larger_than_the_queue_still_passes() {
        let queue = Queue::new(PIECE);
        let large = Bytes::from(vec![0; 10 * PIECE]);
        queue.put(large.clone()).await;
        assert_eq!(queue.drain(1, Duration::ZERO), [large]);
    }
}
