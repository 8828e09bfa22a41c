//! The log's machine with a simulated network, disks and clock.
//!
//! What must hold after every step is in `judge.rs` and in `Core::check_invariants`. The tests are the acceptance
//! tests of the log by their numbers. Small sizes by default; `WATTLE_ORDER_SCALE=100` runs a hundred times as many
//! seeds.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it must be")]

mod asks;
mod carry;
mod catching_up;
mod disks;
mod epochs;
mod faults;
mod hostile;
mod judge;
mod liars;
mod lies;
mod payloads;
mod ranges;
mod receipts;
mod replay;
mod rules;
mod saved;
mod snapshots;
mod twins;
mod world;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// So many seeds, times the scale that was asked for.
fn seeds(few: u64) -> std::ops::Range<u64> {
    0..few * scale()
}

/// Runs so many seeds, times the scale; with a scale on all cores.
fn each_seed(few: u64, run: impl Fn(u64) + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if scale() > 1 { cores } else { 1 };
    std::thread::scope(|scope| {
        for first in 0..threads {
            let run = &run;
            scope.spawn(move || seeds(few).skip(first).step_by(threads).for_each(run));
        }
    });
}

fn scale() -> u64 {
    option_env!("WATTLE_ORDER_SCALE").map_or(1, |scale| scale.parse().unwrap())
}
