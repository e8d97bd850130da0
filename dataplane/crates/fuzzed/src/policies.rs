//! The policy engine: compiled policies, and the requests that it decides.

use std::sync::LazyLock;

use meshwright_api::istio::mixer::v1::ReportRequest;
use meshwright_policy::{Engine, Program, expand};
use prost::Message;

use crate::everything;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let engine = Engine::default();
    engine.load(&everything::everything().bytes()).expect("a policy");
    engine
});

static PROGRAM: LazyLock<Program> =
    LazyLock::new(|| Program::load(&everything::everything().bytes()).expect("a policy"));

/// Any bytes as a CheckRequest, against a policy that reads every type and uses every operation.
pub fn check(bytes: &[u8]) {
    let _ = ENGINE.check(bytes, bytes.len() as u64);
}

/// Any bytes as a compiled policy; one that is taken must answer.
pub fn policy(bytes: &[u8]) {
    let engine = Engine::default();
    if engine.load(bytes).is_ok() {
        let _ = engine.check(&[], 0);
        let _ = engine.program().report(&Default::default());
    }
}

/// Any bytes as a ReportRequest.
pub fn report(bytes: &[u8]) {
    let Ok(request) = ReportRequest::decode(bytes) else {
        return;
    };
    for attributes in expand(&request).into_iter().flatten() {
        let _ = PROGRAM.report(&attributes);
    }
}
