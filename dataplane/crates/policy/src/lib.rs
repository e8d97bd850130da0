//! Policy: decides about requests by their attributes, from tables that Python compiled.
//!
//! Pure: no sockets, no runtime, no clock of its own. Whoever calls gives bytes and the time; the same crate can serve
//! behind gRPC or inside a proxy. No input can make it panic: a request is an answer or a `BadRequest`, a policy is
//! taken or `Refused`.
#![forbid(unsafe_code)]

mod bag;
mod cel;
mod cells;
mod charges;
mod check;
pub mod dictionary;
mod direct;
mod dispatch;
mod element;
mod engine;
mod error;
mod evaluate;
mod explanation;
mod expression;
mod functions;
mod generate;
mod handler;
mod hash;
mod instance;
mod keys;
mod leased;
mod list;
mod names;
mod plain;
mod program;
mod question;
mod references;
mod rendering;
mod replicas;
mod report;
mod request;
mod rule;
mod sampling;
mod seen;
mod spelling;
mod value;
pub mod wire;

pub use bag::Bag;
pub use cells::{Cells, Charge, Grant};
pub use charges::{Charges, Demand, Settled, Trial as ChargeTrial};
pub use check::{Deciding, Decision, Trial};
pub use direct::{DirectResponse, http_code};
pub use element::{MAX_ELEMENT, Report, Vocabulary, expand_element};
pub use engine::Engine;
pub use error::{BadRequest, Refused};
pub use explanation::{Acted, Explanation, Read, Tried, Verdict};
pub use generate::{Generated, Generating};
pub use leased::{Lease, Patience, Used, Want};
pub use names::Names;
pub use program::Program;
pub use question::{Answer, Asked, Failed, Host, Question, Reply, Subject, Variety, Wanted, answer};
pub use references::References;
pub use replicas::{Replica, Replicas};
pub use report::{Attributes, Dictionary, Evaluated, ReportHandler, ReportInstance, attribute_value, expand};
pub use request::{CheckRequest, Plan, Planned};
pub use seen::{Seen, seen};
pub use value::{Map, Time, Value};
pub use wire::Malformed;
