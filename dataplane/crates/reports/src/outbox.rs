//! Between the front and the queue: reports that come together leave in one message, and each caller hears when its own
//! is stored. Bounded by bytes, and full means refused or made to wait; what was taken stays until the queue has it,
//! also when its caller has gone: it is marked then, as that one may have reported it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use meshwright_api::meshwright::mixer::v1::{Batch, Reported};
use prost::Message;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::batch::{self, MAX_REPORTED};
use crate::counters::Counters;
use crate::health::{Health, Part};
use crate::queue::Queue;

/// Room is counted in pieces of this many bytes, since a semaphore counts to 2^29 at the most on 32-bit machines.
const PIECE: usize = 256;
/// A message isn't filled beyond this when there is more: it is what a worker takes at once.
const TARGET: usize = 256 << 10;
/// How long a report waits for others while messages are under way; with none under way it leaves at once.
const GATHER: Duration = Duration::from_millis(2);
/// Messages whose acknowledgement is waited for at once.
const UNDER_WAY: usize = 4;
/// The queue tells repetitions for two minutes only: what is sent again later is marked.
const LATE: Duration = Duration::from_secs(60);

/// There is no room; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many records wait to be stored; report again later")]
pub struct Full;

/// Tells when reports are stored. Whoever drops it has gone.
#[derive(Debug)]
pub struct Stored(Vec<oneshot::Receiver<()>>);

impl Stored {
    /// Returns when the queue has all of them; false when the process ends before.
    pub async fn wait(mut self) -> bool {
        for receiver in &mut self.0 {
            if receiver.await.is_err() {
                return false;
            }
        }
        true
    }
}

#[derive(Debug)]
struct Entry {
    reported: Reported,
    size: usize,
    /// None: nobody waits to hear, and nobody would report it again.
    stored: Option<oneshot::Sender<()>>,
    _room: OwnedSemaphorePermit,
}

/// The front's side. Entries wait in a channel that is bounded by the room they hold.
#[derive(Debug)]
pub struct Outbox {
    entries: mpsc::UnboundedSender<Entry>,
    room: Arc<Semaphore>,
    pieces: usize,
    waiting: Arc<AtomicU64>,
}

impl Outbox {
    pub(crate) fn new(capacity: usize) -> (Self, Inbox) {
        let pieces = (capacity / PIECE).clamp(1, Semaphore::MAX_PERMITS);
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicU64::new(0));
        let outbox = Outbox {
            entries: sender,
            room: Arc::new(Semaphore::new(pieces)),
            pieces,
            waiting: waiting.clone(),
        };
        let inbox = Inbox {
            entries: receiver,
            ahead: None,
            waiting,
        };
        (outbox, inbox)
    }

    /// Takes all or none.
    pub fn offer(&self, reports: Vec<Reported>) -> Result<Stored, Full> {
        let sizes: Vec<usize> = reports.iter().map(batch::size).collect();
        let mut rooms = Vec::with_capacity(reports.len());
        for size in &sizes {
            let pieces = self.pieces_of(*size);
            rooms.push(self.room.clone().try_acquire_many_owned(pieces).map_err(|_| Full)?);
        }
        Ok(Stored(
            (reports.into_iter().zip(sizes).zip(rooms))
                .map(|((reported, size), room)| {
                    let (sender, receiver) = oneshot::channel();
                    self.append(reported, size, room, Some(sender));
                    receiver
                })
                .collect(),
        ))
    }

    /// Takes them as soon as there is room for each; whoever reports so never hears of them again.
    pub async fn put(&self, reports: Vec<Reported>) {
        for reported in reports {
            let size = batch::size(&reported);
            // The semaphore is never closed.
            if let Ok(room) = self.room.clone().acquire_many_owned(self.pieces_of(size)).await {
                self.append(reported, size, room, None);
            }
        }
    }

    /// Whether they would have to wait.
    pub fn is_full_for(&self, reports: &[Reported]) -> bool {
        let pieces = reports
            .iter()
            .map(|reported| self.pieces_of(batch::size(reported)) as usize);
        self.room.available_permits() < pieces.sum()
    }

    /// Records that no queue has yet.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// What is larger than the whole counts as the whole, so that it passes when nothing else waits.
    fn pieces_of(&self, size: usize) -> u32 {
        u32::try_from(size.div_ceil(PIECE).clamp(1, self.pieces)).unwrap_or(u32::MAX)
    }

    fn append(&self, reported: Reported, size: usize, room: OwnedSemaphorePermit, stored: Option<oneshot::Sender<()>>) {
        self.waiting
            .fetch_add(batch::count(&reported) as u64, Ordering::Relaxed);
        let entry = Entry {
            reported,
            size,
            stored,
            _room: room,
        };
        // The other end is kept for as long as this one.
        let _ = self.entries.send(entry);
    }
}

