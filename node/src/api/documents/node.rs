//! Documents about this node as a whole.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{DoctorSchema, MembersStatus, OrderSummary, admin::LogLine};
use super::{
    ErrorDocument, EventLine, HealthSchema, IdSchema, NeighbourSchema, RunSchema, RuntimeSchema,
    StatusSchema, StopSchema, VersionSchema, WaitSchema,
};

/// The one-word answer to "is anything wrong".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is.
    Ok,
    /// Something is; the warnings say what.
    Degraded,
    /// Up, but no peer is connected 10 s after the start.
    Alone,
    /// The ordered log cannot commit.
    NoQuorum,
}

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Warning {
    /// lower_snake and stable, such as `mdns_silent`.
    pub code: String,
    /// What is known, in one line.
    pub message: String,
    /// What to do or type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How the node is doing, on one screen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusDocument {
    /// `wattle.status/1`.
    pub schema: StatusSchema,
    /// The one-word answer.
    pub verdict: Verdict,
    /// The verdict line for a person.
    pub summary: String,
    /// What is wrong, most important first; empty when nothing is.
    pub warnings: Vec<Warning>,
    /// The process.
    pub node: NodeStatus,
    /// The network it is in.
    pub network: NetworkStatus,
    /// Its connections.
    pub peers: PeersStatus,
    /// The members of the network, as this node sees them.
    pub members: MembersStatus,
    /// Its part in the DHT.
    pub dht: DhtStatus,
    /// The ordered log that it keeps; absent when it keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderSummary>,
    /// Where it is reached by programs on this machine.
    pub api: ApiStatus,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// The name on this machine, chosen with `-n`.
    pub name: String,
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// The version of the program.
    pub version: String,
    /// The process id.
    pub pid: u32,
    /// Since the start.
    pub uptime_ms: u64,
    /// Resident memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
}

/// The network a node is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    /// Its name.
    pub name: String,
    /// Whether it has a network key.
    pub private: bool,
    /// Whether others can dial this node, as far as is known.
    pub reachability: Reachability,
    /// The local network.
    pub lan: LanState,
    /// Peers heard by multicast; absent when multicast is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lan_heard: Option<u64>,
    /// Relays in use.
    #[schema(value_type = Vec<String>)]
    pub relays: Vec<NodeId>,
    /// Where this node listens.
    pub listen: Vec<String>,
    /// Where others can reach it, as far as is known.
    pub external: Vec<String>,
    /// Configured bootstrap addresses.
    pub bootstrap: u64,
    /// Peers remembered from earlier.
    pub address_book: u64,
    /// Connections that arrived from outside since the start.
    pub inbound_seen: u64,
}

/// Whether others can dial a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reachability {
    /// Somebody did, or an external address is known.
    Public,
    /// Only through a relay.
    Private,
    /// Nobody has tried yet.
    Unknown,
}

/// What multicast brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LanState {
    /// Switched off.
    Off,
    /// On, and nobody was heard.
    Silent,
    /// On, and somebody was heard.
    Heard,
}

/// Connections, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeersStatus {
    /// All.
    pub total: u64,
    /// Without a relay.
    pub direct: u64,
    /// Through a relay.
    pub relayed: u64,
    /// Over QUIC.
    pub quic: u64,
    /// Over TCP.
    pub tcp: u64,
}

/// A node's part in the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DhtStatus {
    /// Whether it answers queries of others.
    pub mode: DhtModeName,
    /// Peers in its routing table.
    pub table_size: u64,
    /// Buckets that hold some.
    pub buckets: u64,
    /// Records it holds for the overlay.
    pub records_held: u64,
    /// Keys it publishes or provides.
    pub published: u64,
}

/// Whether a node answers DHT queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DhtModeName {
    /// It answers.
    Server,
    /// It only asks.
    Client,
}

/// Where programs on this machine reach a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiStatus {
    /// `unix:/path`.
    pub socket: String,
    /// `http://127.0.0.1:7711`, when TCP is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Who a node is, or what is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdDocument {
    /// `wattle.id/1`.
    pub schema: IdSchema,
    /// The peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its last six characters.
    pub short: String,
    /// The node's name on this machine, or the peer's petname.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is this node.
    pub this_node: bool,
    /// The network.
    pub network: String,
    /// Whether it is connected now (peers only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// Where it can be reached.
    pub addresses: Vec<String>,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The protocols it speaks, when known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<String>,
}

