//! Where a memif socket is.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};

use crate::error::{Error, Result};

/// A socket's address.
#[derive(Debug)]
pub enum Address {
    /// A file.
    Path(PathBuf),
    /// A socket's file, open with `O_PATH`: nobody can put another in its place.
    File(OwnedFd),
    /// A name in a network namespace; none is the process's own.
    Abstract {
        /// The name, without the zero in front.
        name: Vec<u8>,
        /// The namespace.
        namespace: Option<OwnedFd>,
    },
}

impl Address {
    pub(crate) fn unix(&self) -> Result<UnixAddr> {
        let address = match self {
            Self::Path(path) => UnixAddr::new(path),
            Self::File(file) => UnixAddr::new(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str()),
            Self::Abstract { name, .. } => UnixAddr::new_abstract(name),
        };
        address.map_err(|errno| Error::Invalid {
            field: "socket",
            reason: format!("{self:?}: {errno}: a name has 107 bytes at most"),
        })
    }

    /// A socket that can be bound or connected to the address.
    pub(crate) fn socket(&self) -> Result<OwnedFd> {
        let make = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
                .map_err(|errno| Error::system("make a socket", errno))
        };
        let Self::Abstract {
            namespace: Some(namespace),
            ..
        } = self
        else {
            return make();
        };
        // A socket stays in the namespace that its thread was in when it was made; this thread ends there.
        std::thread::scope(|scope| {
            let inside = || {
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| Error::system("enter a network namespace", errno))?;
                make()
            };
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, inside);
            let thread = thread.map_err(|error| Error::system("start a thread", error))?;
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::peer("the thread that made a socket panicked")))
        })
    }
}
