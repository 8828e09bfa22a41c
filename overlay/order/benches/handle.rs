//! What one input costs the machine: `cargo bench -p wattle-order`.
//!
//! A run of four validators under load is recorded and played again to one of them. Signing is part of `handle`, so
//! inputs in which it signs are counted apart; the goal is 5 us in the median without.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark ends where something is not as it must be"
)]
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "it measures time")]
#![expect(clippy::print_stdout, reason = "its result")]
#![expect(dead_code, reason = "the simulation has more than is measured here")]

#[path = "../tests/simulated/asks.rs"]
mod asks;
#[path = "../tests/simulated/carry.rs"]
mod carry;
#[path = "../tests/simulated/judge.rs"]
mod judge;
#[path = "../tests/simulated/liars.rs"]
mod liars;
#[path = "../tests/simulated/ranges.rs"]
mod ranges;
#[path = "../tests/simulated/saved.rs"]
mod saved;
#[path = "../tests/simulated/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wattle_order::{Core, Input, Output, Record, Recovered, Sound};
use wattle_types::{Machine as _, Outbox};

use world::{Options, World};

fn main() {
    for n in [4, 10] {
        measure(n);
    }
}

fn kind(input: &Input) -> &'static str {
    match input {
        Input::Received { message: Sound::Proposal(_), .. } => "proposal",
        Input::Received { message: Sound::Vote(_), .. } => "vote",
        Input::Received { .. } => "other message",
        Input::Judged { .. } => "judged",
        Input::Built { .. } => "built",
        Input::Persisted { .. } => "persisted",
        Input::Executed { .. } => "executed",
        _ => "other",
    }
}

fn measure(n: usize) {
    let (record, load_us, guards_key) = (true, 1_000, false);
    let mut world = World::new(Options { record, load_us, guards_key, ..Options::new(1, n) });
    world.run(Duration::from_secs(5));
    let place = &world.places[0];
    let mut core = Core::new(
        world.options.config.clone(),
        place.key.clone(),
        Recovered::none(Arc::clone(&world.committee)),
    );
    let mut costs: BTreeMap<(bool, &str), Vec<Duration>> = BTreeMap::new();
    for (now, input, ..) in &place.trace {
        let (kind, input) = (kind(input), input.clone());
        let mut out = Outbox::new();
        let begun = Instant::now();
        core.handle(*now, input, &mut out);
        let cost = begun.elapsed();
        let safety = |output: &Output| matches!(output, Output::Persist { record: Record::Safety(_), .. });
        let signs = out.as_slice().iter().any(safety);
        costs.entry((signs, kind)).or_default().push(cost);
        costs.entry((signs, "all")).or_default().push(cost);
    }
    println!("n = {n}, {} blocks of about 3 transactions", core.status().height);
    println!("{:8} {:14} {:>8} {:>10} {:>10}", "signs", "input", "count", "p50", "p99");
    for ((signs, kind), mut costs) in costs {
        costs.sort_unstable();
        let at = |part: usize| costs[(costs.len() - 1) * part / 100];
        println!("{signs:8} {kind:14} {:8} {:10.1?} {:10.1?}", costs.len(), at(50), at(99));
    }
}