/// Which program answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionDocument {
    /// `wattle.version/1`.
    pub schema: VersionSchema,
    /// The version of the program.
    pub version: String,
    /// The version of this API.
    pub api: String,
}

/// How bad one check came out: the Nagios set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthLevel {
    /// Exit 0.
    Ok,
    /// Exit 1.
    Warning,
    /// Exit 2.
    Critical,
    /// Exit 3.
    Unknown,
}

impl HealthLevel {
    /// The exit status of `wattle health`.
    #[must_use]
    pub const fn exit(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheck {
    /// What was looked at: `store`, `listening`, `peers`, `dht`, `memory`, ...
    pub name: String,
    /// How it came out.
    pub level: HealthLevel,
    /// What was seen.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The health of a node for monitors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthDocument {
    /// `wattle.health/1`.
    pub schema: HealthSchema,
    /// The worst of the checks.
    pub level: HealthLevel,
    /// The exit status of `wattle health`: 0 ok, 1 warning, 2 critical, 3 unknown.
    pub exit: u8,
    /// One line.
    pub summary: String,
    /// Connected peers.
    pub peers: u64,
    /// Since the start.
    pub uptime_ms: u64,
    /// Each check.
    pub checks: Vec<HealthCheck>,
}

/// What `wattle doctor` gathers for a report of a fault; secrets are never in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DoctorDocument {
    /// `wattle.doctor/1`.
    pub schema: DoctorSchema,
    /// The version of the program.
    pub version: String,
    /// Each check, those that need no node first.
    pub checks: Vec<HealthCheck>,
    /// The node's status, when it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusDocument>,
    /// The newest lines of its log, when it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// Why the node did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDocument>,
}

/// A condition that came true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitDocument {
    /// `wattle.wait/1`.
    pub schema: WaitSchema,
    /// Whether the node is ready.
    pub ready: bool,
    /// Connected peers.
    pub peers: u64,
    /// Members that are alive, with this node.
    pub members: u64,
    /// How long it took.
    pub waited_ms: u64,
}

/// How to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Do not say goodbye first.
    #[serde(default)]
    pub now: bool,
}

/// The node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StopDocument {
    /// `wattle.stop/1`.
    pub schema: StopSchema,
    /// The process that will be gone in at most two seconds.
    pub pid: u32,
}

/// One line of `wattle run --json`: first `ready`, then what happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RunLine {
    /// The first line.
    Ready(ReadyLine),
    /// Any other.
    Event(EventLine),
}

/// The node listens and its API answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyLine {
    /// `ready`.
    #[serde(rename = "type")]
    pub kind: ReadyKind,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// `wattle.run/1`.
    pub schema: RunSchema,
    /// The node's name on this machine.
    pub name: String,
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// The network.
    pub network: String,
    /// Where it listens.
    pub listen: Vec<String>,
    /// `unix:/path`.
    pub api: String,
    /// `http://127.0.0.1:7711`, when TCP is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The process.
    pub pid: u32,
    /// Whether this run made the node's key.
    pub created: bool,
    /// From the start of the process.
    pub ready_ms: u64,
}

/// The type of a [`ReadyLine`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadyKind {
    /// `ready`.
    #[default]
    Ready,
}

/// `api.json` in the runtime directory: how to reach a running node. Written at the start, removed at the
/// end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuntimeDocument {
    /// `wattle.runtime/1`.
    pub schema: RuntimeSchema,
    /// The process.
    pub pid: u32,
    /// Since when it runs.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// The version of the program.
    pub version: String,
    /// The node's peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// The network.
    pub network: String,
    /// The Unix socket.
    pub socket: String,
    /// `http://127.0.0.1:7711`, when TCP is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The file with the admin token for TCP clients.
    pub token_file: String,
    /// The peer-to-peer port, when there is one for all transports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// `neighbour.json` in the runtime directory: how other nodes on this machine find this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NeighbourDocument {
    /// `wattle.neighbour/1`.
    pub schema: NeighbourSchema,
    /// The process.
    pub pid: u32,
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// What the node is called on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The network.
    pub network: String,
    /// Where it listens, as seen from this machine.
    pub addresses: Vec<String>,
}
