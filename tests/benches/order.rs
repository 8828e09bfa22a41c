//! What the ordered log costs: four validators of this machine, real sockets and real disks, votes on disk before they
//! leave.
//!
//! ```text
//! cargo bench -p wattle-tests --bench order -- [--inside] [--for 10] [--idle 10] [--bytes 512]
//!     [--rates 100,1000,5000,0] [--callers 256]
//! ```
//!
//! Entries are submitted to all nodes in turn at an even rate, whatever became of those before; rate 0 is as fast as
//! they are ordered. Latency is from the moment at which one should have been submitted until its answer is here. All
//! is measured with four validators and then with three of the four.
//!
//! Without `--inside` the nodes are processes, each entry is a request to their API, and the answer has the receipt;
//! processor time is that of the nodes. With it the four are in this process and there is no API: processor time is
//! theirs and that of who submits.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and ends where it fails")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use wattle_tests::binary::{Machine, wait_for};
use wattle_tests::local::{Api, Local, PATIENCE, percentile};

#[path = "common/log.rs"]
mod log;

const NAMES: [&str; 4] = ["anna", "bert", "cleo", "dora"];

fn argument(name: &str, otherwise: &str) -> String {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == name);
    at.and_then(|at| words.get(at + 1)).cloned().unwrap_or_else(|| otherwise.to_owned())
}

fn seconds(name: &str, otherwise: &str) -> Duration {
    Duration::from_secs(argument(name, otherwise).parse().unwrap())
}

/// User and system time of processes, from `/proc/PID/stat` (fields 14 and 15, in hundredths of a second).
fn cpu_of(pids: &[u64]) -> Duration {
    let ticks = |pid: &u64| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default().to_owned();
        let fields = after_name.split_whitespace().skip(11).take(2);
        fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    Duration::from_millis(10 * pids.iter().map(ticks).sum::<u64>())
}

fn status(node: &Local<'_>) -> Value {
    node.api().get("/api/v1/order/status")
}

fn reach(nodes: &[Local<'_>], count: u64) {
    for node in nodes.iter().filter(|node| node.is_up()) {
        wait_for(&format!("{} reaches {count} validators", node.name()), PATIENCE, || {
            status(node)["reachable"].as_u64() == Some(count)
        });
    }
}

/// The nodes that run.
struct Up {
    apis: Vec<Api>,
    pids: Vec<u64>,
}

impl Up {
    fn of(nodes: &[Local<'_>]) -> Self {
        let up = || nodes.iter().filter(|node| node.is_up());
        let pid = |node: &Local<'_>| node.api().get("/api/v1/status")["node"]["pid"].as_u64().unwrap();
        Self { apis: up().map(Local::api).collect(), pids: up().map(pid).collect() }
    }

    /// Rounds that timed out, over all nodes.
    fn timeouts(&self) -> u64 {
        let of = |api: &Api| api.get("/api/v1/order/status")["timeouts_last_hour"].as_u64().unwrap();
        self.apis.iter().map(of).sum()
    }

    fn all(&self) {
        head();
        for rate in rates() {
            self.load(rate, bytes(), seconds("--for", "10"));
        }
        // What is left of the load goes first.
        std::thread::sleep(Duration::from_secs(3));
        let (idle, before) = (seconds("--idle", "10"), cpu_of(&self.pids));
        std::thread::sleep(idle);
        let used = (cpu_of(&self.pids) - before).as_secs_f64() / idle.as_secs_f64();
        println!("idle: {:.2} % of a core for {} together", used * 100.0, self.pids.len());
    }

    fn load(&self, rate: u64, bytes: usize, span: Duration) {
        let callers: usize = argument("--callers", "256").parse().unwrap();
        let (next, errors, times) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let body = json!({ "data_b64": BASE64.encode(&vec![b'x'; bytes]), "timeout_ms": 30_000 });
        let (begun, before, timeouts) = (Instant::now(), cpu_of(&self.pids), self.timeouts());
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let planned = (number as u64 * 1_000_000).checked_div(rate);
                        let due =
                            planned.map_or_else(Instant::now, |micros| begun + Duration::from_micros(micros));
                        if due.duration_since(begun) >= span {
                            return;
                        }
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        let api = &self.apis[number % self.apis.len()];
                        match api.ask("POST /api/v1/order/entries", &body) {
                            Some((200, _)) => times.lock().unwrap().push(due.elapsed()),
                            _ => drop(errors.fetch_add(1, Ordering::Relaxed)),
                        }
                    }
                });
            }
        });
        let (took, cpu) = (begun.elapsed(), cpu_of(&self.pids) - before);
        let (mut times, errors) = (times.into_inner().unwrap(), errors.into_inner());
        let timed_out = usize::try_from(self.timeouts() - timeouts).unwrap();
        row(rate, &mut times, errors, took, cpu.as_secs_f64(), timed_out);
    }
}

fn bytes() -> usize {
    argument("--bytes", "512").parse().unwrap()
}

fn rates() -> Vec<u64> {
    argument("--rates", "100,1000,5000,0").split(',').map(|rate| rate.parse().unwrap()).collect()
}

fn head() {
    println!(
        "rate/s    sent  ordered  errors  ordered/s    p50 ms    p99 ms  CPU s/1000  CPU of a core  timeouts"
    );
}

fn row(rate: u64, times: &mut [Duration], errors: usize, took: Duration, cpu: f64, timeouts: usize) {
    let ordered = times.len();
    let ms = |span: Duration| span.as_secs_f64() * 1000.0;
    println!(
        "{rate:>6} {:>7} {ordered:>8} {errors:>7} {:>10.1} {:>9.1} {:>9.1} {:>11.4} {:>12.1} % {timeouts:>9}",
        ordered + errors,
        ordered as f64 / took.as_secs_f64(),
        ms(percentile(times, 50)),
        ms(percentile(times, 99)),
        cpu * 1000.0 / ordered.max(1) as f64,
        cpu / took.as_secs_f64() * 100.0,
    );
}

fn main() {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("{cores} cores, entries of {} bytes", bytes());
    if std::env::args().any(|word| word == "--inside") {
        tokio::runtime::Runtime::new().unwrap().block_on(log::run());
    } else {
        processes();
    }
}

fn processes() {
    let machine = Machine::new(None);
    let mut nodes: Vec<Local<'_>> = NAMES
        .iter()
        .map(|name| {
            assert!(machine.run(&["-n", name, "config", "set", "p2p.profile", "lan"]).status.success());
            Local::start(&machine, name)
        })
        .collect();
    let genesis = machine.home().join("genesis.json").display().to_string();
    let made = machine.run(&["order", "init", "--validators", &NAMES.join(","), "-o", &genesis]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for node in &nodes {
        assert_eq!(machine.json(&["-n", node.name(), "order", "join", &genesis])["role"], "validator");
    }
    reach(&nodes, 4);
    println!("four validators");
    Up::of(&nodes).all();
    nodes[3].kill();
    reach(&nodes, 3);
    println!("three of the four");
    Up::of(&nodes).all();
    for node in &nodes {
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
}
