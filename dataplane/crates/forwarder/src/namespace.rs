//! Work inside another network namespace.
//!
//! One decision to know: a thread's network namespace can't be left safely once work may be pending in it, so each piece
//! of work gets a thread of its own that enters, works and ends.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;

use crate::error::{Error, Result};

/// A whole piece of work (a dozen netlink requests) takes milliseconds; later than this the kernel is stuck.
const DEADLINE: Duration = Duration::from_secs(5);

/// A network namespace, held by a descriptor for as long as the value lives.
#[derive(Debug, Clone)]
pub struct Namespace {
    descriptor: Arc<OwnedFd>,
    identity: (u64, u64),
}

impl Namespace {
    /// Take a descriptor of a network namespace (as opened from `/proc/…/ns/net`, or received over a socket).
    pub fn new(descriptor: OwnedFd) -> Result<Self> {
        let file = File::from(descriptor);
        let look = |file: &File| {
            file.metadata()
                .map_err(|error| Error::kernel("look at a namespace's descriptor", error))
        };
        let metadata = look(&file)?;
        // All namespaces are files of one kernel-internal file system; which kind this one is, `setns` checks.
        if metadata.dev() != look(&open_own()?)?.dev() {
            return Err(Error::invalid(
                "namespace",
                "the descriptor is of something else than a network namespace",
            ));
        }
        Ok(Self {
            identity: (metadata.dev(), metadata.ino()),
            descriptor: Arc::new(OwnedFd::from(file)),
        })
    }

    /// The namespace that the calling thread is in.
    pub fn current() -> Result<Self> {
        Self::new(open_own()?.into())
    }

    /// Device and inode number: what makes two descriptors the same namespace.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Enter the namespace on a new thread, open netlink there and run `work` to its end.
    pub(crate) fn run<T, F, W>(&self, work: W) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>>,
        W: FnOnce(Handle) -> F + Send,
    {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || self.enter_and_run(work))
                .map_err(|error| Error::kernel("start a thread", error))?;
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::kernel("work in a namespace", "the thread panicked")))
        })
    }

    fn enter_and_run<T, F, W>(&self, work: W) -> Result<T>
    where
        F: Future<Output = Result<T>>,
        W: FnOnce(Handle) -> F,
    {
        setns(self.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|error| Error::kernel("enter a network namespace", io::Error::from(error)))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::kernel("start a runtime", error))?;
        runtime.block_on(async {
            let (connection, handle, _) =
                rtnetlink::new_connection().map_err(|error| Error::kernel("open netlink", error))?;
            let pump = tokio::spawn(connection);
            let result = tokio::time::timeout(DEADLINE, work(handle)).await.unwrap_or_else(|_| {
                Err(Error::kernel(
                    "work in a namespace",
                    format!("no end after {DEADLINE:?}"),
                ))
            });
            pump.abort();
            result
        })
    }
}

fn open_own() -> Result<File> {
    File::open("/proc/thread-self/ns/net").map_err(|error| Error::kernel("open own namespace", error))
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
