//! Batches for adapters in Python and their answer. One batch waits at a time: Python takes it in a thread of its own,
//! with one acquisition of the GIL, and says which handlers refused it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use meshwright_api::meshwright::mixer::v1::Record;
use tokio::sync::oneshot;

/// Records for handlers in Python, each with the instances that are for them.
#[derive(Debug)]
pub struct Task {
    /// The records, and whether each may have been handled before.
    pub records: Vec<(Record, bool)>,
    refused: oneshot::Sender<Vec<String>>,
}

impl Task {
    /// The handlers of `refused` (name.namespace) didn't take their part; all others did.
    pub fn settle(self, refused: Vec<String>) {
        let _ = self.refused.send(refused);
    }
}

/// Where the worker puts batches and Python finds them.
#[derive(Debug, Default)]
pub struct Handover {
    waiting: Mutex<VecDeque<Task>>,
    arrived: Condvar,
}

impl Handover {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Puts a batch there; the answer fails when nobody will give one. The worker bounds how many wait.
    pub(crate) fn put(&self, records: Vec<(Record, bool)>) -> oneshot::Receiver<Vec<String>> {
        let (sender, receiver) = oneshot::channel();
        let task = Task {
            records,
            refused: sender,
        };
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(task);
        self.arrived.notify_one();
        receiver
    }

    /// The next batch; waits up to `timeout` for it. Blocks its thread.
    pub fn take(&self, timeout: Duration) -> Option<Task> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut waiting, _) = self
            .arrived
            .wait_timeout_while(waiting, timeout, |waiting| waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        while let Some(task) = waiting.pop_front() {
            // The worker has given up on those that waited too long.
            if !task.refused.is_closed() {
                return Some(task);
            }
        }
        None
    }
}
