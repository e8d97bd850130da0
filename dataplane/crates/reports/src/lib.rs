//! The way of a report: from mixer's front into a queue, out of it to the adapters, and only then forgotten.
//!
//! The front stores what was reported as it came, and a caller hears OK when the queue (a JetStream stream, or memory
//! for a mixer that runs alone) has it. Behind the queue rules are evaluated, native adapters run here, and Python's get
//! their part of a batch by [`Handover`]; a message is acknowledged when every handler took it.

mod batch;
mod counters;
mod handover;
mod health;
mod jetstream;
mod memory;
mod outbox;
mod pipeline;
mod prometheus;
mod queue;
mod record;
mod rest;
mod settling;
mod sinks;
mod stdio;
mod trace;
mod worker;

pub use batch::{Origin, TooLarge, elements, records};
pub use counters::{Counters, SinkCounts};
pub use handover::{Handover, Task};
pub use jetstream::Nats;
pub use outbox::{Full, Outbox, Stored};
pub use pipeline::{Pipeline, Rules, Settings};
pub use trace::Trace;
