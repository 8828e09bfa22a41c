//! What the ordered log costs: four nodes of this machine, real sockets and real disks.
//!
//! `cargo bench -p wattle-tests --bench order -- [--for 10] [--idle 10] [--bytes 512] [--rates 100,1000]`. Entries are
//! submitted to all four in turn at an even rate, whatever became of those before; latency is from the moment at
//! which one should have been submitted until its answer, with its receipt, is here. Processor time is that of the
//! four nodes.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and ends where it fails")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::json;
use wattle_tests::binary::{Machine, wait_for};
use wattle_tests::local::{Api, Local, PATIENCE, percentile};

const NAMES: [&str; 4] = ["anna", "bert", "cleo", "dora"];
/// Callers that wait for answers at once.
const CALLERS: usize = 128;

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

fn main() {
    let machine = Machine::new(None);
    let nodes: Vec<Local<'_>> = NAMES
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
    for node in &nodes {
        wait_for("all are there", PATIENCE, || {
            node.api().get("/api/v1/order/status")["reachable"].as_u64() == Some(4)
        });
    }
    let pid = |node: &Local<'_>| node.api().get("/api/v1/status")["node"]["pid"].as_u64().unwrap();
    let pids: Vec<u64> = nodes.iter().map(pid).collect();
    let apis: Vec<Api> = nodes.iter().map(Local::api).collect();
    let bytes: usize = argument("--bytes", "512").parse().unwrap();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("four validators, {cores} cores, entries of {bytes} bytes");
    println!("rate/s   sent   ordered   errors   ordered/s   p50 ms   p99 ms   CPU us/entry   CPU of a core");
    for rate in argument("--rates", "100,1000").split(',') {
        load(&apis, &pids, rate.parse().unwrap(), bytes, seconds("--for", "10"));
    }
    let idle = seconds("--idle", "10");
    // What is left of the load goes first.
    std::thread::sleep(Duration::from_secs(3));
    let before = cpu_of(&pids);
    std::thread::sleep(idle);
    let used = (cpu_of(&pids) - before).as_secs_f64() / idle.as_secs_f64();
    println!("idle: {:.2} % of a core for the four together", used * 100.0);
}

fn load(apis: &[Api], pids: &[u64], rate: u32, bytes: usize, span: Duration) {
    let total = usize::try_from(rate).unwrap() * usize::try_from(span.as_secs()).unwrap();
    let (next, errors, times) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let data = BASE64.encode(&vec![b'x'; bytes]);
    let (begun, before) = (Instant::now(), cpu_of(pids));
    std::thread::scope(|scope| {
        for _ in 0..CALLERS.min(total) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return;
                    }
                    let due = begun + Duration::from_secs(1) * u32::try_from(number).unwrap() / rate;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let body = json!({ "data_b64": data, "timeout_ms": 30_000 });
                    match apis[number % apis.len()].ask("POST /api/v1/order/entries", &body) {
                        Some((200, _)) => times.lock().unwrap().push(due.elapsed()),
                        _ => drop(errors.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    let (took, cpu) = (begun.elapsed(), cpu_of(pids) - before);
    let mut times = times.into_inner().unwrap();
    let ordered = times.len();
    let ms = |span: Duration| span.as_secs_f64() * 1000.0;
    println!(
        "{rate:>6}  {total:>5}   {ordered:>7}   {:>6}   {:>9.1}   {:>6.1}   {:>6.1}   {:>12.0}   {:>11.1} %",
        errors.into_inner(),
        ordered as f64 / took.as_secs_f64(),
        ms(percentile(&mut times, 50)),
        ms(percentile(&mut times, 99)),
        cpu.as_secs_f64() * 1_000_000.0 / ordered.max(1) as f64,
        cpu.as_secs_f64() / took.as_secs_f64() * 100.0,
    );
}
