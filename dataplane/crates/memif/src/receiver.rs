//! The packets of one ring that the peer fills.

use meshwright_ports::{Burst, DropReason, Piece};

use crate::link::{Broken, Own};
use crate::memory::Spans;
use crate::ring::{Descriptor, NEXT, Ring};

/// How far behind a piece is looked at before it counts as plenty.
const SPARE: usize = 64;

/// Reads a ring. The peer writes all of it, so every index and descriptor is checked.
#[derive(Debug)]
pub(crate) struct Receiver {
    ring: Ring,
    spans: Spans,
    /// Ours as a client: the buffers that are given back.
    own: Option<Own>,
    /// The first descriptor that wasn't received yet.
    next: u16,
    /// As a client: up to here buffers were given to the server.
    given: u16,
    /// Up to here descriptors were received and not given back.
    taken: u16,
}

impl Receiver {
    /// As a server.
    pub(crate) fn of_client(ring: Ring, spans: Spans) -> Self {
        let next = ring.tail();
        Self {
            ring,
            spans,
            own: None,
            next,
            given: 0,
            taken: next,
        }
    }

    /// As a client; the server has no buffers until [`Receiver::begin`].
    pub(crate) fn of_server(ring: Ring, spans: Spans, own: Own) -> Self {
        Self {
            ring,
            spans,
            own: Some(own),
            next: 0,
            given: 0,
            taken: 0,
        }
    }

    /// As a client: give all buffers to the server, once it is connected. DPDK's sets the indexes to zero when it connects,
    /// and would have none of what it was given before.
    pub(crate) fn begin(&mut self) {
        let Some(own) = &self.own else {
            return;
        };
        let size = self.ring.size();
        for index in 0..size {
            self.ring.write(index, own.descriptor(self.ring.slot(index), own.size));
        }
        self.given = size;
        self.ring.set_head(size);
    }

    /// Describe what has come.
    #[inline]
    pub(crate) fn receive(&mut self, burst: &mut Burst) -> Result<(), Broken> {
        let published = if self.own.is_some() {
            self.ring.tail()
        } else {
            self.ring.head()
        };
        let ready = published.wrapping_sub(self.next);
        if ready == 0 {
            return Ok(());
        }
        let most = match self.own {
            Some(_) => self.given.wrapping_sub(self.next), // no more than it was given
            None => self.ring.size(),
        };
        if ready > most {
            return Err(Broken("an index ran ahead of its ring"));
        }
        let mut left = ready;
        let mut index = self.next;
        while left > 0 && burst.room() > 0 {
            let descriptor = self.ring.read(index);
            if descriptor.flags & NEXT != 0 {
                let Some(used) = self.chain(index, left, ready, burst) else {
                    break;
                };
                index = index.wrapping_add(used);
                left -= used;
                continue;
            }
            match self.piece(descriptor) {
                Some(piece) => {
                    prefetch(piece.data);
                    burst.push(piece);
                    burst.received.packets += 1;
                    burst.received.bytes += u64::from(piece.length);
                }
                None => burst.received.drop(DropReason::Malformed, 1),
            }
            index = index.wrapping_add(1);
            left -= 1;
        }
        self.taken = index;
        Ok(())
    }

    /// A packet in several buffers; return how many, or none when it isn't all here, or not in this burst any more.
    #[cold]
    fn chain(&self, first: u16, left: u16, ready: u16, burst: &mut Burst) -> Option<u16> {
        let begun = burst.pieces().len();
        let (mut used, mut bytes, mut bad) = (0_u16, 0_u64, None);
        loop {
            if used == left {
                burst.truncate(begun);
                // A chain that fills the ring never ends: it is dropped, or nothing would ever come through again.
                if left == ready && ready == self.ring.size() {
                    burst.received.drop(DropReason::TooLong, 1);
                    return Some(used);
                }
                return None;
            }
            let descriptor = self.ring.read(first.wrapping_add(used));
            used += 1;
            let last = descriptor.flags & NEXT == 0;
            match self.piece(descriptor) {
                _ if bad.is_some() => {}
                None => bad = Some(DropReason::Malformed),
                Some(mut piece) if burst.room() > 0 => {
                    piece.more = u16::from(!last);
                    bytes += u64::from(piece.length);
                    burst.push(piece);
                }
                Some(_) if begun > 0 => {
                    burst.truncate(begun); // the next burst has room for it
                    return None;
                }
                Some(_) => bad = Some(DropReason::TooLong),
            }
            if last {
                match bad {
                    None => {
                        burst.received.packets += 1;
                        burst.received.bytes += bytes;
                    }
                    Some(reason) => {
                        burst.truncate(begun);
                        burst.received.drop(reason, 1);
                    }
                }
                return Some(used);
            }
        }
    }

    #[inline(always)]
    fn piece(&self, descriptor: Descriptor) -> Option<Piece> {
        let (data, behind) = self
            .spans
            .resolve(descriptor.region, descriptor.offset, descriptor.length)?;
        Some(Piece {
            data,
            length: descriptor.length,
            spare: behind.min(SPARE) as u16,
            more: 0,
        })
    }

    /// Give the buffers of what was received back.
    #[inline]
    pub(crate) fn release(&mut self) {
        let count = self.taken.wrapping_sub(self.next);
        if count == 0 {
            return;
        }
        if let Some(own) = &self.own {
            for number in 0..count {
                let index = self.given.wrapping_add(number);
                self.ring.write(index, own.descriptor(self.ring.slot(index), own.size));
            }
            self.given = self.given.wrapping_add(count);
            self.ring.set_head(self.given);
        } else {
            self.ring.set_tail(self.taken);
        }
        self.next = self.taken;
    }

    /// Whether packets shall ring.
    pub(crate) fn ask_interrupt(&self, wanted: bool) {
        self.ring.ask_interrupt(wanted);
    }
}

/// A packet's first bytes are in memory that another core wrote: they are on their way while the rest is described.
#[inline(always)]
fn prefetch(data: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that faults on no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(data.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}
