//! What passed a port, and what didn't and why.
//!
//! One decision to know: one thread writes, once a burst, by plain stores; anybody reads. Nothing is paid a packet.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::burst::Tally;

/// How many reasons there are.
pub(crate) const REASONS: usize = 5;

/// Why a packet didn't pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// A descriptor points outside the memory that was handed over.
    Malformed = 0,
    /// The packet has more pieces, or is longer, than the other side takes.
    TooLong = 1,
    /// The receiver's queue is full.
    Full = 2,
    /// Nobody is connected on the other side.
    Down = 3,
    /// The device refused it.
    Refused = 4,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; REASONS] = [Self::Malformed, Self::TooLong, Self::Full, Self::Down, Self::Refused];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Full => "full",
            Self::Down => "down",
            Self::Refused => "refused",
        }
    }
}

/// One direction of one port. Own cache lines, so that a reader doesn't slow the writer of another.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Direction {
    packets: AtomicU64,
    bytes: AtomicU64,
    drops: [AtomicU64; REASONS],
}

/// A direction's figures at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Packets that passed.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that didn't, by [`DropReason`].
    pub drops: [u64; REASONS],
}

impl Direction {
    #[inline]
    pub(crate) fn add(&self, tally: &Tally) {
        if tally.packets > 0 {
            raise(&self.packets, tally.packets);
            raise(&self.bytes, tally.bytes);
        }
        for (counter, dropped) in self.drops.iter().zip(tally.drops) {
            if dropped > 0 {
                raise(counter, dropped);
            }
        }
    }

    /// The figures now.
    pub fn read(&self) -> Flow {
        Flow {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            drops: std::array::from_fn(|reason| self.drops[reason].load(Relaxed)),
        }
    }
}

#[inline]
fn raise(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed); // one writer
}

/// Both directions of a port, seen from the forwarder.
#[derive(Debug, Default)]
pub struct Counters {
    /// What came from the port's peer.
    pub received: Direction,
    /// What went to it.
    pub sent: Direction,
}
