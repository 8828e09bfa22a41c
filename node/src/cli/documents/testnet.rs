//! Documents about testnets.

use std::collections::BTreeMap;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{
    TestnetApplySchema, TestnetChaosSchema, TestnetDownSchema, TestnetLinksSchema, TestnetListSchema,
    TestnetNodesSchema, TestnetReportSchema, TestnetStatusSchema, TestnetUpSchema,
};
use crate::api::documents::SpreadName;

/// How far a testnet has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestnetPhase {
    /// `testnet up` is under way, or was ended in the middle.
    Starting,
    /// It was started.
    Up,
    /// It was stopped, and its files were kept.
    Down,
}

/// What the nodes of a testnet run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestnetBackend {
    /// A process for each: killing one is what a power cut would be
    #[default]
    Process,
    /// One process for all: many nodes with little memory
    Inproc,
    /// A process for each, in a network namespace: the kernel loses and limits (Linux, root)
    Netns,
}

impl TestnetBackend {
    /// Whether what is done to a process is done to several nodes.
    #[must_use]
    pub const fn shares_process(self) -> bool {
        matches!(self, Self::Inproc)
    }

    /// Whether each node has a network of its own, in which the kernel does what is done to links.
    #[must_use]
    pub const fn has_own_network(self) -> bool {
        matches!(self, Self::Netns)
    }

    /// As one types it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Inproc => "inproc",
            Self::Netns => "netns",
        }
    }
}

/// How a node of a testnet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestnetStanding {
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It does not run.
    Down,
}

/// A node of a testnet that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetStarted {
    /// How to name it: `wattle -t demo/0`.
    pub index: u32,
    /// Or so: `wattle -t demo/alice`.
    pub name: String,
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its process.
    pub pid: u32,
    /// Where other nodes reach it, QUIC and TCP; its API is on the port after it.
    pub port: u16,
}

/// A testnet that is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetUpDocument {
    /// What this is.
    pub schema: TestnetUpSchema,
    /// Its name.
    pub name: String,
    /// What its faults follow from.
    pub seed: u64,
    /// What its nodes run in.
    pub backend: TestnetBackend,
    /// Everything of it is in here.
    pub directory: String,
    /// Until all nodes answered.
    pub up_ms: u64,
    /// Until all were alive for all.
    pub alive_ms: u64,
    /// Its ordered log; absent when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<TestnetLog>,
    /// Each node.
    pub nodes: Vec<TestnetStarted>,
}

/// The ordered log of a testnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetLog {
    /// What names it.
    pub chain: String,
    /// Who votes.
    #[schema(value_type = Vec<String>)]
    pub validators: Vec<NodeId>,
    /// Where its first entry stands.
    pub height: u64,
    /// Until that was ordered for ever.
    pub first_block_ms: u64,
}

/// A testnet that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetDownDocument {
    /// What this is.
    pub schema: TestnetDownSchema,
    /// Its name.
    pub name: String,
    /// Processes that were ended.
    pub stopped: u64,
    /// Where its files are; absent when they are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// One testnet at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetRow {
    /// Its name.
    pub name: String,
    /// How far it has come.
    pub phase: TestnetPhase,
    /// Its nodes.
    pub nodes: u64,
    /// Those that run.
    pub running: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Where its files are.
    pub directory: String,
}

/// The testnets of this user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetListDocument {
    /// What this is.
    pub schema: TestnetListSchema,
    /// By name.
    pub testnets: Vec<TestnetRow>,
}

/// Who is cut off from whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetPartition {
    /// Nodes of one group reach each other.
    pub groups: Vec<Vec<u32>>,
    /// Nothing gets from the first group to the others, but everything back.
    pub one_way: bool,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

/// What is done to links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestnetShape {
    /// The two nodes; absent for every link that has no shape of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<[u32; 2]>,
    /// How much longer a round trip takes: half of it each way.
    #[serde(default)]
    pub latency_ms: f64,
    /// How much that varies.
    #[serde(default)]
    pub jitter_ms: f64,
    /// And how.
    #[serde(default)]
    pub spread: SpreadName,
    /// The share that is lost each way, 0 to 1.
    #[serde(default)]
    pub loss: f64,
    /// Bits in a second each way; 0 is no limit.
    #[serde(default)]
    pub rate_bits: u64,
}

/// What is done to a node itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetNodeFault {
    /// Which node.
    pub node: u32,
    /// It finds no space on its disk.
    #[serde(default)]
    pub disk_full: bool,
    /// How far its clock is ahead; negative when it is behind.
    #[serde(default)]
    pub clock_ms: i64,
}

/// A node of a testnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestnetNode {
    /// How to name it.
    pub index: u32,
    /// Or so.
    pub name: String,
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// How it does.
    pub state: TestnetStanding,
    /// Where other nodes reach it.
    pub port: u16,
    /// Its process, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its network namespace, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whether its API answered.
    pub answers: bool,
    /// Since it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// Resident memory; of a process with several nodes an equal share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// Time on processors since the process began; the same of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<u64>,
    /// Members that are alive for it, itself among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alive: Option<u64>,
}

