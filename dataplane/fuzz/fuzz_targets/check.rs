//! Any bytes as a CheckRequest, against a policy that reads every type and uses every operation.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use meshwright_policy::Engine;

#[path = "../../crates/policy/tests/common/mod.rs"]
mod common;
#[path = "../../crates/policy/tests/common/everything.rs"]
mod everything;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let engine = Engine::default();
    engine.load(&everything::everything().bytes()).expect("a policy");
    engine
});

fuzz_target!(|bytes: &[u8]| {
    let _ = ENGINE.check(bytes, bytes.len() as u64);
});
