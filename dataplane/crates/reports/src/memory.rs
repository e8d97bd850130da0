//! The queue of a mixer that runs alone: messages live as long as the process, bounded by bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::queue::{Delivery, Handle};

const PIECE: usize = 256;

/// Messages in order; one that was given back comes again when its time has come.
#[derive(Debug)]
pub(crate) struct Memory {
    waiting: Mutex<VecDeque<Waiting>>,
    changed: Notify,
    room: Semaphore,
    pieces: usize,
}

#[derive(Debug)]
struct Waiting {
    message: Bytes,
    due: Instant,
    redelivered: bool,
}

impl Memory {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        let pieces = (capacity / PIECE).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Memory {
            waiting: Mutex::default(),
            changed: Notify::new(),
            room: Semaphore::new(pieces),
            pieces,
        })
    }

    pub(crate) async fn store(&self, message: Bytes) {
        if let Ok(permit) = self.room.acquire_many(self.pieces_of(&message)).await {
            permit.forget();
        }
        self.append(Waiting {
            message,
            due: Instant::now(),
            redelivered: false,
        });
    }

    pub(crate) async fn next(self: &Arc<Self>) -> Delivery {
        loop {
            let changed = self.changed.notified();
            let soonest = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                if let Some(position) = waiting.iter().position(|message| message.due <= now)
                    && let Some(found) = waiting.remove(position)
                {
                    return Delivery {
                        message: found.message.clone(),
                        redelivered: found.redelivered,
                        handle: Handle::Memory(Lease {
                            queue: self.clone(),
                            message: found.message,
                            is_settled: false,
                        }),
                    };
                }
                waiting.iter().map(|message| message.due).min()
            };
            match soonest {
                Some(due) => drop(tokio::time::timeout_at(due, changed).await),
                None => changed.await,
            }
        }
    }

    /// Whether nothing waits and nobody works on anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.room.available_permits() == self.pieces
    }

    fn pieces_of(&self, message: &Bytes) -> u32 {
        u32::try_from(message.len().div_ceil(PIECE).clamp(1, self.pieces)).unwrap_or(u32::MAX)
    }

    fn append(&self, message: Waiting) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(message);
        self.changed.notify_one();
    }
}

/// A message that somebody works on; dropped unsettled, it goes back.
#[derive(Debug)]
pub(crate) struct Lease {
    queue: Arc<Memory>,
    message: Bytes,
    is_settled: bool,
}

impl Lease {
    pub(crate) fn acknowledge(mut self) {
        self.is_settled = true;
        self.queue
            .room
            .add_permits(self.queue.pieces_of(&self.message) as usize);
    }

    pub(crate) fn give_back(mut self, delay: Duration) {
        self.put_back(delay);
    }

    fn put_back(&mut self, delay: Duration) {
        self.is_settled = true;
        self.queue.append(Waiting {
            message: self.message.clone(),
            due: Instant::now() + delay,
            redelivered: true,
        });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_settled {
            self.put_back(Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_given_back_comes_again_marked_and_what_is_acknowledged_makes_room() {
        let queue = Memory::new(2 * PIECE);
        queue.store(Bytes::from(vec![1; PIECE])).await;
        queue.store(Bytes::from(vec![2; PIECE])).await;
        let (first, second) = (queue.next().await, queue.next().await);
        assert_eq!((first.message[0], first.redelivered), (1, false));
        first.handle.give_back(Duration::ZERO).await;
        let again = queue.next().await;
        assert_eq!((again.message[0], again.redelivered), (1, true));
        let third = tokio::spawn({
            let queue = queue.clone();
            async move { queue.store(Bytes::from_static(b"third")).await }
        });
        second.handle.acknowledge().await;
        third.await.expect("there is room");
        drop(again);
        let mut left = [queue.next().await, queue.next().await].map(|delivery| delivery.message[0]);
        left.sort_unstable();
        assert_eq!(left, [1, b't']);
    }
}
