//! What the overlay answers: one plain type per question, one error enum per operation.

use std::time::Duration;

use tokio::sync::oneshot;
use wattle_types::{
    NodeId, ProviderKey, Record, RecordKey, RejectedRecord, TopicMessage, TopicPattern, Write,
};

use crate::Address;

/// The overlay task is gone; nothing can be asked of it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

/// Writes that must reach the disk together. `done` is answered when they are durable.
#[derive(Debug)]
pub struct PersistBatch {
    /// The changes.
    pub writes: Vec<Write>,
    /// Answered after the disk has them; dropped when it never will.
    pub done: Option<oneshot::Sender<()>>,
}

/// A connected peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Who.
    pub peer: NodeId,
    /// How it is reached.
    pub path: Path,
    /// Smoothed round trip, once one was measured.
    pub rtt: Option<Duration>,
    /// How long it has been connected.
    pub connected: Duration,
    /// Whether this node dialed.
    pub outbound: bool,
    /// What it calls itself.
    pub agent: Option<String>,
    /// The protocols it speaks.
    pub protocols: Vec<String>,
    /// Where it says it listens.
    pub listens: Vec<Address>,
    /// Bytes received from it since it connected.
    pub bytes_in: u64,
    /// Bytes sent to it since it connected.
    pub bytes_out: u64,
    /// How it was found.
    pub source: Source,
}

/// How a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Directly or through somebody.
    pub kind: PathKind,
    /// Over what.
    pub transport: Transport,
    /// The other end.
    pub address: Address,
}

/// Directly or through somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Directly.
    Direct,
    /// Through a relay.
    Relayed {
        /// Which peer relays.
        via: NodeId,
    },
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// QUIC over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
}

/// How a peer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// It dialed us, or the DHT told of it.
    Overlay,
    /// From an earlier run.
    AddressBook,
    /// Configured.
    Bootstrap,
    /// Multicast on the local network.
    Mdns,
    /// A file of another node on this machine.
    SameMachine,
    /// Somebody typed it, or a ticket had it.
    Asked,
}

/// Why a dial failed. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The node stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// It is this node.
    #[error("that is this node itself")]
    Myself,
    /// No address of the peer is known.
    #[error("no address of the peer is known")]
    NoAddress,
    /// The peer is blocked here.
    #[error("the peer is blocked here")]
    Blocked,
    /// Somebody else answered at that address.
    #[error("another peer answered there: {0}")]
    WrongPeer(NodeId),
    /// Every address was tried.
    #[error("no address answered: {}", said(tried))]
    Unreachable {
        /// What each address said.
        tried: Vec<(Address, String)>,
    },
    /// The peer answered and then hung up, mostly because it belongs to another network.
    #[error("the peer hung up: {0}")]
    HungUp(String),
}

fn said(tried: &[(Address, String)]) -> String {
    let said = tried.iter().map(|(address, why)| format!("{address}: {why}"));
    said.collect::<Vec<_>>().join("; ")
}

/// Why a ping got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// The node stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Not connected, and connecting failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No answer in time.
    #[error("no answer after {0:?}")]
    Timeout(Duration),
    /// The peer broke off.
    #[error("the peer broke off: {0}")]
    Broken(String),
}

/// The answer to a ping.
#[derive(Clone, Debug)]
pub struct Pong {
    /// The round trip.
    pub rtt: Duration,
    /// The path it took.
    pub path: Path,
}

/// How the overlay is doing, at a glance.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where this node listens.
    pub listening: Vec<Address>,
    /// Where others can reach it, as far as is known.
    pub external: Vec<Address>,
    /// Connected peers.
    pub peers: Vec<PeerInfo>,
    /// Whether this node answers DHT queries.
    pub dht_server: bool,
    /// Peers in the routing table.
    pub table_size: usize,
    /// Buckets that hold some.
    pub table_buckets: usize,
    /// Records held for the overlay.
    pub records_held: usize,
    /// Keys this node provides or publishes.
    pub published: usize,
    /// The local network.
    pub lan: LanStatus,
    /// Configured bootstrap addresses.
    pub bootstrap: usize,
    /// Peers in the address book.
    pub address_book: usize,
    /// Connections that arrived from the internet since the start: the proof that others can dial this node.
    pub inbound_seen: u64,
    /// Time since the overlay started.
    pub up: Duration,
}

