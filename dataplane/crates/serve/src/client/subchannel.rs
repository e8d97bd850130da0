//! One address of a channel: its connection, made when the balancer asks for it, its back-off, and its move to a new
//! connection when the identity rotates.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::client::dialer::{Dialer, Made};
use crate::client::health::{self, Health, HealthWatch, Question};
use crate::client::link::Link;
use crate::client::target::Endpoint;
use crate::telemetry::span;

/// Where a subchannel stands.
#[derive(Clone, Debug)]
pub(crate) enum Status {
    /// No connection, and nobody has asked for one.
    Idle,
    /// One is being made.
    Connecting,
    /// Calls can go.
    Ready(Arc<Link>),
    /// The last try failed for this reason; `Idle` follows after the back-off. Or the server says that it isn't
    /// healthy; then `Ready` may follow.
    Failed(Arc<str>),
}

/// Which subchannel has come to stand where.
pub(crate) type Event = (u64, Status);

/// The pauses between tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

/// The balancer's hold on a subchannel; its drop ends the task, and the connection with the last call on it.
#[derive(Debug)]
pub(crate) struct Subchannel {
    pub(crate) id: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) status: Status,
    /// Whether it has failed since it was last ready.
    pub(crate) is_failing: bool,
    wanted: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Subchannel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subchannel {
    /// Begin, without a connection yet. Called within a tokio runtime.
    pub(crate) fn new(
        id: u64,
        endpoint: Endpoint,
        dialer: Arc<Dialer>,
        back_off: BackOff,
        events: mpsc::Sender<Event>,
        health: Option<Arc<Question>>,
    ) -> Self {
        let wanted = Arc::new(Notify::new());
        let worker = Worker {
            id,
            endpoint: endpoint.clone(),
            dialer,
            back_off,
            events,
            health,
            wanted: wanted.clone(),
        };
        let task = tokio::spawn(worker.run()).abort_handle();
        Self {
            id,
            endpoint,
            status: Status::Idle,
            is_failing: false,
            wanted,
            task,
        }
    }

    /// Connect, if it is idle.
    pub(crate) fn connect(&mut self) {
        if matches!(self.status, Status::Idle) {
            self.status = Status::Connecting;
            self.wanted.notify_one();
        }
    }

    /// Take note of an event.
    pub(crate) fn moved(&mut self, status: Status) {
        match status {
            Status::Ready(_) => self.is_failing = false,
            Status::Failed(_) => self.is_failing = true,
            Status::Idle | Status::Connecting => {}
        }
        self.status = status;
    }
}

/// The task of a subchannel.
struct Worker {
    id: u64,
    endpoint: Endpoint,
    dialer: Arc<Dialer>,
    back_off: BackOff,
    events: mpsc::Sender<Event>,
    /// What to ask a server before it gets calls.
    health: Option<Arc<Question>>,
    wanted: Arc<Notify>,
}

impl Worker {
    /// Work until the balancer is gone; usually the task is aborted before.
    async fn run(self) -> Option<()> {
        let mut rotations = self.dialer.rotations();
        let mut pause = self.back_off.first;
        loop {
            self.wanted.notified().await;
            if let Some(rotations) = &mut rotations {
                rotations.mark_unchanged();
            }
            let begun = Instant::now();
            match self.dialer.dial(&self.endpoint).await {
                Ok(made) => {
                    pause = self.back_off.first;
                    self.keep(made, &mut rotations).await?;
                    self.say(Status::Idle).await?;
                    // A server that takes connections only to end them is dialled no more often than one that
                    // takes none.
                    tokio::time::sleep_until(begun + jittered(self.back_off.first)).await;
                }
                Err(reason) => {
                    self.say(Status::Failed(reason.into())).await?;
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(self.back_off.longest);
                    self.say(Status::Idle).await?;
                }
            }
        }
    }

    async fn say(&self, status: Status) -> Option<()> {
        self.events.send((self.id, status)).await.ok()
    }

    /// Let calls use a connection until it ends; move on to a new one when the identity rotates.
    async fn keep(&self, made: Made, rotations: &mut Option<watch::Receiver<u64>>) -> Option<()> {
        let (mut link, mut ended) = made;
        let mut watch = self.begin(&link).await?;
        let mut pause = self.back_off.first;
        let mut is_rotated = false;
        loop {
            tokio::select! {
                _ = &mut ended => {
                    link.retire();
                    return Some(());
                }
                () = link.retired() => return Some(()),
                () = rotation(rotations), if !is_rotated => is_rotated = true,
                made = self.dial_again(&mut pause), if is_rotated => {
                    // Calls under way finish on the old connection, which ends with the last of them.
                    (link, ended) = made;
                    is_rotated = false;
                    pause = self.back_off.first;
                    watch = self.begin(&link).await?;
                }
                health = health::next(&mut watch) => {
                    let status = match health {
                        Health::Serving => Status::Ready(link.clone()),
                        Health::Not(reason) => Status::Failed(reason),
                    };
                    self.say(status).await?;
                }
            }
        }
    }

    /// Let calls use a new connection, at once or when its server says that it is healthy.
    async fn begin(&self, link: &Arc<Link>) -> Option<Option<HealthWatch>> {
        let Some(question) = &self.health else {
            self.say(Status::Ready(link.clone())).await?;
            return Some(None);
        };
        Some(Some(HealthWatch::new(question.clone(), link.clone(), self.back_off)))
    }

    /// Dial until it works; the old connection serves on meanwhile.
    async fn dial_again(&self, pause: &mut Duration) -> Made {
        loop {
            if let Ok(made) = self.dialer.dial(&self.endpoint).await {
                return made;
            }
            tokio::time::sleep(jittered(*pause)).await;
            *pause = (*pause * 2).min(self.back_off.longest);
        }
    }
}

async fn rotation(rotations: &mut Option<watch::Receiver<u64>>) {
    if let Some(rotations) = rotations
        && rotations.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Clients that lost their server together shouldn't come back together.
pub(crate) fn jittered(back_off: Duration) -> Duration {
    back_off.mul_f64(0.8 + 0.4 * span::share())
}
