//! Documents about the DHT.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{
    Bytes, DhtClosestSchema, DhtGetSchema, DhtPeerSchema, DhtProvideSchema, DhtProvidersSchema, DhtPutSchema,
    DhtStatsSchema, DhtTableSchema, DhtTraceSchema, ErrorDocument, PeerName,
};

/// What to store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DhtPutRequest {
    /// The value, at most 8 KiB.
    pub value_b64: Bytes,
    /// Only the signed record: do not announce the name.
    #[serde(default)]
    pub mine: bool,
    /// How long a signed record lives, at most 48 h; when absent 24 h, and this node renews it before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// When to give up; 30 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A record was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtPutDocument {
    /// `wattle.dht_put/1`.
    pub schema: DhtPutSchema,
    /// The full path of the record: `/NETWORK/hash/..` or `/NETWORK/signed/OWNER/NAME`.
    pub key: String,
    /// What to give to `dht get`: `hash:..`, the bare name, or `OWNER/NAME`.
    pub get: String,
    /// Bytes stored.
    pub bytes: u64,
    /// The sequence number of a signed record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When a signed record becomes void.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Whether this node signs it anew before then.
    pub renewed: bool,
    /// Peers that gave the record back when asked for it.
    #[schema(value_type = Vec<String>)]
    pub stored_on: Vec<NodeId>,
    /// Peers it was offered to.
    pub offered_to: u64,
    /// Whether the bare name was announced, so that anybody can `get` it.
    pub announced: bool,
    /// How long it took.
    pub took_ms: u64,
    /// What did not work as it should have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One holder's valid answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtAnswer {
    /// Who answered, this node itself included.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The sequence number of its copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Whether it had the value chosen.
    pub current: bool,
}

/// One answer that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtRejected {
    /// Who answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<NodeId>,
    /// Which rule it broke.
    pub why: String,
}

/// A record found, and who had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtRecord {
    /// The full path of the record.
    pub key: String,
    /// The value.
    pub value_b64: Bytes,
    /// Who signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub owner: Option<NodeId>,
    /// The owner's petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_name: Option<String>,
    /// Its sequence number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When it becomes void.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Everybody who had a valid one.
    pub answers: Vec<DhtAnswer>,
    /// Answers refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<DhtRejected>,
    /// Peers asked.
    pub asked: u64,
}

/// The answer to `dht get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtGetDocument {
    /// `wattle.dht_get/1`.
    pub schema: DhtGetSchema,
    /// The key as it was asked for.
    pub key: String,
    /// The record chosen.
    pub record: DhtRecord,
    /// With `all=true`, the records of other owners under the same bare name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<DhtRecord>,
    /// How long it took.
    pub took_ms: u64,
    /// Such as that several owners use the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A key to announce, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DhtProvideRequest {
    /// `hash:..` or a bare name.
    pub key: String,
    /// When to give up; 30 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A key is announced, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtProvideDocument {
    /// `wattle.dht_provide/1`.
    pub schema: DhtProvideSchema,
    /// The key as it was given.
    pub key: String,
    /// Whether this node provides it now.
    pub provided: bool,
    /// How long it took.
    pub took_ms: u64,
}

/// Whose announcements to look for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DhtProvidersRequest {
    /// `hash:..` or a bare name.
    pub key: String,
    /// How many are enough; 20 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When to give up; 30 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Who announced a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtProvidersDocument {
    /// `wattle.dht_find_providers/1`.
    pub schema: DhtProvidersSchema,
    /// The key as it was given.
    pub key: String,
    /// Who.
    pub providers: Vec<PeerName>,
    /// How long it took.
    pub took_ms: u64,
}

/// Whom or what to look for in the DHT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DhtFindPeerRequest {
    /// A petname, short id or peer id.
    pub peer: String,
    /// When to give up; 30 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtPeerDocument {
    /// `wattle.dht_find_peer/1`.
    pub schema: DhtPeerSchema,
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it can be reached.
    pub addresses: Vec<String>,
    /// How long it took.
    pub took_ms: u64,
}

