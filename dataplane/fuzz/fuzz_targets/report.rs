//! Any bytes as a ReportRequest.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use meshwright_api::istio::mixer::v1::ReportRequest;
use meshwright_policy::{Program, expand};
use prost::Message;

#[path = "../../crates/policy/tests/common/mod.rs"]
mod common;
#[path = "../../crates/policy/tests/common/everything.rs"]
mod everything;

static PROGRAM: LazyLock<Program> =
    LazyLock::new(|| Program::load(&everything::everything().bytes()).expect("a policy"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = ReportRequest::decode(bytes) else { return };
    for attributes in expand(&request).into_iter().flatten() {
        let _ = PROGRAM.report(&attributes);
    }
});
