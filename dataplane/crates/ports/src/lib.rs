//! Packets in user space: what a port is, and the threads that carry packets from port to port.
//!
//! One decision to know: a port moves *bursts*. One virtual call moves up to 64 packets, so that memif, a TAP device, DPDK
//! (which comes as another shared library, see [`foreign`]) stand behind one trait at no cost a packet. The receiver
//! describes packets where they lie; the sender copies them once, straight to where they go.
//!
//! ```text
//! Workers ── one thread a core ── Pair ── Port (trait) ── memif, TAP, …, Foreign
//!                                  └ Counters: packets, bytes, drops by reason, for each direction
//! ```

mod burst;
mod copy;
mod counters;
mod error;
pub mod foreign;
mod pair;
mod port;
mod waker;
mod worker;
mod workers;

pub use burst::{BURST, Burst, Piece, Tally};
pub use copy::copy;
pub use counters::{Counters, Direction, DropReason, Flow};
pub use error::{Error, Result};
pub use pair::Pair;
pub use port::{Port, Watch};
pub use waker::Waker;
pub use workers::{Settings, Workers};
