//! Shared memory: our own, and a peer's.
//!
//! One decision to know: a peer's memory is taken only as a memfd of ordinary pages that is sealed against shrinking (it is
//! sealed here where the peer forgot). Anything else (a file, huge pages, whose holes may not be filled again) could make
//! an access end this process with SIGBUS.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use crate::error::{Error, Result};

/// A mapping that stays whole for as long as the value lives.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    length: usize,
    descriptor: OwnedFd,
}

// SAFETY: a mapping belongs to the process, not to a thread; what is in it is read and written through raw pointers only,
// because another process does the same meanwhile.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Make memory to be handed over: full of zeros, its length fixed for good.
    pub fn create(length: usize) -> Result<Self> {
        let descriptor = memfd_create(c"memif", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
            .map_err(|errno| Error::system("make shared memory", errno))?;
        let file = File::from(descriptor);
        file.set_len(length as u64)
            .map_err(|error| Error::system(format!("make shared memory of {length} bytes"), error))?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| Error::system("seal shared memory", errno))?;
        Self::map(file.into(), length)
    }

    /// Take a peer's memory of `length` bytes.
    pub fn take(descriptor: OwnedFd, length: u64) -> Result<Self> {
        let system = |errno: nix::errno::Errno| Error::system("look at the peer's memory", errno);
        if fstatfs(&descriptor).map_err(system)?.filesystem_type() != TMPFS_MAGIC {
            return Err(Error::peer(
                "the peer's memory isn't a memfd of ordinary pages (switch huge pages and zero-copy off there)",
            ));
        }
        let sealed = || fcntl(&descriptor, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
        if !sealed().map_err(system)?.contains(SealFlag::F_SEAL_SHRINK) {
            // Whether that worked is what counts, and is looked at.
            let _ = fcntl(&descriptor, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK));
            if !sealed().map_err(system)?.contains(SealFlag::F_SEAL_SHRINK) {
                return Err(Error::peer(
                    "the peer's memory can be shrunk and can't be sealed against that (F_SEAL_SHRINK)",
                ));
            }
        }
        // Only now, when it can't shrink any more.
        let file = File::from(descriptor);
        let there = file
            .metadata()
            .map_err(|error| Error::system("look at the peer's memory", error))?
            .len();
        if there < length {
            return Err(Error::peer(format!(
                "the peer's memory has {there} bytes, it said {length}"
            )));
        }
        let length =
            usize::try_from(length).map_err(|_| Error::peer("the peer's memory is larger than ours can be"))?;
        Self::map(file.into(), length)
    }

    fn map(descriptor: OwnedFd, length: usize) -> Result<Self> {
        let size = NonZeroUsize::new(length).ok_or_else(|| Error::peer("a region of no bytes"))?;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that is there already.
        let base = unsafe {
            mmap(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &descriptor,
                0,
            )
        }
        .map_err(|errno| Error::system("map shared memory", errno))?;
        // SAFETY: advice on the whole of the new mapping. Where the kernel has no large pages to give, small ones do.
        let _ = unsafe { madvise(base, length, MmapAdvise::MADV_HUGEPAGE) };
        Ok(Self {
            base: base.cast(),
            length,
            descriptor,
        })
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Its first byte.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `map`, and whoever reads it holds this value.
        let _ = unsafe { munmap(self.base.cast(), self.length) };
    }
}

/// Where a region lies: a copy for the packets' path, which holds the regions themselves too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) base: *mut u8,
    pub(crate) length: usize,
}

/// All regions of a link.
#[derive(Debug)]
pub(crate) struct Spans {
    table: [Span; crate::options::REGIONS_MAX as usize],
    _memory: std::sync::Arc<[Memory]>,
}

// SAFETY: spans point into the regions that they hold, which may be used from any thread.
unsafe impl Send for Spans {}

impl Spans {
    pub(crate) fn new(memory: std::sync::Arc<[Memory]>) -> Self {
        let nothing = Span {
            base: NonNull::dangling().as_ptr(),
            length: 0,
        };
        let mut table = [nothing; crate::options::REGIONS_MAX as usize];
        for (span, region) in table.iter_mut().zip(memory.iter()) {
            *span = Span {
                base: region.base(),
                length: region.length(),
            };
        }
        Self { table, _memory: memory }
    }

    /// The address of `length` bytes at an offset of a region, and how many more follow there; none when they aren't all
    /// within it.
    #[inline(always)]
    pub(crate) fn resolve(&self, region: u16, offset: u32, length: u32) -> Option<(*mut u8, usize)> {
        let span = self.table.get(usize::from(region))?;
        let left = span.length.checked_sub(offset as usize)?.checked_sub(length as usize)?;
        // SAFETY: offset and length together are within the region, as was just computed.
        Some((unsafe { span.base.add(offset as usize) }, left))
    }
}
