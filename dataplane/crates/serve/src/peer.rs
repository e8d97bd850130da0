//! Who is at the other end of a connection.

use std::borrow::Cow;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Names one connection of this process; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The next unused id.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The caller of a request, as a server knows it from the connection; cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The one URI of the verified certificate; nothing without TLS, or when the peer is known by DNS names only.
    pub spiffe_id: Option<Arc<str>>,
    /// The DNS names of the verified certificate, in lower case; none when a federated domain's authority wrote them.
    pub dns_names: Arc<[Arc<str>]>,
    /// The verified leaf certificate (DER).
    pub certificate: Option<Arc<[u8]>>,
    /// Whether the TLS session was resumed, the certificate verified again.
    pub resumed: bool,
    /// As grpcio writes it: `ipv4:127.0.0.1:40000`, `ipv6:[::1]:40000` or `unix:`.
    pub address: Arc<str>,
    /// User id of the process that connected (Unix sockets: SO_PEERCRED).
    pub uid: Option<u32>,
    /// Group id of that process.
    pub gid: Option<u32>,
    /// Process id of that process, as seen from this process's PID namespace.
    pub pid: Option<u32>,
    /// The connection's hold on the process that connected (SO_PEERPIDFD), so that a later one with its number can't be
    /// taken for it; nothing when it had ended already. Whoever keeps a peer keeps no descriptor open by it.
    pub pidfd: Option<Weak<OwnedFd>>,
    /// The connection that the request came on.
    pub connection: ConnectionId,
    /// When the connection was made, as far as this side knows: a process that started later can't have made it.
    pub since: Instant,
}

impl Peer {
    /// A peer of which only the address is known, connected now.
    pub(crate) fn at(address: impl Into<Arc<str>>) -> Self {
        Self {
            spiffe_id: None,
            dns_names: Arc::default(),
            certificate: None,
            resumed: false,
            address: address.into(),
            uid: None,
            gid: None,
            pid: None,
            pidfd: None,
            connection: ConnectionId::next(),
            since: Instant::now(),
        }
    }

    /// The name by which logs and refusals call it: the SPIFFE ID, else "dns:host" with its first DNS name, else
    /// "unix:uid=1000", else "anonymous".
    pub fn principal(&self) -> Cow<'_, str> {
        match (&self.spiffe_id, self.dns_names.first(), self.uid) {
            (Some(id), _, _) => Cow::Borrowed(id),
            (None, Some(name), _) => Cow::Owned(format!("dns:{name}")),
            (None, None, Some(uid)) => Cow::Owned(format!("unix:uid={uid}")),
            (None, None, None) => Cow::Borrowed("anonymous"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at {}", self.principal(), self.address)
    }
}
