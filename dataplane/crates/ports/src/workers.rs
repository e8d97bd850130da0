//! The workers and the table of what each carries.
//!
//! One decision to know: the table is an immutable list that is swapped as a whole. A pair moves to its worker when that
//! sees the new list and is dropped there when it is in the list no more, so a port has one owner at any time and the
//! packets' path has no lock.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::pair::Pair;
use crate::waker::Waker;
use crate::worker::Worker;

/// A worker looks at its table every few microseconds when awake and is woken when not.
const DEADLINE: Duration = Duration::from_secs(5);
/// More threads than this are a mistake.
const WORKERS_MAX: usize = 256;

/// How the workers run.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How many; 0 is one for each core that this process may use.
    pub workers: usize,
    /// The cores that they are bound to, in turn; none leaves it to the kernel.
    pub cores: Vec<usize>,
    /// Never sleep: the lowest latency, for whole cores.
    pub busy: bool,
}

pub(crate) struct Entry {
    id: String,
    pair: Mutex<Option<Pair>>,
    counters: Arc<[Counters; 2]>,
    gone: (Mutex<bool>, Condvar),
}

impl Entry {
    pub(crate) fn take(&self) -> Option<Pair> {
        lock(&self.pair).take()
    }

    pub(crate) fn let_go(&self) {
        *lock(&self.gone.0) = true;
        self.gone.1.notify_all();
    }

    fn wait_gone(&self) -> bool {
        let guard = lock(&self.gone.0);
        let waited = self.gone.1.wait_timeout_while(guard, DEADLINE, |gone| !*gone);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) stop: bool,
}

pub(crate) struct Shared {
    pub(crate) waker: Waker,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) busy: bool,
}

/// The threads that carry packets. Dropping it ends them and all connections.
pub struct Workers {
    workers: Vec<Arc<Shared>>,
    threads: Vec<JoinHandle<()>>,
    places: Mutex<HashMap<String, usize>>,
}

impl Workers {
    /// Start the threads; they wait in the kernel until there is a connection.
    pub fn start(settings: &Settings) -> Result<Self> {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if settings.workers == 0 {
            available
        } else {
            settings.workers
        };
        if count > WORKERS_MAX {
            return Err(Error::Invalid {
                field: "workers",
                reason: format!("{count}, {WORKERS_MAX} at most"),
            });
        }
        let mut started = Self {
            workers: Vec::new(),
            threads: Vec::new(),
            places: Mutex::default(),
        };
        for number in 0..count {
            let shared = Arc::new(Shared {
                waker: Waker::new()?,
                table: ArcSwap::default(),
                busy: settings.busy,
            });
            let worker = Worker::new(Arc::clone(&shared))?;
            let core = settings.cores.get(number % settings.cores.len().max(1)).copied();
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let bound = core.map_or(Ok(()), bind);
                    let good = bound.is_ok();
                    let _ = tell.send(bound); // the other end waits
                    if good {
                        worker.run();
                    }
                })
                .map_err(|error| Error::system("start a worker", error))?;
            started.workers.push(shared);
            started.threads.push(thread);
            told.recv().unwrap_or(Ok(()))?;
        }
        Ok(started)
    }

    /// Carry a pair's packets from now on, by the worker that has the fewest.
    pub fn add(&self, id: &str, pair: Pair) -> Result<()> {
        let mut places = self.places();
        if places.contains_key(id) {
            return Err(Error::Known(id.to_owned()));
        }
        let least = |(_, shared): &(usize, &Arc<Shared>)| shared.table.load().entries.len();
        let Some((worker, shared)) = self.workers.iter().enumerate().min_by_key(least) else {
            return Err(Error::Unknown(id.to_owned())); // there is one worker at least
        };
        let entry = Arc::new(Entry {
            id: id.to_owned(),
            counters: pair.counters(),
            pair: Mutex::new(Some(pair)),
            gone: (Mutex::new(false), Condvar::new()),
        });
        let mut entries = shared.table.load().entries.clone();
        entries.push(entry);
        shared.table.store(Arc::new(Table { entries, stop: false }));
        places.insert(id.to_owned(), worker);
        shared.waker.wake();
        Ok(())
    }

    /// Stop carrying a pair's packets; when this returns, its ports are closed.
    pub fn remove(&self, id: &str) -> Result<()> {
        let mut places = self.places();
        let worker = places.remove(id).ok_or_else(|| Error::Unknown(id.to_owned()))?;
        let shared = &self.workers[worker];
        let table = shared.table.load_full();
        let (gone, entries): (Vec<_>, Vec<_>) = table.entries.iter().cloned().partition(|entry| entry.id == id);
        shared.table.store(Arc::new(Table { entries, stop: false }));
        drop(places);
        shared.waker.wake();
        for entry in gone {
            // The worker may not have seen it yet: then it never will.
            if entry.take().is_none() && !entry.wait_gone() {
                return Err(Error::Stuck {
                    worker,
                    id: id.to_owned(),
                    seconds: DEADLINE.as_secs(),
                });
            }
        }
        Ok(())
    }

    /// What passed a connection: the client's port, the endpoint's.
    pub fn counters(&self, id: &str) -> Option<Arc<[Counters; 2]>> {
        let worker = *self.places().get(id)?;
        let table = self.workers[worker].table.load();
        let entry = table.entries.iter().find(|entry| entry.id == id)?;
        Some(Arc::clone(&entry.counters))
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        lock(&self.places)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for shared in &self.workers {
            shared.table.store(Arc::new(Table {
                entries: Vec::new(),
                stop: true,
            }));
            shared.waker.wake();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic was printed where it happened
        }
    }
}

fn bind(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| Error::Invalid {
            field: "cores",
            reason: format!("{core}: {errno}: name cores that this process may use"),
        })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each value is whole between statements, so a panic elsewhere doesn't spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
