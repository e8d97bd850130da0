//! One thread's part of a run: its connections, its part of the schedule, its findings.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Request;
use http_body_util::Full;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use crate::connection::{Answer, Connection, Dialer, Failure};
use crate::error::Error;
use crate::gate::Gate;
use crate::plan::{Plan, Protocol, Tls};
use crate::schedule::Schedule;
use crate::tally::Report;

/// Pauses before a connection is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What others may see of a shard while it runs, in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// What a shard is told.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    /// Open connections, then wait.
    Prepare,
    /// The first request is due then.
    Begin(Instant),
    /// Somebody else couldn't begin.
    Forget,
}

/// What belongs to one shard.
pub(crate) struct Shard {
    pub(crate) plan: Arc<Plan>,
    pub(crate) tls: Option<Tls>,
    pub(crate) number: usize,
    pub(crate) shards: usize,
    pub(crate) counters: Arc<Vec<Counters>>,
    pub(crate) word: watch::Receiver<Word>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Shard {
    /// Run on this thread. `ready` hears whether all connections are open; the findings are None when nothing began.
    pub(crate) fn run(mut self, ready: mpsc::UnboundedSender<Result<(), Error>>) -> Result<Option<Report>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async move {
            let dialer = Rc::new(Dialer::new(&self.plan, self.tls.take()));
            // Every shards-th connection is this one's.
            let own = (self.number..self.plan.connections).step_by(self.shards).len();
            let opened = try_join_all((0..own).map(|_| dialer.dial())).await;
            let (connections, opened) = match opened {
                Ok(connections) => (connections, Ok(())),
                Err(failure) => (
                    Vec::new(),
                    Err(Error::Connect {
                        address: self.plan.address.to_string(),
                        reason: failure.to_string().trim_start_matches("connect: ").to_owned(),
                    }),
                ),
            };
            let _ = ready.send(opened); // who doesn't listen any more forgets us too
            drop(ready);
            let begun = match self
                .word
                .wait_for(|word| !matches!(word, Word::Prepare))
                .await
                .as_deref()
            {
                Ok(Word::Begin(moment)) => *moment,
                _ => return Ok(None),
            };
            self.measure(begun, dialer, connections).await.map(Some)
        })
    }

    async fn measure(&self, begun: Instant, dialer: Rc<Dialer>, opened: Vec<Connection>) -> Result<Report, Error> {
        let plan = &self.plan;
        let whole = plan.warm_up + plan.duration;
        let schedule =
            (plan.rate > 0.0).then(|| Schedule::new(plan.arrivals, plan.rate, self.number, self.shards, whole));
        let gate = Rc::new(Gate::new(begun, whole, schedule, self.stop.clone()));
        let report = Rc::new(RefCell::new(Report::default()));
        let mut workers = JoinSet::new();
        for connection in opened {
            for _ in 1..plan.streams {
                if let Some(shared) = connection.share() {
                    workers.spawn_local(self.worker(begun, &dialer, &gate, &report, shared)?.run());
                }
            }
            workers.spawn_local(self.worker(begun, &dialer, &gate, &report, connection)?.run());
        }
        let pacing = gate.clone();
        let pacer = tokio::task::spawn_local(async move { pacing.pace().await });
        while workers.join_next().await.is_some() {}
        if pacer.is_finished() {
            pacer.await.map_err(std::io::Error::other)??;
        } else {
            pacer.abort();
        }
        let mut report = report.take();
        report.unsent = gate.unsent(plan.warm_up);
        Ok(report)
    }

    fn worker(
        &self,
        begun: Instant,
        dialer: &Rc<Dialer>,
        gate: &Rc<Gate>,
        report: &Rc<RefCell<Report>>,
        connection: Connection,
    ) -> Result<Worker, Error> {
        Ok(Worker {
            dialer: dialer.clone(),
            gate: gate.clone(),
            report: report.clone(),
            counters: self.counters.clone(),
            number: self.number,
            request: self.plan.request()?,
            timeout: self.plan.timeout,
            is_grpc: self.plan.protocol == Protocol::Grpc,
            measured_from: begun + self.plan.warm_up,
            connection: Some(connection),
            pause: FIRST_PAUSE,
        })
    }
}

/// One request at a time, over one connection.
struct Worker {
    dialer: Rc<Dialer>,
    gate: Rc<Gate>,
    report: Rc<RefCell<Report>>,
    counters: Arc<Vec<Counters>>,
    number: usize,
    request: Request<Full<Bytes>>,
    timeout: Duration,
    is_grpc: bool,
    measured_from: Instant,
    connection: Option<Connection>,
    pause: Duration,
}

impl Worker {
    async fn run(mut self) {
        while let Some(due) = self.gate.take().await {
            let sent = Instant::now();
            let outcome = match tokio::time::timeout(self.timeout, self.attempt()).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::Timeout),
            };
            let done = Instant::now();
            let refused = matches!(outcome, Err(Failure::Connect(_)));
            self.count(&outcome);
            {
                let mut report = self.report.borrow_mut();
                if due < self.measured_from {
                    report.warm_up += 1;
                } else {
                    report.elapsed = report.elapsed.max(done - self.measured_from);
                    report.note(outcome, done - due, sent - due);
                }
            }
            if refused {
                // A server that is away isn't hammered; what is due meanwhile is late, and says so.
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            } else {
                self.pause = FIRST_PAUSE;
            }
        }
    }

    fn count(&self, outcome: &Result<Answer, Failure>) {
        let counters = &self.counters[self.number];
        let is_good = match outcome {
            Ok(answer) if self.is_grpc => answer.status == 0,
            Ok(answer) => answer.status < 400,
            Err(_) => false,
        };
        let counter = if is_good { &counters.answered } else { &counters.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    async fn attempt(&mut self) -> Result<Answer, Failure> {
        let mut request = self.request.clone();
        // Over the connection that is there, else over a new one; a third time nobody would believe in it.
        for _ in 0..2 {
            let mut standing = self.connection.take();
            if let Some(connection) = &mut standing
                && !connection.is_usable().await
            {
                standing = None;
            }
            let mut connection = match standing {
                Some(connection) => connection,
                None => {
                    self.report.borrow_mut().reconnects += 1;
                    self.dialer.dial().await?
                }
            };
            match connection.send(request).await? {
                Ok(answer) => {
                    self.connection = Some(connection);
                    return Ok(answer);
                }
                Err(unsent) => request = unsent,
            }
        }
        Err(Failure::Broken("the server closes each connection at once".to_owned()))
    }
}
