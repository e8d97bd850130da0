//! Any bytes as a compiled policy; one that is taken must answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshwright_policy::Engine;

fuzz_target!(|bytes: &[u8]| {
    let engine = Engine::default();
    if engine.load(bytes).is_ok() {
        let _ = engine.check(&[], 0);
        let _ = engine.program().report(&Default::default());
    }
});