/// What multicast brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanStatus {
    /// Switched off.
    Off,
    /// On, and nobody was heard.
    Silent,
    /// On, and so many peers were heard.
    Heard(usize),
}

/// Why a DHT operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DhtError {
    /// The node stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// No peer to ask.
    #[error("no peers to ask: this node knows nobody in the DHT yet")]
    Alone,
    /// Nobody asked has it.
    #[error("asked {asked} peers, none has it")]
    NotFound {
        /// How many were asked.
        asked: u32,
        /// Answers that were there but did not hold what their key promises.
        rejected: Vec<RejectedAnswer>,
    },
    /// Time ran out.
    #[error("timed out after {after:?}: asked {asked} peers, {answered} answered")]
    Timeout {
        /// How many were asked.
        asked: u32,
        /// How many answered.
        answered: u32,
        /// How long it took.
        after: Duration,
    },
    /// Too much is asked at once.
    #[error("this node has {0} DHT queries under way, the most it does at once; try again")]
    Busy(usize),
    /// Nobody took the record.
    #[error("no peer stored it: asked {asked}")]
    NotStored {
        /// How many were asked.
        asked: u32,
    },
    /// The record breaks a rule, found before anything was sent.
    #[error("the record is not valid: {0}")]
    Invalid(#[from] RejectedRecord),
    /// This node holds a newer record under the key.
    #[error("a newer record is known (sequence {current}, yours {got})")]
    Stale {
        /// The sequence offered.
        got: u64,
        /// The sequence known.
        current: u64,
    },
    /// Too many keys published.
    #[error("this node already publishes {0} keys, the most it keeps alive")]
    TooMany(usize),
}

/// One holder's valid answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answered (this node itself included).
    pub peer: NodeId,
    /// The sequence number of its copy.
    pub sequence: Option<u64>,
    /// Whether it had the value chosen.
    pub current: bool,
}

/// One answer that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedAnswer {
    /// Who answered.
    pub peer: Option<NodeId>,
    /// Which rule it broke.
    pub why: RejectedRecord,
}

/// A record found, and who had it.
#[derive(Clone, Debug)]
pub struct FoundRecord {
    /// The best valid one.
    pub record: Record,
    /// Everybody who had a valid one.
    pub answers: Vec<Answer>,
    /// Answers refused.
    pub rejected: Vec<RejectedAnswer>,
    /// Peers asked.
    pub asked: u32,
    /// How long it took.
    pub took: Duration,
}

/// Where a record was stored, read back rather than believed.
#[derive(Clone, Debug)]
pub struct PutReport {
    /// Peers that gave the record back when asked for it.
    pub stored_on: Vec<NodeId>,
    /// Those, and the near ones that answered without it.
    pub offered_to: u32,
    /// How long it took.
    pub took: Duration,
}

/// A peer near a key.
#[derive(Clone, Debug)]
pub struct ClosestPeer {
    /// Who.
    pub peer: NodeId,
    /// Leading bits its DHT id shares with the key's.
    pub shared_bits: u32,
    /// Where it can be reached.
    pub addresses: Vec<Address>,
}

/// One k-bucket of the routing table.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Leading bits its peers share with this node.
    pub shared_bits: u32,
    /// The peers, closest use last.
    pub peers: Vec<BucketPeer>,
}

/// A peer in a bucket.
#[derive(Clone, Debug)]
pub struct BucketPeer {
    /// Who.
    pub peer: NodeId,
    /// Whether it is connected now.
    pub connected: bool,
    /// Where it can be reached.
    pub addresses: Vec<Address>,
}

/// What the DHT did since the start.
#[derive(Clone, Debug, Default)]
pub struct DhtStats {
    /// One row a kind of query (`get`, `put`, ...): count, successes, and latencies in milliseconds.
    pub queries: Vec<QueryStats>,
    /// Records held here.
    pub records_held: usize,
    /// Provider records held here.
    pub providers_held: usize,
    /// Keys this node publishes.
    pub published: usize,
    /// Records refused since the start.
    pub records_rejected: u64,
}