/// What to walk towards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DhtTargetRequest {
    /// A key (`hash:..`, a bare name, `OWNER/NAME`, a full path) or a peer (petname, short id, peer id). A
    /// peer's name or id goes before a key that is spelled the same.
    pub target: String,
    /// When to give up; 30 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A peer near a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtClosePeer {
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Leading bits its DHT id shares with the target's.
    pub shared_bits: u32,
    /// 256 less the shared bits: the length of the XOR distance.
    pub distance_bits: u32,
    /// Where it can be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// The peers nearest to a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtClosestDocument {
    /// `wattle.dht_closest/1`.
    pub schema: DhtClosestSchema,
    /// The target as it was given.
    pub target: String,
    /// The peers, nearest first.
    pub peers: Vec<DhtClosePeer>,
    /// How long it took.
    pub took_ms: u64,
}

/// This node's routing table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtTableDocument {
    /// `wattle.dht_table/1`.
    pub schema: DhtTableSchema,
    /// This node.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Peers in all buckets.
    pub size: u64,
    /// Buckets that hold somebody, farthest first.
    pub buckets: Vec<DhtBucket>,
}

/// One k-bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtBucket {
    /// Leading bits its peers share with this node.
    pub shared_bits: u32,
    /// The peers, closest use last.
    pub peers: Vec<DhtBucketPeer>,
}

/// A peer in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtBucketPeer {
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is connected now.
    pub connected: bool,
    /// Where it can be reached.
    pub addresses: Vec<String>,
}

/// A peer named in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloserPeer {
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Leading bits it shares with the target.
    pub shared_bits: u32,
}

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TraceLine {
    /// A peer is asked.
    Query(TraceStep),
    /// It answered.
    Response(TraceStep),
    /// It is nearer than everybody who answered before: each of these has more shared bits than the last.
    Closer(TraceStep),
    /// It was silent.
    Timeout(TraceStep),
    /// It could not be reached or broke off.
    Failed(TraceStep),
    /// The end of the walk.
    Done(TraceDone),
    /// The walk could not go on.
    Error {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Why.
        error: ErrorDocument,
    },
}

/// One question or answer of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// Hops from here: 1 for peers of the own table.
    pub hop: u32,
    /// Who.
    #[schema(value_type = String)]
    pub peer: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Leading bits it shares with the target.
    pub shared_bits: u32,
    /// 256 less the shared bits.
    pub distance_bits: u32,
    /// How long the answer took, dialing included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The peers the answer named, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closer: Vec<CloserPeer>,
    /// Whether the answer named the target itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_target: bool,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a trace ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceDone {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// `wattle.dht_trace/1`.
    pub schema: DhtTraceSchema,
    /// The target as it was given.
    pub target: String,
    /// Whether a peer that was looked for was found; for a key, whether anybody answered.
    pub found: bool,
    /// Hops to the best answer.
    pub hops: u32,
    /// Peers asked.
    pub queries: u32,
    /// Peers silent or unreachable.
    pub failures: u32,
    /// The whole time.
    pub took_ms: u64,
    /// The nearest peers that answered, best first.
    pub closest: Vec<DhtClosePeer>,
    /// The target peer's addresses, when a peer was looked for and found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// What the DHT did since the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DhtStatsDocument {
    /// `wattle.dht_stats/1`.
    pub schema: DhtStatsSchema,
    /// One row a kind of query.
    pub queries: Vec<DhtQueryStats>,
    /// Records held here.
    pub records_held: u64,
    /// Provider records held here.
    pub providers_held: u64,
    /// Keys this node publishes.
    pub published: u64,
    /// Records refused since the start.
    pub records_rejected: u64,
}

/// One kind of query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DhtQueryStats {
    /// `get`, `put`, `find_peer`, `closest`, `provide` or `find_providers`.
    pub kind: String,
    /// Queries ended.
    pub count: u64,
    /// Those that found or stored what they were for.
    pub ok: u64,
    /// Latency of the last 512; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Percentiles>,
}

/// Latency percentiles in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}
