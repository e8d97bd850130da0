//! A ring of descriptors in shared memory.
//!
//! One decision to know: nothing in it is ever a Rust reference. Indexes are atomics, a descriptor is read or written
//! whole and once, because the peer may change it at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::memory::Memory;

const COOKIE: u32 = 0x03E3_1F20;
const MASK_INTERRUPT: u16 = 1;
const FLAGS: usize = 4;
const HEAD: usize = 6;
const TAIL: usize = 64;
const HEADER: usize = 128;

/// The packet goes on in the next descriptor.
pub(crate) const NEXT: u16 = 1;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Descriptor {
    pub(crate) flags: u16,
    pub(crate) region: u16,
    pub(crate) length: u32,
    pub(crate) offset: u32,
    pub(crate) metadata: u32,
}

const _: () = assert!(size_of::<Descriptor>() == 16);

/// One direction of one queue.
#[derive(Debug)]
pub(crate) struct Ring {
    header: *mut u8,
    descriptors: *mut Descriptor,
    mask: u16,
    _memory: Arc<[Memory]>,
}

// SAFETY: a ring points into memory that it holds and that may be used from any thread.
unsafe impl Send for Ring {}

impl Ring {
    /// The bytes that a ring takes.
    pub(crate) fn bytes(log2_size: u8) -> usize {
        HEADER + (size_of::<Descriptor>() << log2_size)
    }

    /// Look at a ring that begins at an offset of a region.
    pub(crate) fn new(memory: Arc<[Memory]>, region: u16, offset: u32, log2_size: u8) -> Result<Self> {
        let span = memory
            .get(usize::from(region))
            .ok_or_else(|| Error::peer(format!("a ring in region {region}, which wasn't handed over")))?;
        let end = (offset as usize).checked_add(Self::bytes(log2_size));
        if end.is_none_or(|end| end > span.length()) || !offset.is_multiple_of(8) {
            return Err(Error::peer(format!(
                "a ring at offset {offset} of a region of {} bytes",
                span.length()
            )));
        }
        // SAFETY: header and descriptors are within the region, as was just computed, and a mapping begins at a page.
        let header = unsafe { span.base().add(offset as usize) };
        Ok(Self {
            header,
            // SAFETY: as above.
            descriptors: unsafe { header.add(HEADER) }.cast(),
            mask: (1 << log2_size) - 1,
            _memory: memory,
        })
    }

    /// Write the header of a ring of our own.
    pub(crate) fn format(&self) {
        self.half(FLAGS).store(MASK_INTERRUPT, Ordering::Relaxed);
        self.half(HEAD).store(0, Ordering::Relaxed);
        self.half(TAIL).store(0, Ordering::Relaxed);
        self.cookie().store(COOKIE, Ordering::Release);
    }

    /// Whether the peer formatted it.
    pub(crate) fn is_formatted(&self) -> bool {
        self.cookie().load(Ordering::Acquire) == COOKIE
    }

    /// How many descriptors it has.
    #[inline(always)]
    pub(crate) fn size(&self) -> u16 {
        self.mask + 1
    }

    #[inline(always)]
    pub(crate) fn head(&self) -> u16 {
        self.half(HEAD).load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn set_head(&self, head: u16) {
        self.half(HEAD).store(head, Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn tail(&self) -> u16 {
        self.half(TAIL).load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn set_tail(&self, tail: u16) {
        self.half(TAIL).store(tail, Ordering::Release);
    }

    /// Whether whoever reads the packets wants to be woken.
    #[inline(always)]
    pub(crate) fn wants_interrupt(&self) -> bool {
        self.half(FLAGS).load(Ordering::Relaxed) & MASK_INTERRUPT == 0
    }

    /// As the reader: ask to be woken, or not.
    pub(crate) fn ask_interrupt(&self, wanted: bool) {
        let flags = if wanted { 0 } else { MASK_INTERRUPT };
        self.half(FLAGS).store(flags, Ordering::SeqCst);
    }

    #[inline(always)]
    pub(crate) fn read(&self, index: u16) -> Descriptor {
        // SAFETY: the mask keeps the index within the ring.
        unsafe { self.descriptors.add(usize::from(index & self.mask)).read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn write(&self, index: u16, descriptor: Descriptor) {
        // SAFETY: the mask keeps the index within the ring.
        unsafe {
            self.descriptors
                .add(usize::from(index & self.mask))
                .write_volatile(descriptor)
        };
    }

    /// The place of an index in the ring.
    #[inline(always)]
    pub(crate) fn slot(&self, index: u16) -> usize {
        usize::from(index & self.mask)
    }

    #[inline(always)]
    fn half(&self, at: usize) -> &AtomicU16 {
        // SAFETY: within the header, at an even address.
        unsafe { AtomicU16::from_ptr(self.header.add(at).cast()) }
    }

    fn cookie(&self) -> &AtomicU32 {
        // SAFETY: the header's first four bytes, at an address that is a multiple of eight.
        unsafe { AtomicU32::from_ptr(self.header.cast()) }
    }
}
