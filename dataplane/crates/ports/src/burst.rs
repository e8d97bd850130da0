//! A burst: up to 64 pieces of packets, described where they lie.
//!
//! One decision to know: the layout is C's, because a burst passes between shared libraries (`foreign`).

use std::ffi::c_void;

use crate::counters::{DropReason, REASONS};

/// Pieces in a burst; also the most that one packet may consist of.
pub const BURST: usize = 64;

/// A packet, or a part of one, in memory that stays readable until the receiver's `release`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Piece {
    /// Where it lies. Another process may change it meanwhile: copy it, never read it twice.
    pub data: *const u8,
    /// Its length in bytes.
    pub length: u32,
    /// Bytes behind it that may be read as well, which lets small packets be copied in whole chunks.
    pub spare: u16,
    /// 1 when the packet goes on in the next piece.
    pub more: u16,
}

/// What happened to packets in one call.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Tally {
    /// Packets that passed.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that didn't, by [`DropReason`].
    pub drops: [u64; REASONS],
}

impl Tally {
    /// Count packets that were dropped.
    #[inline]
    pub fn drop(&mut self, reason: DropReason, packets: u64) {
        self.drops[reason as usize] += packets;
    }
}

/// Up to [`BURST`] pieces; whole packets only. Between a receiver and a sender of one library it may be *bare*: buffers of one
/// packet each, which nobody has described.
#[derive(Debug)]
#[repr(C)]
pub struct Burst {
    pieces: [Piece; BURST],
    /// The receiver's buffers, one for each piece, if [`Burst::origin`] says whose they are.
    handles: [*mut c_void; BURST],
    length: u32,
    /// How many of the handles there are.
    buffers: u32,
    /// How many buffers, from the first on, a sender has taken over.
    pub taken: u32,
    /// The receive queue that the packets came by; a sender with several queues keeps packets of one in one.
    pub queue: usize,
    /// Set before `receive`: what the sender's `takes_over` says. A receiver that finds its own mark here may leave the burst
    /// bare, as the sender will look at the buffers alone.
    pub taker: usize,
    /// Who can take buffers over instead of copying: a sender that finds its own mark here. 0: nobody.
    pub origin: usize,
    /// Set by `receive`.
    pub received: Tally,
    /// Set by `send`.
    pub sent: Tally,
}

// SAFETY: a burst is a description; what its pointers point to is used only between a port's `receive` and `release`,
// which the thread that owns the port calls.
unsafe impl Send for Burst {}

impl Burst {
    /// An empty one.
    pub fn new() -> Self {
        let nothing = Piece {
            data: std::ptr::null(),
            length: 0,
            spare: 0,
            more: 0,
        };
        Self {
            pieces: [nothing; BURST],
            handles: [std::ptr::null_mut(); BURST],
            length: 0,
            buffers: 0,
            taken: 0,
            queue: 0,
            taker: 0,
            origin: 0,
            received: Tally::default(),
            sent: Tally::default(),
        }
    }

    /// Begin anew, for a sender that takes over the buffers of `taker`.
    #[inline]
    pub fn clear(&mut self, taker: usize) {
        self.length = 0;
        self.buffers = 0;
        self.taken = 0;
        self.queue = 0;
        self.taker = taker;
        self.origin = 0;
        self.received = Tally::default();
        self.sent = Tally::default();
    }

    /// The pieces, packet after packet; none of a bare burst.
    #[inline]
    pub fn pieces(&self) -> &[Piece] {
        // A foreign library wrote the length: it is cut here, once a burst.
        &self.pieces[..(self.length as usize).min(BURST)]
    }

    /// The buffers that no sender has taken over.
    #[inline]
    pub fn handles_mut(&mut self) -> &mut [*mut c_void] {
        let buffers = (self.buffers as usize).min(BURST);
        &mut self.handles[(self.taken as usize).min(buffers)..buffers]
    }

    /// Whether there is nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == 0 && self.buffers == 0
    }

    /// How many pieces fit in still.
    #[inline]
    pub fn room(&self) -> usize {
        BURST.saturating_sub(self.length as usize)
    }

    /// Add a piece. The caller has looked at [`Burst::room`]; without room nothing happens.
    #[inline]
    pub fn push(&mut self, piece: Piece) {
        if let Some(place) = self.pieces.get_mut(self.length as usize) {
            *place = piece;
            self.length += 1;
        }
    }

    /// The places for all pieces and buffers, for a receiver in another language; it says how many it filled by
    /// [`Burst::fill`] or [`Burst::fill_bare`].
    #[inline]
    pub fn whole(&mut self) -> (&mut [Piece; BURST], &mut [*mut c_void; BURST]) {
        (&mut self.pieces, &mut self.handles)
    }

    /// So many pieces are there, a buffer each.
    #[inline]
    pub fn fill(&mut self, length: usize) {
        self.length = length.min(BURST) as u32;
        self.buffers = self.length;
    }

    /// So many buffers are there, a packet each, and no pieces: for a [`Burst::taker`] of the same mark.
    #[inline]
    pub fn fill_bare(&mut self, buffers: usize) {
        self.length = 0;
        self.buffers = buffers.min(BURST) as u32;
    }

    /// Forget the pieces from this one on: a packet that turned out to be none.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length as u32);
    }

    /// Count every packet as dropped.
    pub fn drop_all(&mut self, reason: DropReason) {
        let packets = self.pieces().iter().filter(|piece| piece.more == 0).count();
        self.sent.drop(reason, packets as u64);
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}
