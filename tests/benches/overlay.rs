//! What an overlay of many nodes in one process costs and delivers. Prints tables; asserts nothing.
//!
//! `cargo bench -p wattle-tests --bench overlay -- dht 200` and likewise `join`, `gossip 10 150 60`, `handle
//! 100`, `soak 300 600`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod common;

use std::time::{Duration, Instant};

use common::{Cpu, Random, Table, percentile, recall, resident_bytes};
use tokio::sync::mpsc;
use wattle_net::{ConnectionLimits, TraceTarget};
use wattle_tests::overlay::{Disk, Node, PATIENCE, config, until};
use wattle_types::{ContentHash, NetworkName, Record, RecordKey, Topic};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |index: usize, otherwise: u32| {
        arguments.get(index).and_then(|argument| argument.parse().ok()).unwrap_or(otherwise)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let Ok(runtime) = runtime else { return println!("no runtime") };
    match arguments.first().map(String::as_str) {
        Some("dht") => runtime.block_on(dht(number(1, 200))),
        Some("join") => runtime.block_on(join()),
        Some("gossip") => runtime.block_on(gossip(number(1, 10), number(2, 150), number(3, 60))),
        Some("handle") => runtime.block_on(common::bare::compare(number(1, 60))),
        Some("soak") => runtime.block_on(soak(number(1, 300), number(2, 600))),
        _ => println!("dht [N] | join | gossip [N RATE SECONDS] | handle [N] | soak [N SECONDS]"),
    }
}

/// Grows an overlay: each node joins through two random earlier ones, as their bootstrap.
async fn grow(nodes: &mut Vec<Node>, count: u32, random: &mut Random) {
    for number in u32::try_from(nodes.len()).unwrap_or(0)..count {
        let mut bootstrap = Vec::new();
        for _ in 0..2.min(nodes.len()) {
            if let Some(friend) = random.choose(nodes) {
                bootstrap.extend(friend.addresses().await);
            }
        }
        let alone = bootstrap.is_empty();
        let node = Node::start_on(wattle_net::Config { bootstrap, ..config(number) }, Disk::default()).await;
        until("the newcomer has a peer", || async { alone || !node.peers().await.is_empty() }).await;
        nodes.push(node);
    }
}

/// Lets the self-lookups of the last joiners end.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

