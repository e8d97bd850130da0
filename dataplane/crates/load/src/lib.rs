//! An open-loop load generator for HTTP/1.1 and gRPC.
//!
//! Requests are due by a schedule that nothing a server does can slow down, and a latency counts from the moment its
//! request was due: a server that stalls for a second has made everybody wait who would have asked in that second. A
//! schedule's rate of 0 means the other thing, a closed loop: each connection asks again as soon as it has its answer.
//!
//! Nothing is queued: connections take what is due from the schedule when they are free, so a late server costs no
//! memory. What nobody had time to send before the end is counted ([`Report::unsent`]).

mod connection;
pub mod error;
mod gate;
pub mod plan;
mod run;
pub mod schedule;
mod shard;
pub mod tally;
mod timer;

pub use error::Error;
pub use plan::{Address, Plan, Protocol, Security};
pub use run::{Progress, run};
pub use schedule::Arrivals;
pub use tally::Report;
