//! A memif interface as a port: the packets' half, which a worker owns, and how the other half hands links to it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meshwright_ports::{Burst, DropReason, Port, Waker, Watch};

use crate::agent::Agent;
use crate::link::Link;

/// Where an interface stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Whether packets flow.
    pub up: bool,
    /// The peer's name, when there is or was one.
    pub peer: String,
    /// Links there were so far.
    pub links: u64,
    /// Why there is none now.
    pub fault: String,
}

/// What the two halves of an interface share.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// Raised with each change, so that the worker sees one by a single load.
    changes: AtomicU64,
    next: Mutex<Next>,
    changed: Condvar,
    /// The worker found the peer breaking the rules.
    broken: AtomicBool,
}

#[derive(Debug, Default)]
struct Next {
    link: Option<Box<Link>>,
    waker: Option<Waker>,
    state: State,
}

impl Handover {
    /// A new link, or the end of one with its reason.
    pub(crate) fn change(&self, link: Option<Box<Link>>, peer: &str, fault: &str) {
        let mut next = self.next();
        next.state.up = link.is_some();
        if link.is_some() {
            next.state.links += 1;
            next.state.peer = peer.to_owned();
        }
        next.state.fault = fault.to_owned();
        next.link = link;
        self.broken.store(false, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Release);
        self.changed.notify_all();
        if let Some(waker) = &next.waker {
            waker.wake();
        }
    }

    /// Why there is no link; keeps what is said already when a link is there.
    pub(crate) fn explain(&self, fault: &str) {
        let mut next = self.next();
        if !next.state.up {
            next.state.fault = fault.to_owned();
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn next(&self) -> MutexGuard<'_, Next> {
        // What is in it is whole between statements, so a panic elsewhere doesn't spoil it.
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at an interface from any thread.
#[derive(Debug, Clone)]
pub struct Status(Arc<Handover>);

impl Status {
    /// Where it stands.
    pub fn get(&self) -> State {
        self.0.next().state.clone()
    }

    /// Wait until packets flow, or for the time that there is; return where it stands.
    pub fn wait_up(&self, timeout: Duration) -> State {
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.0.next(), timeout, |next| !next.state.up);
        waited.unwrap_or_else(PoisonError::into_inner).0.state.clone()
    }
}

/// A memif interface. Dropping it ends its link and takes it off its socket.
pub struct MemifPort {
    handover: Arc<Handover>,
    seen: u64,
    link: Option<Box<Link>>,
    agent: Agent,
    key: u64,
}

impl MemifPort {
    pub(crate) fn new(handover: Arc<Handover>, agent: Agent, key: u64) -> Self {
        Self {
            handover,
            seen: 0,
            link: None,
            agent,
            key,
        }
    }

    /// A look at it for others.
    pub fn status(&self) -> Status {
        Status(Arc::clone(&self.handover))
    }

    /// Take up the newest link; for who uses the port without a worker.
    pub fn take_up(&mut self) {
        self.replace(|_| ());
    }

    fn replace(&mut self, mut forget: impl FnMut(BorrowedFd<'_>)) -> bool {
        if self.handover.changes.load(Ordering::Acquire) == self.seen {
            return false;
        }
        let mut next = self.handover.next();
        self.seen = self.handover.changes.load(Ordering::Acquire);
        for bell in self.link.iter().flat_map(|link| link.bells()) {
            forget(bell);
        }
        self.link = next.link.take();
        true
    }

    /// Tell the other half that the peer broke the rules; it ends the link.
    #[cold]
    fn complain(&mut self) {
        if !self.handover.broken.swap(true, Ordering::AcqRel) {
            self.agent.look();
        }
    }
}

impl Port for MemifPort {
    #[inline]
    fn receive(&mut self, burst: &mut Burst) {
        if let Some(link) = &mut self.link {
            link.receive(burst);
            if link.broken().is_some() {
                self.complain();
            }
        }
    }

    #[inline]
    fn send(&mut self, burst: &mut Burst) {
        match &mut self.link {
            Some(link) => {
                link.send(burst);
                if link.broken().is_some() {
                    self.complain();
                }
            }
            None => burst.drop_all(DropReason::Down),
        }
    }

    #[inline]
    fn release(&mut self, _burst: &mut Burst) {
        if let Some(link) = &mut self.link {
            link.release();
        }
    }

    fn attach(&mut self, waker: Waker) {
        self.handover.next().waker = Some(waker);
    }

    fn refresh(&mut self, watch: &mut Watch<'_>) {
        if self.replace(|bell| watch.remove(bell)) {
            for bell in self.link.iter().flat_map(|link| link.bells()) {
                watch.add(bell);
            }
        }
    }

    fn leave(&mut self, watch: &mut Watch<'_>) {
        for bell in self.link.iter().flat_map(|link| link.bells()) {
            watch.remove(bell);
        }
    }

    fn arm(&mut self) -> bool {
        match &mut self.link {
            Some(link) => {
                link.ask_interrupt(true);
                link.has_bells()
            }
            None => true, // the next link wakes
        }
    }

    fn disarm(&mut self) {
        if let Some(link) = &mut self.link {
            link.ask_interrupt(false);
        }
    }
}

impl Drop for MemifPort {
    fn drop(&mut self) {
        self.agent.remove(self.key);
    }
}
