//! What a Check costs in the handler, from request bytes to response bytes: about 1 KB of attributes, 100 rules.
//! `cargo run --release -p meshwright-policy --example check_cost`; with a number, so many checks by rules one by one and
//! nothing else, whose instructions `valgrind --tool=callgrind` counts on however busy a machine.

#[path = "../tests/common/mod.rs"]
mod common;
mod workload;

use std::hint::black_box;
use std::time::Instant;

use meshwright_policy::Engine;
use prost::Message;
use workload::{SHAPES, many, policy, requests};

/// Microseconds a check. Short stretches, of which some aren't interrupted on a machine that has other work.
fn best_of(engine: &Engine, bytes: &[u8]) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..900 {
        let began = Instant::now();
        const CALLS: u32 = 200;
        for now in 0..u64::from(CALLS) {
            black_box(engine.check(black_box(bytes), now).expect("an answer"));
        }
        best = best.min(began.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS));
    }
    best
}

/// Checks a second of so many threads together; the best of some stretches.
fn rate(engine: &Engine, bytes: &[u8], threads: u32) -> f64 {
    const CALLS: u64 = 20_000;
    let stretch = || {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for now in 0..CALLS {
                        black_box(engine.check(black_box(bytes), now).expect("an answer"));
                    }
                });
            }
        });
        f64::from(threads) * CALLS as f64 / began.elapsed().as_secs_f64()
    };
    (0..20).map(|_| stretch()).fold(0.0, f64::max)
}

fn main() {
    let (plain, charged) = requests();
    if let Some(count) = std::env::args().nth(1) {
        let engine = Engine::default();
        engine.load(&policy(false).bytes()).expect("a policy");
        let bytes = plain.encode_to_vec();
        for now in 0..count.parse().expect("a number") {
            black_box(engine.check(black_box(&bytes), now).expect("an answer"));
        }
        return;
    }
    for (what, indexed, request) in [
        ("100 rules by host", true, &plain),
        ("100 rules by host, one quota", true, &charged),
        ("100 rules one by one", false, &plain),
    ] {
        let engine = Engine::default();
        engine.load(&policy(indexed).bytes()).expect("a policy");
        let bytes = request.encode_to_vec();
        let best = best_of(&engine, &bytes);
        let scaling = rate(&engine, &bytes, 2) / rate(&engine, &bytes, 1);
        println!(
            "{what}: {best:.2} µs a check of {} bytes; two threads do {scaling:.2} times what one does",
            bytes.len()
        );
    }
    let bytes = plain.encode_to_vec();
    for shape in SHAPES {
        let [few, all] = [10, 10_000].map(|count| {
            let engine = Engine::default();
            engine.load(&many(count, shape).bytes()).expect("a policy");
            best_of(&engine, &bytes)
        });
        println!(
            "rules found by {shape}: {few:.2} µs with 10, {all:.2} µs with 10,000 ({:.2} times)",
            all / few
        );
    }
}