/// One kind of query.
#[derive(Clone, Debug)]
pub struct QueryStats {
    /// `get`, `put`, `find_peer`, `closest`, `provide`, `find_providers`.
    pub kind: &'static str,
    /// Queries ended.
    pub count: u64,
    /// Those that found or stored what they were for.
    pub ok: u64,
    /// Median of the last 512, milliseconds.
    pub p50_ms: f64,
    /// 90th percentile of the last 512, milliseconds.
    pub p90_ms: f64,
    /// 99th percentile of the last 512, milliseconds.
    pub p99_ms: f64,
}

/// What a trace looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceTarget {
    /// A peer.
    Peer(NodeId),
    /// The peers nearest to a record's key.
    Record(RecordKey),
    /// The peers nearest to a provider key.
    Provider(ProviderKey),
}

/// One step of a trace.
#[derive(Clone, Debug)]
pub enum TraceEvent {
    /// A peer is asked.
    Query {
        /// Hops from here: 1 for peers from our own table.
        hop: u32,
        /// Who is asked.
        peer: NodeId,
        /// Leading bits it shares with the target.
        shared_bits: u32,
    },
    /// It answered.
    Response {
        /// Hops from here.
        hop: u32,
        /// Who answered.
        peer: NodeId,
        /// Leading bits it shares with the target.
        shared_bits: u32,
        /// How long it took, dialing included.
        rtt: Duration,
        /// The peers it named, with their shared bits, best first.
        closer: Vec<(NodeId, u32)>,
        /// Whether it named the target itself.
        has_target: bool,
    },
    /// It is nearer than everybody who answered before: the way to the target, each step with more shared bits.
    Closer {
        /// Hops from here.
        hop: u32,
        /// Who is nearer.
        peer: NodeId,
        /// Leading bits it shares with the target.
        shared_bits: u32,
    },
    /// It did not answer.
    Failed {
        /// Hops from here.
        hop: u32,
        /// Who did not.
        peer: NodeId,
        /// Leading bits it shares with the target.
        shared_bits: u32,
        /// Whether it was silent (rather than unreachable).
        timed_out: bool,
        /// What happened.
        why: String,
    },
}

/// How a trace ended.
#[derive(Clone, Debug)]
pub struct TraceReport {
    /// Hops to the best answer.
    pub hops: u32,
    /// Peers asked.
    pub queries: u32,
    /// Peers silent or unreachable.
    pub failures: u32,
    /// The whole time.
    pub took: Duration,
    /// The nearest peers that answered, best first, at most 20.
    pub closest: Vec<ClosestPeer>,
    /// The target peer's addresses, when a peer was looked for and found.
    pub target: Option<Vec<Address>>,
}

/// Why nothing was published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The node stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The payload is too large.
    #[error("{got} bytes are more than the {max} a message may have")]
    TooLarge {
        /// Bytes offered.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The outgoing queues are full: nothing was sent.
    #[error("the network does not keep up; nothing was sent")]
    Busy,
}

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Mesh peers (or known subscribers, when this node does not follow the topic itself) that it was given
    /// to.
    pub mesh_peers: usize,
    /// Subscribers on this node that got it.
    pub local: usize,
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It could not be sent.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Nobody answered in time.
    #[error("no answer after {after:?}; {listeners} peers follow the topic")]
    Timeout {
        /// How long was waited.
        after: Duration,
        /// How many peers got the request.
        listeners: usize,
    },
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who published it (its signature was checked).
    pub from: NodeId,
    /// The publisher's sequence number.
    pub sequence: Option<u64>,
    /// The message.
    pub message: TopicMessage,
}

/// So many messages were lost because the reader was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged(pub u64);

/// A topic root this node follows or publishes to.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// The root word.
    pub root: String,
    /// The patterns followed below it, with the number of followers of each.
    pub patterns: Vec<(TopicPattern, usize)>,
    /// Peers in the mesh.
    pub mesh: Vec<NodeId>,
    /// Connected peers that follow the root.
    pub subscribers: Vec<NodeId>,
    /// Messages received since the start.
    pub received: u64,
    /// Messages published since the start.
    pub published: u64,
}
