//! What is counted, timed, traced and logged of calls.

pub mod access_log;
pub mod conventions;
pub mod meter;
pub(crate) mod queue;
pub mod span;
pub(crate) mod stats;
pub mod tally;