/// The queue's side.
#[derive(Debug)]
pub(crate) struct Inbox {
    entries: mpsc::UnboundedReceiver<Entry>,
    /// Didn't fit into the message before.
    ahead: Option<Entry>,
    waiting: Arc<AtomicU64>,
}

impl Inbox {
    /// Stores what comes for as long as there is somebody who could give.
    pub(crate) async fn store(mut self, queue: Queue, health: Arc<Health>, counters: Arc<Counters>) {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY));
        while let Some(first) = self.next().await {
            let mut entries = vec![first];
            let mut size = entries[0].size;
            if under_way.available_permits() < UNDER_WAY {
                self.gather(&mut entries, &mut size, GATHER).await;
            }
            let Ok(permit) = under_way.clone().acquire_owned().await else {
                return;
            };
            // More may have come while all places were taken.
            self.gather(&mut entries, &mut size, Duration::ZERO).await;
            let (queue, health, counters) = (queue.clone(), health.clone(), counters.clone());
            let waiting = self.waiting.clone();
            tokio::spawn(async move {
                store(&queue, &health, &counters, &waiting, entries).await;
                drop(permit);
            });
        }
    }

    async fn next(&mut self) -> Option<Entry> {
        match self.ahead.take() {
            Some(entry) => Some(entry),
            None => self.entries.recv().await,
        }
    }

    async fn gather(&mut self, entries: &mut Vec<Entry>, size: &mut usize, wait: Duration) {
        let until = Instant::now() + wait;
        while *size < TARGET {
            let entry = if wait.is_zero() {
                match self.ahead.take() {
                    Some(entry) => Some(entry),
                    None => self.entries.try_recv().ok(),
                }
            } else {
                tokio::time::timeout_at(until, self.next()).await.ok().flatten()
            };
            let Some(entry) = entry else { return };
            if *size + entry.size > MAX_REPORTED {
                self.ahead = Some(entry);
                return;
            }
            *size += entry.size;
            entries.push(entry);
        }
    }
}

/// Returns when the queue has them, however long that takes.
async fn store(queue: &Queue, health: &Health, counters: &Counters, waiting: &AtomicU64, entries: Vec<Entry>) {
    let (mut reports, mut callers, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        reports.push(entry.reported);
        callers.push(entry.stored);
        rooms.push(entry._room);
    }
    let records = reports.iter().map(batch::count).sum::<usize>() as u64;
    let mut message = Batch {
        reports,
        ..Default::default()
    };
    let id = format!("{:032x}", batch::random_id());
    let began = Instant::now();
    let mut pause = Duration::from_millis(50);
    let (mut bytes, mut gone) = (Bytes::new(), usize::MAX);
    loop {
        let closed: Vec<u32> = (0u32..)
            .zip(&callers)
            .filter(|(_, caller)| caller.as_ref().is_some_and(oneshot::Sender::is_closed))
            .map(|(n, _)| n)
            .collect();
        if closed.len() != gone {
            gone = closed.len();
            message.unconfirmed = closed;
            bytes = message.encode_to_vec().into();
        }
        let attempt = Instant::now();
        match queue.store(&id, bytes.clone(), began.elapsed() > LATE).await {
            Ok(()) => {
                counters.stored(records, bytes.len(), attempt.elapsed());
                health.set(Part::Records, None);
                break;
            }
            Err(reason) => {
                counters.retry(records);
                health.set(Part::Records, Some(format!("records wait to be stored: {reason}")));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    waiting.fetch_sub(records, Ordering::Relaxed);
    drop(rooms);
    for caller in callers.into_iter().flatten() {
        let _ = caller.send(());
    }
}
