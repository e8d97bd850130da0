//! A whole run: threads started, begun together, watched, and their findings put together.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::error::Error;
use crate::plan::Plan;
use crate::shard::{Counters, Shard, Word};
use crate::tally::Report;

const WATCH: Duration = Duration::from_millis(100);
/// From when all are ready to the first request: every thread must have heard of it.
const RUN_UP: Duration = Duration::from_millis(5);

/// Where a run stands; counts are since the beginning, the warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Since the first request was due.
    pub elapsed: Duration,
    /// Good answers.
    pub answered: u64,
    /// Bad answers, and requests without one.
    pub failed: u64,
}

/// Carry out a plan. `on_progress` is called about ten times a second on this thread; when it breaks, the run ends
/// early. It ends in any case after its duration and the longest time that an answer may take.
pub fn run(plan: Plan, mut on_progress: impl FnMut(Progress) -> ControlFlow<()>) -> Result<Report, Error> {
    plan.check()?;
    let tls = plan.security.prepare(plan.protocol)?;
    let plan = Arc::new(plan);
    let shards = plan.threads.min(plan.connections);
    let counters: Arc<Vec<Counters>> = Arc::new((0..shards).map(|_| Counters::default()).collect());
    let (word, _) = watch::channel(Word::Prepare);
    let (stop, _) = watch::channel(false);
    let (ready, mut readies) = mpsc::unbounded_channel();
    let mut threads = Vec::with_capacity(shards);
    for number in 0..shards {
        let shard = Shard {
            plan: plan.clone(),
            tls: tls.clone(),
            number,
            shards,
            counters: counters.clone(),
            word: word.subscribe(),
            stop: stop.subscribe(),
        };
        let ready = ready.clone();
        threads.push(
            thread::Builder::new()
                .name(format!("meshwright-load-{number}"))
                .spawn(move || shard.run(ready))?,
        );
    }
    drop(ready);
    let mut fault = None;
    for _ in 0..shards {
        match readies.blocking_recv() {
            Some(Ok(())) => {}
            Some(Err(error)) => fault = Some(error),
            None => break, // a shard couldn't even start: it says so when it is joined
        }
    }
    let begin = Instant::now() + RUN_UP;
    word.send_replace(if fault.is_some() {
        Word::Forget
    } else {
        Word::Begin(begin)
    });
    while fault.is_none() && !threads.iter().all(thread::JoinHandle::is_finished) {
        thread::park_timeout(WATCH);
        let sum = |of: fn(&Counters) -> u64| counters.iter().map(of).sum();
        let progress = Progress {
            elapsed: Instant::now().saturating_duration_since(begin),
            answered: sum(|shard| shard.answered.load(Ordering::Relaxed)),
            failed: sum(|shard| shard.failed.load(Ordering::Relaxed)),
        };
        if on_progress(progress).is_break() {
            stop.send_replace(true);
        }
    }
    let mut whole = Report::default();
    for thread in threads {
        let found = thread
            .join()
            .map_err(|_| std::io::Error::other("a thread of it panicked"))?;
        if let Some(report) = found? {
            whole.add(report);
        }
    }
    if let Some(error) = fault {
        return Err(error);
    }
    if !*stop.borrow() {
        whole.elapsed = whole.elapsed.max(plan.duration);
    }
    Ok(whole)
}
