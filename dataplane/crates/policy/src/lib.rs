//! Policy: decides about requests by their attributes, from tables that Python compiled.
//!
//! Pure: no sockets, no runtime, no clock of its own. Whoever calls gives bytes and the time; the same crate can serve
//! behind gRPC or inside a proxy. No input can make it panic: a request is an answer or a `BadRequest`, a policy is
//! taken or `Refused`.
#![forbid(unsafe_code)]

mod bag;
mod cells;
mod check;
pub mod dictionary;
mod dispatch;
mod engine;
mod error;
mod evaluate;
mod expression;
mod functions;
mod hash;
mod list;
mod names;
mod program;
mod references;
mod replicas;
mod report;
mod request;
mod value;
mod wire;

pub use bag::Bag;
pub use cells::{Cells, Charge, Grant};
pub use check::{Charges, Decision, Demand};
pub use engine::Engine;
pub use error::{BadRequest, Refused};
pub use names::Names;
pub use program::Program;
pub use replicas::{Replica, Replicas};
pub use report::{Attributes, Emissions, expand};
pub use request::{CheckRequest, Plan, Planned, settle};
pub use value::{Map, Time, Value};
pub use wire::Malformed;
