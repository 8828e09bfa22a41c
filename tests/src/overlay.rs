//! Real overlay nodes on loopback, in this process: real sockets, real handshakes, and a disk that is a map.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use wattle_net::{Address, Config, ConnectionLimits, DhtMode, Overlay, PersistBatch, Profile, Restored};
use wattle_types::{NetworkName, NodeId, SecretKey, Table, Write};

/// How long a test waits for what should happen at once; generous, because the machine is shared.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Everything a node wrote, by table: what its next run starts from.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Tables>>);

type Tables = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

impl Disk {
    fn apply(&self, batch: PersistBatch) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for write in batch.writes {
            match write {
                Write::Put { table, key, value } => drop(tables.insert((table, key), value)),
                Write::Remove { table, key } => drop(tables.remove(&(table, key))),
                Write::RemoveRange { table, range } => {
                    tables.retain(|(place, key), _| *place != table || !range.contains(key));
                }
            }
        }
        drop(tables);
        if let Some(done) = batch.done {
            // Ignored because the node may have stopped meanwhile.
            done.send(()).unwrap_or_default();
        }
    }

    /// What a node finds on this disk when it starts.
    #[must_use]
    pub fn restored(&self) -> Restored {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |wanted: Table| {
            let rows = tables.iter().filter(|((table, _), _)| *table == wanted);
            rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        };
        Restored {
            records: of(Table::Records),
            providers: of(Table::Providers),
            published: of(Table::Published),
            addresses: of(Table::Addresses),
            blocked: of(Table::Blocked),
        }
    }
}

/// A node of this process.
#[derive(Clone)]
pub struct Node {
    /// Its handle.
    pub overlay: Overlay,
    /// Its key.
    pub key: SecretKey,
    /// What it wrote.
    pub disk: Disk,
}

/// The key of node number `number`: the same in every run.
#[must_use]
pub fn key(number: u32) -> SecretKey {
    let mut bytes = [0x5e; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_bytes(&bytes)
}

/// The configuration of node `number`: loopback, ports from the system, no multicast, no bootstrap.
///
/// # Panics
/// Never: the addresses are constants.
#[must_use]
pub fn config(number: u32) -> Config {
    let listen = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];
    Config {
        key: key(number),
        network: NetworkName::default(),
        network_key: None,
        listen: listen.iter().filter_map(|address| address.parse().ok()).collect(),
        external: Vec::new(),
        bootstrap: Vec::new(),
        mdns: false,
        dht_mode: DhtMode::Auto,
        profile: Profile::Lan,
        connections: ConnectionLimits::standard(),
        allow: Vec::new(),
        memory_bytes_max: 16 << 30,
        agent: "wattle/test".to_owned(),
        faults: None,
    }
}

impl Node {
    /// Starts a node on a disk.
    ///
    /// # Panics
    /// When it does not start: a test cannot go on.
    pub async fn start_on(config: Config, disk: Disk) -> Self {
        let (persist, mut batches) = mpsc::channel::<PersistBatch>(64);
        let key = config.key.clone();
        let started = Overlay::start(config, disk.restored(), persist).await;
        let overlay = started.unwrap_or_else(|error| fail(&format!("a node did not start: {error}")));
        let writer = disk.clone();
        tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                writer.apply(batch);
            }
        });
        Self { overlay, key, disk }
    }

    /// Starts node `number` on an empty disk.
    pub async fn start(number: u32) -> Self {
        Self::start_on(config(number), Disk::default()).await
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.overlay.id()
    }

    /// Where it listens, with its id.
    ///
    /// # Panics
    /// When it has stopped.
    pub async fn addresses(&self) -> Vec<Address> {
        let status = self.overlay.status().await.unwrap_or_else(|error| fail(&error.to_string()));
        status.listening.iter().map(|address| address.with_peer(self.id())).collect()
    }

    /// Connects to another node.
    ///
    /// # Panics
    /// When that fails: a test cannot go on.
    pub async fn join(&self, other: &Self) {
        let joined = self.overlay.connect(Some(other.id()), other.addresses().await).await;
        if let Err(error) = joined {
            fail(&format!("{:?} did not reach {:?}: {error}", self.id(), other.id()));
        }
    }

    /// Who is connected.
    ///
    /// # Panics
    /// When it has stopped.
    pub async fn peers(&self) -> Vec<NodeId> {
        let status = self.overlay.status().await.unwrap_or_else(|error| fail(&error.to_string()));
        status.peers.iter().map(|peer| peer.peer).collect()
    }
}

#[expect(clippy::panic, reason = "a test that cannot go on ends with what happened")]
pub(crate) fn fail(what: &str) -> ! {
    panic!("{what}")
}

/// Waits until `condition` holds, asking every 20 ms, for at most [`PATIENCE`].
///
/// # Panics
/// When it does not, saying what was waited for.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    until_within(PATIENCE, what, condition).await;
}

/// Waits as [`until`] does, for as long as is said.
///
/// # Panics
/// As [`until`].
pub async fn until_within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let waited = tokio::time::timeout(patience, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    if waited.await.is_err() {
        fail(&format!("waited {patience:?} in vain for: {what}"));
    }
}

/// An overlay of `count` nodes, each joined through one earlier node.
pub async fn network(count: u32) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..count {
        let node = Node::start(number).await;
        // Node n joins through node n / 2: a tree of logarithmic depth, and nobody is everybody's friend.
        if let Some(friend) = nodes.get(usize::try_from(number / 2).unwrap_or(0)) {
            node.join(friend).await;
        }
        nodes.push(node);
    }
    nodes
}
