//! The packets of one ring that the peer empties.

use std::sync::atomic::{Ordering, fence};

use meshwright_ports::{Burst, DropReason, Piece, Tally, copy};

use crate::bell::Bell;
use crate::link::{Broken, Own};
use crate::memory::Spans;
use crate::ring::{Descriptor, NEXT, Ring};

/// Fills a ring. As a server the buffers are the peer's and are checked, each when it is used.
#[derive(Debug)]
pub(crate) struct Sender {
    ring: Ring,
    spans: Spans,
    bell: Option<Bell>,
    /// Ours as a client.
    own: Option<Own>,
    /// The next descriptor to fill.
    next: u16,
}

struct Buffer {
    data: *mut u8,
    length: u32,
    descriptor: Descriptor,
}

impl Sender {
    /// As a server.
    pub(crate) fn to_client(ring: Ring, spans: Spans, bell: Option<Bell>) -> Self {
        let next = ring.tail();
        Self {
            ring,
            spans,
            bell,
            own: None,
            next,
        }
    }

    /// As a client.
    pub(crate) fn to_server(ring: Ring, spans: Spans, bell: Option<Bell>, own: Own) -> Self {
        Self {
            ring,
            spans,
            bell,
            own: Some(own),
            next: 0,
        }
    }

    /// Send what there are buffers for.
    #[inline]
    pub(crate) fn send(&mut self, burst: &mut Burst) -> Result<(), Broken> {
        let free = if self.own.is_some() {
            let waiting = self.next.wrapping_sub(self.ring.tail());
            self.ring.size().checked_sub(waiting)
        } else {
            let free = self.ring.head().wrapping_sub(self.next);
            (free <= self.ring.size()).then_some(free)
        };
        let Some(mut free) = free else {
            return Err(Broken("an index ran ahead of its ring"));
        };
        let begun = self.next;
        let mut sent = std::mem::take(&mut burst.sent);
        let mut pieces = burst.pieces();
        while let Some((piece, rest)) = pieces.split_first() {
            if free == 0 {
                sent.drop(DropReason::Full, count(pieces));
                break;
            }
            if piece.more == 0 {
                pieces = rest;
                let Some(buffer) = self.buffer(self.next) else {
                    self.skip(&mut free);
                    sent.drop(DropReason::Malformed, 1);
                    continue;
                };
                if piece.length <= buffer.length {
                    // SAFETY: the piece is the receiver's word, the buffer was just looked up.
                    unsafe {
                        copy(
                            piece.data,
                            buffer.data,
                            piece.length as usize,
                            usize::from(piece.spare),
                            buffer.length as usize,
                        );
                    }
                    self.fill(&buffer, piece.length, 0);
                    free -= 1;
                    sent.packets += 1;
                    sent.bytes += u64::from(piece.length);
                    continue;
                }
                self.scatter(std::slice::from_ref(piece), &mut free, &mut sent);
                continue;
            }
            let length = pieces
                .iter()
                .position(|piece| piece.more == 0)
                .map_or(pieces.len(), |last| last + 1);
            let (packet, rest) = pieces.split_at(length);
            pieces = rest;
            self.scatter(packet, &mut free, &mut sent);
        }
        burst.sent = sent;
        if self.next != begun {
            self.publish();
        }
        Ok(())
    }

    /// A packet of several pieces, or one that takes several buffers.
    #[cold]
    fn scatter(&mut self, packet: &[Piece], free: &mut u16, sent: &mut Tally) {
        let begun = self.next;
        let total: u64 = packet.iter().map(|piece| u64::from(piece.length)).sum();
        let mut filled = 0_u32;
        let mut place = self.buffer(begun);
        let mut index = begun;
        let mut reason = None;
        'pieces: for piece in packet {
            let mut at = 0;
            while at < piece.length {
                if index.wrapping_sub(begun) >= *free {
                    reason = Some(DropReason::Full);
                    break 'pieces;
                }
                let Some(buffer) = place.as_ref().filter(|buffer| buffer.length > 0) else {
                    reason = Some(DropReason::Malformed);
                    break 'pieces;
                };
                let part = (piece.length - at).min(buffer.length - filled);
                // SAFETY: the part is within the piece, and within the buffer behind what was filled already.
                unsafe {
                    std::ptr::copy(
                        piece.data.add(at as usize),
                        buffer.data.add(filled as usize),
                        part as usize,
                    );
                }
                at += part;
                filled += part;
                if filled == buffer.length && (at < piece.length || piece.more == 1) {
                    self.write(index, buffer.descriptor, filled, NEXT);
                    index = index.wrapping_add(1);
                    filled = 0;
                    place = self.buffer(index);
                }
            }
        }
        match (reason, place) {
            // Nothing was published: the buffers are as free as before, save for a bad one, which is passed over.
            (Some(DropReason::Malformed), _) | (None, None) => {
                self.skip(free);
                sent.drop(DropReason::Malformed, 1);
            }
            (Some(reason), _) => sent.drop(reason, 1),
            (None, Some(buffer)) => {
                self.write(index, buffer.descriptor, filled, 0);
                self.next = index.wrapping_add(1);
                *free -= self.next.wrapping_sub(begun);
                sent.packets += 1;
                sent.bytes += total;
            }
        }
    }

    /// The buffer at an index: ours as we made it, or what the peer's descriptor says, if that is within its memory.
    #[inline(always)]
    fn buffer(&self, index: u16) -> Option<Buffer> {
        let descriptor = match &self.own {
            Some(own) => own.descriptor(self.ring.slot(index), own.size),
            None => self.ring.read(index),
        };
        let (data, _) = self
            .spans
            .resolve(descriptor.region, descriptor.offset, descriptor.length)?;
        Some(Buffer {
            data,
            length: descriptor.length,
            descriptor,
        })
    }

    #[inline(always)]
    fn fill(&mut self, buffer: &Buffer, length: u32, flags: u16) {
        self.write(self.next, buffer.descriptor, length, flags);
        self.next = self.next.wrapping_add(1);
    }

    #[inline(always)]
    fn write(&self, index: u16, descriptor: Descriptor, length: u32, flags: u16) {
        self.ring.write(
            index,
            Descriptor {
                flags,
                length,
                ..descriptor
            },
        );
    }

    /// Pass over a buffer that isn't one: the peer finds it empty.
    #[cold]
    fn skip(&mut self, free: &mut u16) {
        let descriptor = self.ring.read(self.next);
        self.write(self.next, descriptor, 0, 0);
        self.next = self.next.wrapping_add(1);
        *free -= 1;
    }

    fn publish(&mut self) {
        if self.own.is_some() {
            self.ring.set_head(self.next);
        } else {
            self.ring.set_tail(self.next);
        }
        // Either the peer sees these packets before it sleeps, or its wish to be woken is seen here.
        fence(Ordering::SeqCst);
        if self.ring.wants_interrupt()
            && let Some(bell) = &self.bell
        {
            bell.ring();
        }
    }
}

fn count(pieces: &[Piece]) -> u64 {
    pieces.iter().filter(|piece| piece.more == 0).count() as u64
}
