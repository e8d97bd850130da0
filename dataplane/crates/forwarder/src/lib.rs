//! The packet forwarder: cross-connects between a client's port and an endpoint's port.
//!
//! One decision to know: where the kernel forwards best (two namespaces on one machine) the kernel does it, and traffic
//! survives this process. Ports are network namespaces given as descriptors; nobody names a path or a process.
//!
//! ```text
//! Forwarder ── table of connections ── CrossConnect (trait)
//!                                       ├── veth        a pair of interfaces, one in each namespace
//!                                       └── user space  our own threads, between TAP, memif and others' ports
//! sriov::Pool ── functions of network cards, given to connections as interfaces or to user space
//! ```
#![deny(unsafe_code)]

mod cross_connect;
mod error;
mod forwarder;
mod interface;
mod namespace;
mod port;
pub mod sriov;
mod tap;
mod user_space;
mod veth;

pub use cross_connect::{Counters, CrossConnect, Side};
pub use error::{Error, Result};
pub use forwarder::{Connected, Forwarder};
pub use meshwright_memif::{Address, Mode};
pub use meshwright_ports::{DropReason, Flow, Settings, foreign};
pub use namespace::Namespace;
pub use port::{KernelPort, Neighbor, Route};
pub use user_space::{Flows, Memif, UserPort};
