//! Validators that die all the time, while entries come at a steady rate over slow links.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use wattle_tests::local::{Api, Draw, Place, agreed, size};

use super::*;

/// Who submits at once, or as many as entries a second: each waits until its entry is ordered.
const WRITERS: u64 = 64;

/// Megabytes of the largest node at the most.
const LARGEST: u64 = 160;

/// What one writer of many does: it takes the next number, waits for its time, and has it ordered somewhere.
fn write(
    apis: &[Api],
    begun: Instant,
    (rate, last): (u64, u64),
    next: &AtomicU64,
    kept: &Mutex<Vec<(Place, String)>>,
) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= last {
            return;
        }
        let due = begun + Duration::from_micros(number * 1_000_000 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let text = format!("{number:0>512}");
        let api = &apis[usize::try_from(number).unwrap() % apis.len()];
        if let Some((200, answer)) = api.submit(&text)
            && answer["state"] == "ordered"
        {
            let place = |of: &str| answer[of].as_u64().unwrap();
            kept.lock().unwrap().push(((place("height"), place("index")), text));
        }
    }
}

/// The largest of the nodes, in megabytes.
fn largest(net: &Net) -> u64 {
    let status = net.machine.json(&["testnet", "status"]);
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().filter_map(|node| node["rss_bytes"].as_u64()).max().unwrap() / 1_000_000
}

/// `WATTLE_ORDER_SOAK` seconds at `WATTLE_ORDER_RATE` entries a second.
#[test]
fn no_acknowledged_entry_is_lost_and_nothing_forks_while_validators_are_killed_at_a_steady_rate() {
    let seconds = size("WATTLE_ORDER_SOAK", 12) as u64;
    let rate = size("WATTLE_ORDER_RATE", 50) as u64;
    let every = Duration::from_secs(20).min(Duration::from_secs(seconds) / 4);
    let net = Net::up(&["4", "--validators", "4"]);
    net.ok(&["testnet", "latency", "50ms+-20"]);
    let names = ["alice", "bob", "carol", "dave"];
    let socket = |name: &str| Api::at(net.directory().join(format!("run/{name}/api.sock")));
    let apis: Vec<Api> = names.iter().map(|name| socket(name)).collect();
    let (next, kept) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let (begun, end) = (Instant::now(), Duration::from_secs(seconds));
    let (mut draw, mut kills, mut sizes) = (Draw(18), 0, Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..rate.max(WRITERS) {
            scope.spawn(|| write(&apis, begun, (rate, rate * seconds), &next, &kept));
        }
        while begun.elapsed() + every < end {
            let victim = draw.below(names.len()).to_string();
            std::thread::sleep(every * 3 / 4);
            sizes.push(largest(&net));
            net.ok(&["testnet", "kill", &victim]);
            std::thread::sleep(every / 4);
            net.ok(&["testnet", "restart", &victim]);
            kills += 1;
        }
    });
    let took = begun.elapsed();
    let kept = kept.into_inner().unwrap();
    let log = agreed(&apis, PATIENCE);
    println!(
        "{} of {} entries acknowledged in {took:?}, {kills} kills, {sizes:?} MB",
        kept.len(),
        rate * seconds
    );
    for (place, text) in &kept {
        assert_eq!(log.get(place).map(|(_, text)| text), Some(text), "lost at {place:?}");
    }
    let distinct: std::collections::BTreeSet<&String> = log.values().map(|(hash, _)| hash).collect();
    assert_eq!(distinct.len(), log.len(), "an entry stands twice");
    assert!(kept.len() as u64 * 2 > rate * seconds, "most of the time there was a quorum");
    let (_, report) = net.report("60s");
    assert_eq!(check(&report, "order")["pass"], true, "{report:#}");
    // A node takes about fifty, and what it remembers of the log some eighty more once all of it is full.
    assert!(sizes.iter().all(|size| *size <= LARGEST), "memory grows: {sizes:?} MB");
}
