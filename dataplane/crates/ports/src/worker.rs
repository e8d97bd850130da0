//! One thread that carries packets to completion.
//!
//! One decision to know: each connection falls asleep by itself. One that has been empty for a while lets its descriptors
//! speak and leaves the round, so that a busy connection doesn't pay for a thousand idle ones, and a worker whose
//! connections all sleep waits in the kernel.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::burst::Burst;
use crate::error::{Error, Result};
use crate::pair::Pair;
use crate::port::Watch;
use crate::workers::{Entry, Shared};

/// Empty rounds before descriptors speak: some microseconds, more than a peer in full flow ever pauses.
const LINGER: u32 = 256;
/// Empty rounds after that before the connection sleeps. A peer of another make may have looked at the mask before its
/// packets were visible here; by now they are.
const DROWSY: u32 = 64;
/// Rounds between two looks at who woke up, while somebody is awake.
const LOOK: u32 = 64;
/// What no descriptor told is found after this, in milliseconds.
const SWEEP: u16 = 1000;
/// The token of the waker itself.
const WAKER: u64 = u64::MAX;

struct Connection {
    entry: Arc<Entry>,
    pair: Pair,
    empty: u32,
    asleep: bool,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    epoll: Epoll,
    seen: u64,
    /// By token; a place is reused when its connection has gone.
    connections: Vec<Option<Connection>>,
    awake: Vec<usize>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| Error::system("open epoll", errno))?;
        epoll
            .add(
                &shared.waker,
                EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKER),
            )
            .map_err(|errno| Error::system("watch the waker", errno))?;
        Ok(Self {
            shared,
            epoll,
            seen: 0,
            connections: Vec::new(),
            awake: Vec::new(),
        })
    }

    /// Carry packets until the table says stop.
    pub(crate) fn run(mut self) {
        let mut burst = Burst::new();
        let mut events = [EpollEvent::empty(); 64];
        let mut rounds = 0_u32;
        loop {
            let changes = self.shared.waker.changes();
            if changes != self.seen {
                self.seen = changes;
                if !self.take_up() {
                    return;
                }
            }
            rounds = rounds.wrapping_add(1);
            if self.awake.is_empty() {
                self.look(&mut events, EpollTimeout::from(SWEEP));
            } else if rounds.is_multiple_of(LOOK) {
                self.look(&mut events, EpollTimeout::ZERO);
            }
            self.round(&mut burst);
        }
    }

    /// Carry a burst of every connection that is awake.
    fn round(&mut self, burst: &mut Burst) {
        let busy = self.shared.busy;
        let mut position = 0;
        while let Some(&token) = self.awake.get(position) {
            let Some(connection) = self.connections[token].as_mut() else {
                self.awake.swap_remove(position);
                continue;
            };
            if connection.pair.carry(burst) {
                if connection.empty >= LINGER {
                    connection.pair.disarm();
                }
                connection.empty = 0;
            } else if !busy {
                connection.empty += 1;
                if connection.empty == LINGER {
                    if connection.pair.arm() {
                        // What was published before the mask went down was seen by the peer with the mask up: look again.
                        fence(Ordering::SeqCst);
                    } else {
                        connection.empty = 0;
                    }
                } else if connection.empty >= LINGER + DROWSY {
                    connection.asleep = true;
                    self.awake.swap_remove(position);
                    continue;
                }
            }
            position += 1;
        }
    }

    /// Wake those whose descriptors spoke; all of them when nobody spoke for a whole sweep.
    fn look(&mut self, events: &mut [EpollEvent], timeout: EpollTimeout) {
        let waited = timeout != EpollTimeout::ZERO;
        match self.epoll.wait(events, timeout) {
            Ok(0) if waited => {
                for token in 0..self.connections.len() {
                    self.wake(token);
                }
            }
            Ok(count) => {
                for event in &events[..count] {
                    if event.data() != WAKER {
                        self.wake(event.data() as usize);
                    }
                }
            }
            Err(_) => {} // a signal
        }
    }

    fn wake(&mut self, token: usize) {
        if let Some(connection) = self.connections.get_mut(token).and_then(Option::as_mut)
            && connection.asleep
        {
            connection.asleep = false;
            // Awake but armed: it falls asleep again soon unless a packet has come.
            connection.empty = LINGER;
            self.awake.push(token);
        }
    }

    /// Bring what is carried to what the table says; false at the end.
    fn take_up(&mut self) -> bool {
        let table = self.shared.table.load_full();
        for (token, place) in self.connections.iter_mut().enumerate() {
            let gone =
                |connection: &mut Connection| !table.entries.iter().any(|entry| Arc::ptr_eq(entry, &connection.entry));
            if let Some(mut connection) = place.take_if(gone) {
                connection.pair.leave(&mut Watch::new(&self.epoll, token as u64));
                drop(connection.pair);
                connection.entry.let_go();
            }
        }
        self.awake.retain(|&token| self.connections[token].is_some());
        for entry in &table.entries {
            if let Some(mut pair) = entry.take() {
                pair.attach(&self.shared.waker);
                let token = self.place();
                self.connections[token] = Some(Connection {
                    entry: Arc::clone(entry),
                    pair,
                    empty: 0,
                    asleep: false,
                });
                self.awake.push(token);
            }
        }
        for token in 0..self.connections.len() {
            if let Some(connection) = self.connections[token].as_mut() {
                connection.pair.refresh(&mut Watch::new(&self.epoll, token as u64));
                connection.pair.disarm();
                connection.empty = 0;
                if connection.asleep {
                    connection.asleep = false;
                    self.awake.push(token);
                }
            }
        }
        !table.stop
    }

    fn place(&mut self) -> usize {
        match self.connections.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.connections.push(None);
                self.connections.len() - 1
            }
        }
    }
}
