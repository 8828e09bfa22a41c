//! What the benchmarks share: clocks of the process, percentiles, ground truth, tables.

pub(crate) mod bare;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libp2p::PeerId;
use libp2p::kad::KBucketKey;
use tracing_subscriber::layer::SubscriberExt as _;
use wattle_net::ClosestPeer;
use wattle_tests::overlay::Node;
use wattle_types::{ContentHash, NetworkName, NodeId, RecordKey};

/// A generator of numbers that are the same in every run.
pub(crate) struct Random(ContentHash);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ContentHash::of(&seed.to_be_bytes()))
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        self.0 = ContentHash::of(self.0.as_bytes());
        *self.0.as_bytes()
    }

    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let [a, b, c, d, ..] = self.bytes();
        let number = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0);
        from.get(number.checked_rem(from.len())?)
    }
}

/// Processor time of this process.
pub(crate) struct Cpu(f64);

impl Cpu {
    pub(crate) fn now() -> Self {
        Self(cpu_ms())
    }

    pub(crate) fn spent_ms(&self) -> f64 {
        cpu_ms() - self.0
    }
}

/// User and system time from `/proc/self/stat` (fields 14 and 15, in hundredths of a second).
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks * 10.0
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Median and 99th percentile, nearest rank.
pub(crate) fn percentile(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (values.len() * percent).div_ceil(100).max(1);
        values.get(rank - 1).copied().unwrap_or(f64::NAN)
    };
    format!("{:.1} / {:.1}", at(50), at(99))
}

pub(crate) fn kad_key(node: NodeId) -> Option<KBucketKey<PeerId>> {
    PeerId::from_bytes(&node.to_peer_id_bytes()).ok().map(KBucketKey::from)
}

/// How many of the true 20 nearest nodes a lookup found (by brute force over all nodes), and whether it found
/// the nearest.
pub(crate) fn recall(nodes: &[Node], asker: NodeId, key: &RecordKey, found: &[ClosestPeer]) -> (f64, bool) {
    let target = KBucketKey::new(key.to_bytes(&NetworkName::default()));
    let others = nodes.iter().map(Node::id).filter(|id| *id != asker);
    let mut truth: Vec<_> = others.filter_map(|id| Some((kad_key(id)?.distance(&target), id))).collect();
    truth.sort_unstable();
    truth.truncate(20);
    let hit = |id: &NodeId| found.iter().any(|peer| peer.peer == *id);
    let hits = truth.iter().filter(|(_, id)| hit(id)).count();
    let nearest = truth.first().is_some_and(|(_, id)| hit(id));
    (hits as f64 / truth.len().max(1) as f64, nearest)
}

/// Bytes that all nodes received on their present connections.
pub(crate) async fn bytes_received(nodes: &[Node]) -> u64 {
    let mut sum = 0;
    for node in nodes {
        if let Ok(status) = node.overlay.status().await {
            sum += status.peers.iter().map(|peer| peer.bytes_in).sum::<u64>();
        }
    }
    sum
}

/// A counter of libp2p's, summed over all nodes.
pub(crate) async fn counter(nodes: &[Node], name: &str) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        let text = node.overlay.metrics().await.unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with(name));
        sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    sum
}

/// Counts the log lines with which gossipsub says that it refused a control message.
pub(crate) fn count_refused_control_messages() -> Arc<AtomicU64> {
    struct Counter(Arc<AtomicU64>);
    struct Words(bool);
    impl tracing::field::Visit for Words {
        fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            let text = format!("{value:?}");
            self.0 |= text.contains("control") && text.contains("exceed");
        }
    }
    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Counter {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            let mut words = Words(false);
            event.record(&mut words);
            self.0.fetch_add(u64::from(words.0), Ordering::Relaxed);
        }
    }
    let count = Arc::new(AtomicU64::new(0));
    let only_gossip = tracing_subscriber::EnvFilter::new("off,libp2p_gossipsub=debug");
    let counter = Counter(Arc::clone(&count));
    let subscriber = tracing_subscriber::registry().with(only_gossip).with(counter);
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        count.store(u64::MAX, Ordering::Relaxed);
    }
    count
}

/// A table for people.
pub(crate) struct Table {
    title: String,
    rows: Vec<(String, String)>,
}

impl Table {
    pub(crate) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, name: &str, value: String) {
        self.rows.push((name.to_owned(), value));
    }

    #[expect(clippy::print_stdout, reason = "a benchmark prints its table")]
    pub(crate) fn print(&self) {
        println!("\n{}", self.title);
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.rows {
            println!("  {name:width$}  {value}");
        }
    }
}