async fn dht(count: u32) {
    let mut random = Random::new(7);
    let before = resident_bytes();
    let mut nodes = Vec::new();
    grow(&mut nodes, count, &mut random).await;
    settle().await;
    let per_node = resident_bytes().saturating_sub(before) / u64::from(count.max(1));
    let (mut milliseconds, mut recalls, mut first_found) = (Vec::new(), 0.0, 0);
    for _ in 0..200 {
        let Some(node) = random.choose(&nodes) else { return };
        let key = RecordKey::Hash(ContentHash::of(&random.bytes()));
        let begun = Instant::now();
        let found =
            node.overlay.closest(TraceTarget::Record(key.clone()), PATIENCE).await.unwrap_or_default();
        milliseconds.push(begun.elapsed().as_secs_f64() * 1e3);
        let (all, first) = recall(&nodes, node.id(), &key, &found);
        recalls += all;
        first_found += u32::from(first);
    }
    let mut hops = Vec::new();
    for _ in 0..100 {
        let (Some(from), Some(to)) = (random.choose(&nodes), random.choose(&nodes)) else { return };
        if from.id() == to.id() {
            continue;
        }
        let (steps, mut watch) = mpsc::channel(512);
        let drain = tokio::spawn(async move { while watch.recv().await.is_some() {} });
        if let Ok(report) = from.overlay.trace(TraceTarget::Peer(to.id()), PATIENCE, steps).await
            && report.target.is_some()
        {
            hops.push(f64::from(report.hops + 1));
        }
        drain.await.unwrap_or_default();
    }
    let (mut hits, mut get_ms) = (0, Vec::new());
    for number in 0..100 {
        let (Some(writer), Some(reader)) = (random.choose(&nodes), random.choose(&nodes)) else { return };
        let Ok(record) = Record::content(format!("value {number}").into_bytes()) else { return };
        let Ok(key) =
            RecordKey::from_bytes(writer.overlay.network(), &record.key_bytes(&NetworkName::default()))
        else {
            return;
        };
        if writer.overlay.put(record, PATIENCE).await.is_ok() {
            let begun = Instant::now();
            hits += u32::from(reader.overlay.get(key, PATIENCE).await.is_ok());
            get_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut table = Table::new(&format!("DHT, {count} nodes in one process"));
    table.row("lookups that found the nearest node", format!("{first_found} of 200"));
    table.row("recall of the true 20 nearest", format!("{:.4}", recalls / 200.0));
    table.row("lookup ms, median / p99", percentile(&mut milliseconds));
    table.row("traces that found their peer", format!("{} of 100", hops.len()));
    table.row("hops, median / p99", percentile(&mut hops));
    table.row("log2(N) / b, b = 1", format!("{:.1}", f64::from(count).log2()));
    table.row("put then get by another node", format!("{hits} of 100"));
    table.row("get ms, median / p99", percentile(&mut get_ms));
    table.row("resident memory per node", format!("{} KiB", per_node / 1024));
    table.print();
}

/// libp2p's counter of dials.
const DIALS: &str = "libp2p_swarm_dial_attempt_total";

/// CPU of a join, with everything it makes others do, in a small and in a larger overlay.
async fn join() {
    let mut random = Random::new(11);
    let mut nodes = Vec::new();
    let mut costs = Vec::new();
    for size in [50, 100, 200] {
        grow(&mut nodes, size - 20, &mut random).await;
        settle().await;
        // What the overlay does anyway in that time is not a cost of joining.
        let (cpu, begun) = (Cpu::now(), Instant::now());
        settle().await;
        let idle = cpu.spent_ms() / begun.elapsed().as_secs_f64();
        let dials = common::counter(&nodes, DIALS).await;
        let (cpu, begun) = (Cpu::now(), Instant::now());
        grow(&mut nodes, size, &mut random).await;
        settle().await;
        let joins = cpu.spent_ms() - idle * begun.elapsed().as_secs_f64();
        let dials = common::counter(&nodes, DIALS).await - dials;
        costs.push((size, joins.max(0.0) / 20.0, dials / 20.0, idle / f64::from(size)));
    }
    let mut table = Table::new("CPU per join, ms");
    for (size, cost, dials, idle) in &costs {
        let what = format!("{cost:.0} for {dials:.0} dials; idle, {idle:.1} ms a second and node");
        table.row(&format!("at {size} nodes"), what);
    }
    if let (Some(first), Some(last)) = (costs.first(), costs.last()) {
        table.row("200 to 50", format!("{:.2}", last.1 / first.1.max(1.0)));
    }
    table.print();
}

/// `rate` messages a second of 256 bytes on one topic, from all nodes in turn.
async fn gossip(count: u32, rate: u32, seconds: u32) {
    let refused = common::count_refused_control_messages();
    let mut random = Random::new(13);
    let mut nodes = Vec::new();
    grow(&mut nodes, count, &mut random).await;
    let Ok(topic) = "bench.load".parse::<Topic>() else { return };
    let started = Instant::now();
    let mut readers = Vec::new();
    for node in &nodes {
        let Ok(pattern) = "bench.load".parse() else { return };
        let Ok(mut messages) = node.overlay.subscribe(vec![pattern]).await else { return };
        readers.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while let Ok(Some(Ok(delivery))) =
                tokio::time::timeout(Duration::from_secs(15), messages.next()).await
            {
                let sent = delivery.message.payload.get(..8).and_then(|bytes| bytes.try_into().ok());
                let sent = Duration::from_micros(u64::from_be_bytes(sent.unwrap_or_default()));
                latencies.push((started.elapsed().saturating_sub(sent)).as_secs_f64() * 1e3);
            }
            latencies
        }));
    }
    settle().await;
    let (cpu, bytes) = (Cpu::now(), common::bytes_received(&nodes).await);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    let total = rate * seconds;
    for number in 0..total {
        ticks.tick().await;
        let mut payload = vec![0; 256];
        let now = u64::try_from(started.elapsed().as_micros()).unwrap_or(0);
        payload[..8].copy_from_slice(&now.to_be_bytes());
        payload[8..12].copy_from_slice(&number.to_be_bytes());
        let sender = usize::try_from(number % count).unwrap_or(0);
        if let Some(node) = nodes.get(sender) {
            node.overlay.publish(topic.clone(), payload, None).await.unwrap_or_else(|error| {
                println!("not published: {error}");
                wattle_net::Published { mesh_peers: 0, local: 0 }
            });
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (spent, bytes) = (cpu.spent_ms(), common::bytes_received(&nodes).await - bytes);
    let mut latencies = Vec::new();
    for reader in readers {
        latencies.extend(reader.await.unwrap_or_default());
    }
    let remote = f64::from(total) * f64::from(count - 1);
    let delivered = latencies.len() as f64;
    let mut table = Table::new(&format!("gossip, {count} nodes, {rate} messages/s of 256 B, {seconds} s"));
    table.row("delivered", format!("{:.6}", delivered / (f64::from(total) * f64::from(count))));
    table.row("delivery ms, median / p99", percentile(&mut latencies));
    table.row("control messages refused", refused.load(std::sync::atomic::Ordering::Relaxed).to_string());
    table.row("CPU ms per delivery", format!("{:.3}", spent / remote));
    table.row("bytes received per delivery", format!("{:.0}", bytes as f64 / remote));
    table.row(
        "copies per delivery (a message is 470 B on the wire)",
        format!("{:.1}", bytes as f64 / remote / 470.0),
    );
    table.print();
}

/// Many nodes, both lanes, for a long time: connections, recall, memory.
async fn soak(count: u32, seconds: u32) {
    let mut random = Random::new(17);
    let mut nodes: Vec<Node> = Vec::new();
    grow(&mut nodes, count, &mut random).await;
    let mut sinks = Vec::new();
    for node in &nodes {
        let Ok(pattern) = "soak.>".parse() else { return };
        let Ok(mut messages) = node.overlay.subscribe(vec![pattern]).await else { return };
        sinks.push(tokio::spawn(async move { while messages.next().await.is_some() {} }));
    }
    let Ok(topic) = "soak.beat".parse::<Topic>() else { return };
    let high = ConnectionLimits::standard().high_water.get();
    println!("{:>6} {:>10} {:>10} {:>8} {:>10}", "s", "conns max", "conns avg", "recall", "RSS MiB");
    let begun = Instant::now();
    let (mut worst, mut recalls, mut lookups) = (0, 0.0, 0.0);
    while begun.elapsed() < Duration::from_secs(u64::from(seconds)) {
        let round = Instant::now();
        let (mut round_recall, mut most, mut sum) = (0.0, 0, 0);
        for _ in 0..10 {
            let Some(node) = random.choose(&nodes) else { return };
            let key = RecordKey::Hash(ContentHash::of(&random.bytes()));
            let found = node.overlay.closest(TraceTarget::Record(key.clone()), PATIENCE).await;
            round_recall += recall(&nodes, node.id(), &key, &found.unwrap_or_default()).0;
            drop(node.overlay.publish(topic.clone(), vec![0; 256], None).await);
        }
        for node in &nodes {
            let connections = node.peers().await.len();
            most = most.max(connections);
            sum += connections;
        }
        worst = worst.max(most);
        recalls += round_recall;
        lookups += 10.0;
        let average = sum / nodes.len().max(1);
        let mebibytes = resident_bytes() >> 20;
        let second = begun.elapsed().as_secs();
        println!("{second:>6} {most:>10} {average:>10} {:>8.4} {mebibytes:>10}", round_recall / 10.0);
        tokio::time::sleep(Duration::from_secs(10).saturating_sub(round.elapsed())).await;
    }
    let mut table = Table::new(&format!("soak, {count} nodes, {seconds} s"));
    table.row("most connections of a node, high water", format!("{worst}, {high}"));
    table.row("recall of the true 20 nearest", format!("{:.4}", recalls / lookups));
    table.print();
}
