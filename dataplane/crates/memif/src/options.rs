//! How an interface presents itself.

use crate::error::{Error, Result};

/// The largest ring, as the protocol has it.
pub(crate) const LOG2_RING_MAX: u8 = 14;
/// Ring pairs that one interface may have here.
pub(crate) const QUEUES_MAX: u16 = 8;
/// Regions that a client may hand over.
pub(crate) const REGIONS_MAX: u16 = 16;

/// What the packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Ethernet frames.
    Ethernet = 0,
    /// IP packets without a link layer.
    Ip = 1,
}

/// Shown to the peer, which may have one of its own; never printed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Secret([u8; 24]);

impl Secret {
    /// Take up to 24 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut secret = [0; 24];
        let place = secret.get_mut(..bytes.len()).ok_or(Error::Invalid {
            field: "secret",
            reason: format!("{} bytes, 24 at most", bytes.len()),
        })?;
        place.copy_from_slice(bytes);
        Ok(Self(secret))
    }

    pub(crate) fn bytes(&self) -> &[u8; 24] {
        &self.0
    }

    /// Compare in a time that doesn't tell where they differ.
    pub(crate) fn fits(&self, shown: &[u8; 24]) -> bool {
        self.0
            .iter()
            .zip(shown)
            .fold(0, |bits, (one, other)| bits | (one ^ other))
            == 0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// An interface's options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The interface's number on its socket.
    pub id: u32,
    /// The name that the peer sees, 31 bytes at most.
    pub name: String,
    /// What the packets are; both sides must agree.
    pub mode: Mode,
    /// What a client shows and a server wants.
    pub secret: Secret,
    /// Ring pairs: as a client as many as the server takes, as a server what is offered; one more is taken.
    pub queues: u16,
    /// As a client: descriptors in each ring, as a power of two.
    pub log2_ring: u8,
    /// As a client: bytes in each buffer; a longer packet is a chain of them.
    pub buffer: u32,
    /// As a server: the most memory, in bytes, that a client may hand over.
    pub memory_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            id: 0,
            name: "meshwright".to_owned(),
            mode: Mode::Ethernet,
            secret: Secret::default(),
            queues: 1,
            log2_ring: 10,
            buffer: 2048,
            memory_max: 256 << 20,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |field, reason: String| Err(Error::Invalid { field, reason });
        if self.name.len() > 31 {
            return bad("name", format!("{} bytes, 31 at most", self.name.len()));
        }
        if !(1..=QUEUES_MAX).contains(&self.queues) {
            return bad("queues", format!("{}, 1 to {QUEUES_MAX} are possible", self.queues));
        }
        if !(1..=LOG2_RING_MAX).contains(&self.log2_ring) {
            return bad(
                "log2_ring",
                format!("{}, 1 to {LOG2_RING_MAX} are possible", self.log2_ring),
            );
        }
        // A multiple of a cache line, so that no two buffers share one.
        if !(64..=65_536).contains(&self.buffer) || !self.buffer.is_multiple_of(64) {
            return bad(
                "buffer",
                format!("{} isn't a multiple of 64 from 64 to 65536", self.buffer),
            );
        }
        Ok(())
    }
}
