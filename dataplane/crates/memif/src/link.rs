//! A connected pair of interfaces, as the packets' path sees it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use meshwright_ports::{Burst, DropReason};

use crate::bell::Bell;
use crate::memory::Memory;
use crate::receiver::Receiver;
use crate::ring::Descriptor;
use crate::sender::Sender;

/// The peer broke the rules of a ring: the link is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

/// Buffers of our own: one for each descriptor of a ring, a cache line between one and the next. Were they a power of two
/// apart, the first lines of all of them would compete for a few places in the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    pub(crate) first: u32,
    pub(crate) size: u32,
}

impl Own {
    /// The bytes that one buffer takes.
    #[inline(always)]
    pub(crate) fn stride(size: u32) -> u32 {
        size + 64
    }

    #[inline(always)]
    pub(crate) fn descriptor(&self, slot: usize, length: u32) -> Descriptor {
        Descriptor {
            flags: 0,
            region: 0,
            length,
            offset: self.first + slot as u32 * Self::stride(self.size),
            metadata: 0,
        }
    }
}

/// Rings, memory and bells of one connection to a peer. One thread owns it.
#[derive(Debug)]
pub struct Link {
    receivers: Vec<(Receiver, Option<Bell>)>,
    senders: Vec<Sender>,
    turn: usize,
    broken: Option<&'static str>,
    _memory: Arc<[Memory]>,
}

impl Link {
    pub(crate) fn new(receivers: Vec<(Receiver, Option<Bell>)>, senders: Vec<Sender>, memory: Arc<[Memory]>) -> Self {
        Self {
            receivers,
            senders,
            turn: 0,
            broken: None,
            _memory: memory,
        }
    }

    /// The other side is connected too.
    pub(crate) fn begin(&mut self) {
        for (receiver, _) in &mut self.receivers {
            receiver.begin();
        }
    }

    /// Describe what has come by one of the rings, each in turn.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) {
        if self.broken.is_some() {
            return;
        }
        let rings = self.receivers.len();
        for _ in 0..rings {
            self.turn = if self.turn + 1 >= rings { 0 } else { self.turn + 1 };
            let Some((receiver, _)) = self.receivers.get_mut(self.turn) else {
                return;
            };
            if let Err(Broken(reason)) = receiver.receive(burst) {
                self.broken = Some(reason);
                return;
            }
            burst.queue = self.turn;
            if !burst.is_empty() {
                return;
            }
            receiver.release(); // what came may all have been dropped
        }
    }

    /// Give back what was received last.
    #[inline]
    pub fn release(&mut self) {
        if let Some((receiver, _)) = self.receivers.get_mut(self.turn) {
            receiver.release();
        }
    }

    /// Send a burst; packets of one queue stay in one ring, and so in order.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) {
        let rings = self.senders.len().max(1);
        let ring = burst.queue % rings;
        let (None, Some(sender)) = (self.broken, self.senders.get_mut(ring)) else {
            burst.drop_all(DropReason::Down);
            return;
        };
        if let Err(Broken(reason)) = sender.send(burst) {
            self.broken = Some(reason);
            burst.drop_all(DropReason::Down);
        }
    }

    /// Why the link is over, if the peer broke the rules.
    #[inline]
    pub fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// Whether packets that come shall ring.
    pub fn ask_interrupt(&mut self, wanted: bool) {
        for (receiver, _) in &self.receivers {
            receiver.ask_interrupt(wanted);
        }
    }

    /// Whether every ring has a bell that can ring for it.
    pub fn has_bells(&self) -> bool {
        self.receivers.iter().all(|(_, bell)| bell.is_some())
    }

    /// The bells that ring when packets come.
    pub fn bells(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.receivers
            .iter()
            .filter_map(|(_, bell)| bell.as_ref().map(AsFd::as_fd))
    }

    /// How many rings bring packets, and how many take them.
    pub fn rings(&self) -> (usize, usize) {
        (self.receivers.len(), self.senders.len())
    }
}
