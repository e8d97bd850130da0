//! What the engine holds: allocated bytes with a policy at rest, and after ten million checks with a quota.
//! `cargo run --release -p meshwright-policy --example memory [CHECKS]`; ends with status 1 when it isn't flat.

#[path = "../tests/common/mod.rs"]
mod common;
mod workload;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshwright_policy::Engine;
use prost::Message;
use workload::{many, policy, requests};

/// At rest, with a hundred rules.
const MOST_AT_REST: usize = 10 << 20;
/// What checks may leave behind: quota cells come and go.
const MOST_GROWTH: usize = 64 << 10;
/// Nanoseconds between two checks.
const STEP: u64 = 10_000;

/// Counts what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above, and so from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// What an engine with this policy holds.
fn at_rest(policy: &[u8]) -> (Engine, usize) {
    let before = held();
    let engine = Engine::default();
    engine.load(policy).expect("a policy");
    let holds = held() - before;
    (engine, holds)
}

fn main() -> ExitCode {
    let checks: u64 = std::env::args()
        .nth(1)
        .map_or(10_000_000, |text| text.parse().expect("a number"));
    let policies = [policy(true).bytes(), many(10_000, "an equality").bytes()];
    let (_, large) = at_rest(&policies[1]);
    println!("10,000 rules: {:.2} MiB", large as f64 / f64::from(1 << 20));
    let (engine, rest) = at_rest(&policies[0]);
    println!("100 rules: {:.2} MiB", rest as f64 / f64::from(1 << 20));
    let request = requests().1.encode_to_vec();
    let mut samples = Vec::new();
    for number in 0..checks {
        black_box(engine.check(black_box(&request), number * STEP).expect("an answer"));
        if (number + 1) % (checks / 10).max(1) == 0 {
            samples.push(held());
            println!(
                "{:>12} checks: {:.3} MiB in all",
                number + 1,
                held() as f64 / f64::from(1 << 20)
            );
        }
    }
    let growth = samples[samples.len() - 1].saturating_sub(samples[0]);
    if rest > MOST_AT_REST || growth > MOST_GROWTH {
        eprintln!("at rest {rest} bytes of at most {MOST_AT_REST}, growth {growth} of at most {MOST_GROWTH}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
