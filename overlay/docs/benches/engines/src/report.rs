//! What is printed, and the clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Prints one goal: what was seen, what was wanted.
pub fn goal(goal: &str, ours: &str, theirs: &str, ratio: f64, wanted: &str, met: bool) {
    let met = if met { "met" } else { "NOT MET" };
    let ratio = if ratio.is_finite() { format!("{ratio:.3}") } else { "-".to_owned() };
    println!("| {goal} | {ours} | {theirs} | {ratio} | {wanted} | {met} |");
}

/// Prints something that no goal is about.
pub fn aside(what: &str, seen: &str) {
    println!("| {what} | {seen} | | | | |");
}

pub fn head() {
    println!("| goal | ours | theirs | ratio | wanted | |");
    println!("| --- | --- | --- | --- | --- | --- |");
}

fn clock(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// CPU time of this process so far.
pub fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// CPU time of this thread so far.
pub fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Of every hundred, this many are not larger.
pub fn percentile(spans: &[Duration], percent: usize) -> Duration {
    let mut sorted = spans.to_vec();
    sorted.sort();
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

pub fn median(spans: &[Duration]) -> Duration {
    percentile(spans, 50)
}

/// Bytes that this process had written to disks so far, as the system counts.
pub fn disk_bytes() -> u64 {
    let told = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}
