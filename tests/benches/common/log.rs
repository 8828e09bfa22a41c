//! The log without its API: four nodes in this process, their streams over real sockets, their rows on real disks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle::order::{Fate, Log, Order, timing};
use wattle_order::{Entry, Genesis, Rules, Validator, Validators, Whole};
use wattle_store::{Owner, Store};
use wattle_tests::overlay::{Node, key, until};
use wattle_types::{NetworkName, UnixTime};

/// Entries that wait for their commit at once, over all nodes, when as many as possible are submitted.
const WAITING: usize = 8000;

struct Validating {
    net: Node,
    log: Arc<Log>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _dir: tempfile::TempDir,
}

fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or_default())
}

async fn start(number: u32, genesis: &Genesis) -> Validating {
    let dir = tempfile::tempdir().unwrap();
    let owner = Owner::this_process(&format!("bench{number}"));
    let store = Arc::new(Store::open(dir.path(), owner).unwrap());
    let net = Node::start(number).await;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let order = Order::start(&net.overlay, &store, &net.key, None, timing(true), &stop, &tasks);
    let log = order.join(genesis.clone()).await.unwrap();
    Validating { net, log, stop, tasks, _dir: dir }
}

async fn reached(log: &Log) -> usize {
    let view = log.view().await.unwrap();
    view.validators.iter().filter(|validator| validator.reach.is_none_or(|reach| reach.up)).count()
}

async fn timeouts(nodes: &[Validating]) -> usize {
    let mut sum = 0;
    for node in nodes {
        sum += node.log.view().await.unwrap().timeouts;
    }
    sum
}

fn cpu() -> f64 {
    super::cpu_of(&[u64::from(std::process::id())]).as_secs_f64()
}

/// One caller: submits an entry, and waits until it is ordered.
async fn call(
    log: Arc<Log>,
    data: ByteBuf,
    salts: Arc<AtomicU64>,
    due: Instant,
    done: mpsc::Sender<Option<Duration>>,
) {
    let salt = salts.fetch_add(1, Ordering::Relaxed);
    let until = now().after(Duration::from_secs(20));
    let entry = Entry { app: "bench/1".to_owned(), data, until, salt };
    let entry = Arc::new(Whole::read(entry.encode().into()).unwrap());
    let fate = match log.submit(entry).await {
        Ok(told) => told.await.ok(),
        Err(_) => None,
    };
    let took = matches!(fate, Some(Fate::Ordered(_))).then(|| due.elapsed());
    // Ignored because the row is printed.
    done.send(took).await.unwrap_or_default();
}

async fn load(nodes: &[Validating], rate: u64, bytes: usize, span: Duration, salts: &Arc<AtomicU64>) {
    let data = ByteBuf::from(vec![b'x'; bytes]);
    let (done, mut outcomes) = mpsc::channel(WAITING);
    let (begun, before, timed_out) = (Instant::now(), cpu(), timeouts(nodes).await);
    let (mut sent, mut waiting) = (0u64, 0usize);
    let mut times: Vec<Duration> = Vec::new();
    let mut errors = 0;
    loop {
        let over = begun.elapsed() >= span;
        let due = if rate == 0 { u64::MAX } else { rate * begun.elapsed().as_micros() as u64 / 1_000_000 };
        // The first is due at once.
        while !over && sent <= due && waiting < WAITING {
            let node = &nodes[sent as usize % nodes.len()];
            let planned = (sent * 1_000_000).checked_div(rate).map(Duration::from_micros);
            let at = planned.map_or_else(Instant::now, |after| begun + after);
            tokio::spawn(call(Arc::clone(&node.log), data.clone(), Arc::clone(salts), at, done.clone()));
            (sent, waiting) = (sent + 1, waiting + 1);
        }
        if over && waiting == 0 {
            break;
        }
        let mut first = tokio::time::timeout(Duration::from_millis(1), outcomes.recv()).await.ok().flatten();
        while let Some(outcome) = first.take().or_else(|| outcomes.try_recv().ok()) {
            waiting -= 1;
            match outcome {
                Some(took) => times.push(took),
                None => errors += 1,
            }
        }
    }
    let took = begun.elapsed();
    super::row(
        rate,
        &mut times,
        errors,
        took,
        cpu() - before,
        timeouts(nodes).await.saturating_sub(timed_out),
    );
}

pub(crate) async fn run() {
    let keys = (0..4).map(key);
    let list = keys.map(|key| Validator { id: key.node_id(), weight: 1 }).collect();
    let (validators, created) = (Validators::new(list).unwrap(), now());
    let genesis = Genesis { network: NetworkName::default(), validators, rules: Rules::default(), created };
    let mut nodes = Vec::new();
    for number in 0..4 {
        let node = start(number, &genesis).await;
        for other in &nodes {
            let other: &Validating = other;
            node.net.join(&other.net).await;
        }
        nodes.push(node);
    }
    let salts = Arc::new(AtomicU64::new(1));
    for count in [4, 3] {
        for node in &nodes {
            until("all are reached", || async { reached(&node.log).await == count }).await;
        }
        println!("{count} of four validators in this process, clients too");
        super::head();
        for rate in super::rates() {
            load(&nodes, rate, super::bytes(), super::seconds("--for", "10"), &salts).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (idle, before) = (super::seconds("--idle", "10"), cpu());
        tokio::time::sleep(idle).await;
        println!(
            "idle: {:.2} % of a core for {count} together",
            (cpu() - before) / idle.as_secs_f64() * 100.0
        );
        if let Some(gone) = nodes.pop().filter(|_| count == 4) {
            gone.stop.cancel();
            gone.tasks.close();
            gone.tasks.wait().await;
            gone.net.overlay.stop().await;
        }
    }
}
