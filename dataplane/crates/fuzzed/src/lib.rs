//! What is fuzzed: one function a target, which takes any bytes and panics when a promise is broken.
//!
//! cargo-fuzz runs them on a nightly compiler (`dataplane/fuzz`); `tests/corpus.rs` runs the corpora that are kept there
//! through them with every ordinary `cargo test`.

mod certificate;
mod connection;
mod descriptors;
mod flood;
mod frames;
mod headers;
mod input;
mod memif;
mod names;
mod policies;
mod proxies;
mod rig;
mod tls;

// The policy that the tests of crate `policy` use.
#[path = "../../policy/tests/common/mod.rs"]
mod common;
#[path = "../../policy/tests/common/everything.rs"]
mod everything;

pub use certificate::certificate;
pub use connection::connection;
pub use descriptors::descriptors;
pub use flood::flood;
pub use frames::frames;
pub use headers::headers;
pub use memif::{memif_ring, memif_talk};
pub use names::names;
pub use policies::{check, policy, report};
pub use proxies::{access_log, authorization, otlp, rate_limit};
pub use tls::tls;

/// A target: any bytes.
pub type Target = fn(&[u8]);

/// All targets by name, which is also that of the corpus's folder.
pub const TARGETS: [(&str, Target); 17] = [
    ("access_log", access_log),
    ("authorization", authorization),
    ("certificate", certificate),
    ("check", check),
    ("connection", connection),
    ("descriptors", descriptors),
    ("flood", flood),
    ("frames", frames),
    ("headers", headers),
    ("memif_ring", memif_ring),
    ("memif_talk", memif_talk),
    ("names", names),
    ("otlp", otlp),
    ("policy", policy),
    ("rate_limit", rate_limit),
    ("report", report),
    ("tls", tls),
];