/// How a testnet does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestnetStatusDocument {
    /// What this is.
    pub schema: TestnetStatusSchema,
    /// Its name.
    pub name: String,
    /// How far it has come.
    pub phase: TestnetPhase,
    /// What its faults follow from.
    pub seed: u64,
    /// What its nodes run in.
    pub backend: TestnetBackend,
    /// Where its files are.
    pub directory: String,
    /// Each node.
    pub nodes: Vec<TestnetNode>,
    /// Who is cut off from whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<TestnetPartition>,
    /// What is done to links.
    pub links: Vec<TestnetShape>,
    /// What is done to nodes.
    pub node_faults: Vec<TestnetNodeFault>,
}

/// What was done to nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestnetDone {
    /// Killed, as by a power cut.
    Killed,
    /// Frozen.
    Paused,
    /// Thawed.
    Resumed,
    /// Started again, with what it had on disk.
    Restarted,
    /// New.
    Added,
    /// Said goodbye, and its files are gone.
    Removed,
}

/// Nodes of a testnet, and what was done to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetNodesDocument {
    /// What this is.
    pub schema: TestnetNodesSchema,
    /// The testnet.
    pub name: String,
    /// What was done.
    pub done: TestnetDone,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Which nodes, by index.
    pub nodes: Vec<u32>,
}

/// The faults of the links of a testnet, after they were changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestnetLinksDocument {
    /// What this is.
    pub schema: TestnetLinksSchema,
    /// The testnet.
    pub name: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who is cut off from whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<TestnetPartition>,
    /// What is done to links.
    pub links: Vec<TestnetShape>,
    /// What is done to nodes.
    pub node_faults: Vec<TestnetNodeFault>,
    /// Nodes that do not run or are frozen: they have it when they do.
    pub later: Vec<u32>,
}

/// What a command said and how it ended at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestnetExecKind {
    /// The only kind.
    Exec,
}

/// One line of `testnet exec --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetExecLine {
    /// `exec`.
    #[serde(rename = "type")]
    pub kind: TestnetExecKind,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// At which node.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The exit status; absent when a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// The kind of a line of `testnet logs --json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestnetLogKind {
    /// The only kind.
    Log,
}

/// One line of a node's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetLogLine {
    /// `log`.
    #[serde(rename = "type")]
    pub kind: TestnetLogKind,
    /// When; of a line without a time of its own, that of the one before it.
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// Whose.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The line, without its time.
    pub text: String,
}

/// Something that was done to a testnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetEvent {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What, as one would type it: `partition 0,1 2,3,4`.
    pub what: String,
}

/// Something that was checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestnetCheck {
    /// What: `membership`, `docs`, `chat`, `dht`, `memory`.
    pub name: String,
    /// Whether it holds; absent when there was nothing to check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<bool>,
    /// What was seen, in one line.
    pub summary: String,
    /// From the beginning of the report until it held; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_after_ms: Option<u64>,
    /// What it follows from, by node.
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    pub evidence: BTreeMap<String, serde_json::Value>,
}

/// What a testnet was put through, and what held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestnetReportDocument {
    /// What this is.
    pub schema: TestnetReportSchema,
    /// The testnet.
    pub name: String,
    /// What its faults follow from.
    pub seed: u64,
    /// When it was looked at.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whether everything that was checked holds.
    pub pass: bool,
    /// What was done to it.
    pub events: Vec<TestnetEvent>,
    /// What was checked.
    pub checks: Vec<TestnetCheck>,
    /// Who is cut off from whom now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<TestnetPartition>,
    /// What is done to links now.
    pub links: Vec<TestnetShape>,
    /// Its nodes.
    pub nodes: Vec<TestnetNode>,
    /// The files that were written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// One step of a chaos.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetChaosStep {
    /// When it was to be done, from the beginning.
    pub at_ms: u64,
    /// What, as one would type it.
    pub what: String,
    /// When it was done; absent when nothing was done.
    #[serde(rename = "done_ms", skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
}

/// What a testnet was put through by chance, and what held afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestnetChaosDocument {
    /// What this is.
    pub schema: TestnetChaosSchema,
    /// The testnet.
    pub name: String,
    /// What the steps follow from.
    pub seed: u64,
    /// In order.
    pub steps: Vec<TestnetChaosStep>,
    /// What held when it was over; absent when nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<TestnetReportDocument>,
}

/// A testnet that is as a file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestnetApplyDocument {
    /// What this is.
    pub schema: TestnetApplySchema,
    /// The testnet.
    pub name: String,
    /// Everything of it is in here.
    pub directory: String,
    /// How many nodes it has.
    pub nodes: u64,
    /// How many of them vote.
    pub validators: u64,
    /// Whether anything was done, or with `--dry-run` would be.
    pub changed: bool,
    /// What was done before the faults, as one would type it; `links` is what links are like.
    pub did: Vec<String>,
    /// The faults that were done now.
    pub faults: Vec<TestnetChaosStep>,
    /// How many were done before.
    pub faults_before: u64,
}
