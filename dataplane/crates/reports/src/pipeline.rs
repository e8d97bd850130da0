//! The whole way, and what starts and ends it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshwright_policy::{Answer, Program, Question};
use meshwright_serve::telemetry::span::Recorder;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::counters::Counters;
use crate::handover::Handover;
use crate::health::Health;
use crate::jetstream::{Jetstream, Nats};
use crate::memory::Memory;
use crate::outbox::{Inbox, Outbox};
use crate::prometheus::Format;
use crate::queue::Queue;
use crate::rest::Rests;
use crate::sinks::Registry;
use crate::worker::Worker;

/// How the way begins.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The queue; None: memory.
    pub nats: Option<Nats>,
    /// Bytes that memory keeps at the most.
    pub memory_bytes: usize,
    /// Records that handlers get at once, at most; a message isn't divided for it.
    pub batch_records: usize,
    /// How long a record waits for others to fill its batch.
    pub batch_wait: Duration,
    /// How long a handler that refused a batch rests at the most, before another one tries it.
    pub longest_rest: Duration,
    /// Where spans of deliveries go.
    pub recorder: Arc<Recorder>,
}

/// The engine: what the way of reports needs of it.
pub trait Rules: Send + Sync + 'static {
    /// The policy in force.
    fn program(&self) -> Arc<Program>;
    /// Nanoseconds of a clock that never goes back.
    fn now(&self) -> u64;
    /// One answer for each question, in their order; none at all when the engine is gone.
    fn ask(&self, questions: Vec<Question>) -> Pin<Box<dyn Future<Output = Vec<Answer>> + Send>>;
}

/// One a process. Until it is started, reports wait in the outbox.
#[derive(Debug)]
pub struct Pipeline {
    /// The front's side.
    pub outbox: Outbox,
    /// Python's side.
    pub handover: Arc<Handover>,
    /// What happened.
    pub counters: Arc<Counters>,
    inbox: Mutex<Option<Inbox>>,
    health: Arc<Health>,
    registry: Arc<Registry>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    queue: Mutex<Option<Queue>>,
}

impl Pipeline {
    /// `outbox_bytes` may wait to be stored.
    pub fn new(outbox_bytes: usize) -> Self {
        let (outbox, inbox) = Outbox::new(outbox_bytes);
        Pipeline {
            outbox,
            handover: Handover::new(),
            counters: Arc::default(),
            inbox: Mutex::new(Some(inbox)),
            health: Arc::default(),
            registry: Arc::default(),
            tasks: Mutex::default(),
            queue: Mutex::default(),
        }
    }

    /// Begins to store, and to deliver as `rules` say. Call it once.
    pub async fn start(&self, settings: Settings, rules: impl Rules) -> Result<(), String> {
        let queue = match settings.nats.clone() {
            Some(nats) => Queue::Jetstream(Jetstream::connect(nats, self.health.clone()).await?),
            None => Queue::Memory(Memory::new(settings.memory_bytes)),
        };
        let Some(inbox) = lock(&self.inbox).take() else {
            return Err("it was started before".to_owned());
        };
        *lock(&self.queue) = Some(queue.clone());
        let worker = Worker {
            queue: queue.clone(),
            rules: Box::new(rules),
            rests: Arc::new(Rests::new(settings.longest_rest)),
            settings,
            registry: self.registry.clone(),
            handover: self.handover.clone(),
            health: self.health.clone(),
            counters: self.counters.clone(),
        };
        let storing = inbox.store(queue, self.health.clone(), self.counters.clone());
        lock(&self.tasks).extend([tokio::spawn(storing), tokio::spawn(worker.run())]);
        Ok(())
    }

    /// Returns when all that was taken is stored and, where the queue ends with this process, delivered; false when that
    /// takes longer than `timeout`.
    pub async fn finish(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        loop {
            let is_delivered = match &*lock(&self.queue) {
                Some(Queue::Memory(memory)) => memory.is_empty(),
                _ => true,
            };
            if self.outbox.waiting() == 0 && is_delivered {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Part and reason of what is wrong at the moment.
    pub fn faults(&self) -> Vec<(String, String)> {
        self.health.faults()
    }

    /// What Prometheus reads, in its text format or in OpenMetrics (without the end mark).
    pub fn exposition(&self, openmetrics: bool) -> String {
        self.registry
            .exposition(if openmetrics { Format::OpenMetrics } else { Format::Text })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
