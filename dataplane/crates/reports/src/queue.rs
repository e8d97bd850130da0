//! A queue of messages that somebody must acknowledge: a JetStream stream, or memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::jetstream::{self, Jetstream};
use crate::memory::{self, Memory};

/// Either of the two.
#[derive(Debug, Clone)]
pub(crate) enum Queue {
    Memory(Arc<Memory>),
    Jetstream(Arc<Jetstream>),
}

/// A message, given to one worker.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) message: Bytes,
    /// It may have been handled before.
    pub(crate) redelivered: bool,
    pub(crate) handle: Handle,
}

/// By which a message is settled.
#[derive(Debug)]
pub(crate) enum Handle {
    Memory(memory::Lease),
    Jetstream(Box<jetstream::Lease>),
}

impl Queue {
    /// Returns when the message is stored; the same `id` again within two minutes is stored once. `is_late`: it may have
    /// been stored longer ago than that.
    pub(crate) async fn store(&self, id: &str, message: Bytes, is_late: bool) -> Result<(), String> {
        match self {
            Queue::Memory(memory) => {
                memory.store(message).await;
                Ok(())
            }
            Queue::Jetstream(jetstream) => jetstream.store(id, message, is_late).await,
        }
    }

    /// The next message; waits for it.
    pub(crate) async fn next(&self) -> Delivery {
        match self {
            Queue::Memory(memory) => memory.next().await,
            Queue::Jetstream(jetstream) => jetstream.next().await,
        }
    }
}

impl Handle {
    /// It is taken: the queue forgets it.
    pub(crate) async fn acknowledge(self) {
        match self {
            Handle::Memory(lease) => lease.acknowledge(),
            Handle::Jetstream(lease) => lease.acknowledge().await,
        }
    }

    /// It comes again after `delay`.
    pub(crate) async fn give_back(self, delay: Duration) {
        match self {
            Handle::Memory(lease) => lease.give_back(delay),
            Handle::Jetstream(lease) => lease.give_back(delay).await,
        }
    }

    /// It is still being worked on: nobody else may get it yet.
    pub(crate) async fn hold(&self) {
        match self {
            Handle::Memory(_) => {}
            Handle::Jetstream(lease) => lease.hold().await,
        }
    }
}
