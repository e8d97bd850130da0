//! memif 2.0: packets between processes over shared memory, as libmemif, VPP and DPDK's `net_memif` speak it.
//!
//! One decision to know: the peer is hostile. Its memory is taken only when it can't shrink any more, every index,
//! descriptor and length that it writes is read once and checked, and what breaks the rules ends the link, not the process.
//!
//! ```text
//! Agent ── one thread for all sockets ── Conversation (no I/O: bytes and descriptors in, answers and a Link out)
//!   └ MemifPort ── what a worker owns: the Link of the moment ── Receiver, Sender ── Ring ── Memory
//! ```
//!
//! The side that owns the memory is the *client* (formerly "slave"); the other one, which owns the socket, the *server*.

mod address;
mod agent;
mod bell;
mod client;
mod error;
mod link;
mod memory;
mod message;
mod options;
mod port;
mod receiver;
mod ring;
mod sender;
mod server;
mod socket;

pub use address::Address;
pub use agent::Agent;
pub use client::{Client, Said};
pub use error::{Error, Result};
pub use link::Link;
pub use memory::Memory;
pub use message::{MESSAGE, Message};
pub use options::{Mode, Options, Secret};
pub use port::{MemifPort, State, Status};
pub use server::{Answer, Server};
