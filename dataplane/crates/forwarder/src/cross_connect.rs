//! The one trait behind which every mechanism stands.

use crate::error::Result;
use crate::user_space::Flows;

/// Packets and bytes that passed one side, seen from the interface: received is what its namespace got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// One end of a connection as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The interface's name.
    pub interface: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Traffic so far.
    pub counters: Counters,
}

/// An open connection between two ports. Dropping it leaves the traffic running; `close` ends it.
pub trait CrossConnect: Send + Sync {
    /// Both ends as the kernel or device sees them now: the client's, then the endpoint's.
    fn sides(&self) -> Result<(Side, Side)>;

    /// What our own threads carried for it, the client's side first; none where the kernel carries.
    fn flows(&self) -> Option<[Flows; 2]> {
        None
    }

    /// Remove everything that was made. Closing what is gone already is success.
    fn close(&self) -> Result<()>;
}
