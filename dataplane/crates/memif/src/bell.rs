//! The descriptor that wakes a ring's reader.
//!
//! One decision to know: it is shared with the peer, flags and all, so it is never read (epoll tells each ring of the bell
//! by an edge), and one from a peer is taken only if it is an eventfd that doesn't block.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Result};

/// An eventfd.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> Result<Self> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map(|event| Self(event.into()))
            .map_err(|errno| Error::system("make an event descriptor", errno))
    }

    /// Take a peer's.
    pub(crate) fn take(descriptor: OwnedFd) -> Result<Self> {
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let kind = std::fs::read_link(link).map_err(|error| Error::system("look at the peer's descriptor", error))?;
        if kind.to_string_lossy() != "anon_inode:[eventfd]" {
            return Err(Error::peer("the descriptor beside a ring isn't an eventfd"));
        }
        let system = |errno: nix::errno::Errno| Error::system("set up the peer's eventfd", errno);
        let flags = OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL).map_err(system)?);
        fcntl(&descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(system)?;
        Ok(Self(descriptor))
    }

    /// Wake the reader.
    #[cold]
    pub(crate) fn ring(&self) {
        // A full counter means that it was rung and not heard yet.
        let _ = nix::unistd::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
