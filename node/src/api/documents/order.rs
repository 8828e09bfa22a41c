//! Documents about the ordered log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{
    Bytes, ErrorDocument, OrderBlockSchema, OrderChangeSchema, OrderJoinSchema, OrderLogSchema,
    OrderRestoreSchema, OrderSnapshotSchema, OrderSnapshotsSchema, OrderStatusSchema, OrderSubmissionsSchema,
    OrderSubmitSchema, OrderValidatorsSchema, OrderVerifySchema,
};

/// What this node does for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderRole {
    /// It votes.
    Validator,
    /// It checks and keeps everything, and says nothing.
    Follower,
    /// The log on disk cannot be used.
    Broken,
}

/// The ordered log in the status of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderSummary {
    /// What this node does for it.
    pub role: OrderRole,
    /// Which of how many validators this node is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seat: Option<u64>,
    /// How many validators there are.
    pub of: u64,
    /// How far it is.
    pub height: u64,
    /// Whose turn it is, counted.
    pub view: u64,
    /// Whose turn it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub leader: Option<NodeId>,
    /// Its petname here, else what it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_name: Option<String>,
    /// Since the last commit; absent before the first since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_commit_ms_ago: Option<u64>,
    /// Whether enough validators are there, as far as this node can tell.
    pub quorum: bool,
}

/// A genesis, to keep its log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderJoinRequest {
    /// The file that `wattle order init` wrote, as it is.
    #[schema(value_type = Object)]
    pub genesis: serde_json::Value,
}

/// This node keeps a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderJoinDocument {
    /// `wattle.order_join/1`.
    pub schema: OrderJoinSchema,
    /// What names the log.
    pub chain: String,
    /// What this node does for it.
    pub role: OrderRole,
    /// How many validators there are.
    pub validators: u64,
    /// How far the log is here.
    pub height: u64,
}

/// How long to wait for an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderWait {
    /// Until it stands in the log for ever.
    #[default]
    Commit,
    /// Until this node has it in memory, or on a node that follows, until validators have: it may still be lost.
    Accept,
}

/// Something to order.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderSubmitRequest {
    /// For which app; `note/1`, which nobody reads, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// What it says.
    pub data_b64: Bytes,
    /// How long to wait.
    #[serde(default)]
    pub wait: OrderWait,
    /// When to give up; 30 s when absent, 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Tells two entries apart that are otherwise alike. With the same `until_ms` and this, the same entry is submitted
    /// again and ordered once. Drawn at random when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<u64>,
    /// Until when it may be ordered, in milliseconds since 1970; a minute from now when absent, two at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// How far an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderEntryState {
    /// It stands in the log for ever.
    Ordered,
    /// It waits to be ordered.
    Accepted,
}

/// What became of what was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderSubmitDocument {
    /// `wattle.order_submit/1`.
    pub schema: OrderSubmitSchema,
    /// How far it is.
    pub state: OrderEntryState,
    /// The hash that names the entry.
    pub entry: String,
    /// The block it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// Its place there, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// How long it took.
    pub took_ms: u64,
    /// The proof that it stands there, for whoever has the genesis: a file, to be kept byte by byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt_b64: Option<Bytes>,
}

/// The certificate that committed the tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderHighQc {
    /// Its view.
    pub view: u64,
    /// What it commits.
    pub height: u64,
    /// How many voted.
    pub votes: u64,
    /// Of how many.
    pub of: u64,
    /// Since when it is known here.
    pub age_ms: u64,
}

/// From when an entry was submitted here until it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OrderLatency {
    /// Half of them took at most this.
    pub p50: f64,
    /// All but one in a hundred.
    pub p99: f64,
}

/// A validator as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderValidator {
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here, else what it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What its vote counts.
    pub weight: u64,
    /// In how many of the last 20 certificates it voted.
    pub votes_last_20: u64,
    /// The same one by one, the eldest first: `#` voted, `.` did not.
    pub votes: String,
    /// Since its last vote in a certificate that was seen here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_vote_ms_ago: Option<u64>,
    /// Whether it could vote now, as far as this node can tell.
    pub reachable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether it is this node.
    pub myself: bool,
}

/// How the log does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OrderStatusDocument {
    /// `wattle.order_status/1`.
    pub schema: OrderStatusSchema,
    /// `hotstuff`.
    pub engine: String,
    /// What names the log.
    pub chain: String,
    /// What this node does for it.
    pub role: OrderRole,
    /// Whether this node signs. A validator does not while it starts or catches up, or after an alarm.
    pub signs: bool,
    /// It waits to hear where the others are; one that joins a log under way, until they are two turns further.
    pub starting: bool,
    /// It fetches what it missed.
    pub syncing: bool,
    /// Which epoch it is: with each one others vote.
    pub epoch: u64,
    /// Which turn it is.
    pub view: u64,
    /// How long it lasts.
    pub view_age_ms: u64,
    /// How far the log is.
    pub height: u64,
    /// The height of the first block that this node keeps; it began on a snapshot, or the log was compacted, where that
    /// is not 1.
    pub first: u64,
    /// Whose turn it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub leader: Option<NodeId>,
    /// What committed the tip; absent before the first commit since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_qc: Option<OrderHighQc>,
    /// How many validators are enough, if all count alike.
    pub quorum: u64,
    /// How many are there, as far as this node can tell.
    pub reachable: u64,
    /// Whether they are enough.
    pub has_quorum: bool,
    /// Entries a second, over ten.
    pub tps: f64,
    /// Over the last 256 entries that were submitted here; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_ms: Option<OrderLatency>,
    /// Turns that took too long here within the hour.
    pub timeouts_last_hour: u64,
    /// Entries that wait to be ordered.
    pub waiting: u64,
    /// Everybody who votes.
    pub validators: Vec<OrderValidator>,
    /// Validators that some approve for the next epoch.
    pub changes: Vec<OrderChange>,
    /// What an operator has to know.
    pub alarms: Vec<String>,
}

/// Validators that some approve for the next epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderChange {
    /// Who is to vote.
    #[schema(value_type = Vec<String>)]
    pub validators: Vec<NodeId>,
    /// Who approved it so far.
    #[schema(value_type = Vec<String>)]
    pub approved: Vec<NodeId>,
    /// How many of them vote now.
    pub votes: u64,
    /// How many of those are enough, if all count alike.
    pub quorum: u64,
    /// Who is to vote and has not approved it yet.
    #[schema(value_type = Vec<String>)]
    pub missing: Vec<NodeId>,
}

/// What is asked to change the validators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderChangeRequest {
    /// Who is to vote from the next epoch on.
    #[schema(value_type = Vec<String>)]
    pub validators: Vec<NodeId>,
    /// The epoch that is to end: the one that is under way.
    pub epoch: u64,
    /// How long to wait until it is ordered, in milliseconds; half a minute when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What this node approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderChangeDocument {
    /// `wattle.order_change/1`.
    pub schema: OrderChangeSchema,
    /// The epoch that is to end.
    pub epoch: u64,
    /// Whether it counts: who joins is heard once somebody who votes wants it.
    pub heard: bool,
    /// How far it is.
    pub change: OrderChange,
}

/// Everybody who votes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderValidatorsDocument {
    /// `wattle.order_validators/1`.
    pub schema: OrderValidatorsSchema,
    /// What names the log.
    pub chain: String,
    /// By seat.
    pub validators: Vec<OrderValidator>,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderEntry {
    /// The block it stands in.
    pub height: u64,
    /// Its place there, from 0.
    pub index: u64,
    /// The hash that names it.
    pub entry: String,
    /// For which app.
    pub app: String,
    /// The time of its block, by the clock of who proposed it.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// What it says.
    pub data_b64: Bytes,
}

/// Entries, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderLogDocument {
    /// `wattle.order_log/1`.
    pub schema: OrderLogSchema,
    /// How far the log is here.
    pub height: u64,
    /// The height to read on from.
    pub next: u64,
    /// The entries.
    pub entries: Vec<OrderEntry>,
}

/// A block of the log, or one entry of it with its receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderBlockDocument {
    /// `wattle.order_block/1`.
    pub schema: OrderBlockSchema,
    /// The block.
    pub block: OrderBlock,
    /// Its entries, or the one that was asked for.
    pub entries: Vec<OrderEntry>,
    /// The proof that the one entry stands there: a file, to be kept byte by byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt_b64: Option<Bytes>,
}

/// A block of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderBlock {
    /// Where it stands.
    pub height: u64,
    /// What names it.
    pub block: String,
    /// In which turn it was proposed.
    pub view: u64,
    /// Who proposed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub leader: Option<NodeId>,
    /// When, by that one's clock.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// How many entries it has.
    pub count: u64,
}

/// A line of the log as it grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OrderLine {
    /// A block, empty ones too.
    Block {
        /// When it was told.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// The block.
        #[serde(flatten)]
        block: OrderBlock,
    },
    /// An entry.
    Entry {
        /// When it was told.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// The entry.
        #[serde(flatten)]
        entry: OrderEntry,
    },
    /// It ended.
    Error {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Why.
        error: ErrorDocument,
    },
}

/// A receipt to check.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderVerifyRequest {
    /// The receipt, as it was given.
    #[schema(value_type = Object)]
    pub receipt: serde_json::Value,
    /// The genesis of its log; that of this node's log when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub genesis: Option<serde_json::Value>,
}

/// A receipt that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderVerifyDocument {
    /// `wattle.order_verify/1`.
    pub schema: OrderVerifySchema,
    /// What names the log.
    pub chain: String,
    /// The hash that names the entry.
    pub entry: String,
    /// For which app it is.
    pub app: String,
    /// What it says.
    pub data_b64: Bytes,
    /// The block it stands in.
    pub height: u64,
    /// Its place there, from 0.
    pub index: u64,
    /// Who signed.
    #[schema(value_type = Vec<String>)]
    pub signers: Vec<NodeId>,
    /// Of how many.
    pub of: u64,
    /// The digest of the apps' state that the block vouches for, and at which height; absent where it vouches for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_root: Option<String>,
}

/// Write the log into a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderSnapshotRequest {
    /// Which file, on the machine of the node; one in its data directory when absent. What is there is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Then remove the blocks that nobody needs who has the newest snapshot.
    #[serde(default)]
    pub compact: bool,
}

/// A log in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderArchive {
    /// The file.
    pub file: String,
    /// How large it is.
    pub bytes: u64,
    /// What names the log.
    pub chain: String,
    /// The height of its last block.
    pub height: u64,
    /// The height of the state in it; every block behind it is in the file. 0: all blocks are.
    pub state_height: u64,
    /// The time of its last block.
    #[schema(value_type = String)]
    pub time: Timestamp,
}

/// The log was written into a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderSnapshotDocument {
    /// `wattle.order_snapshot/1`.
    pub schema: OrderSnapshotSchema,
    /// The file.
    pub snapshot: OrderArchive,
    /// How many blocks were removed.
    pub removed: u64,
    /// The height of the first block that this node keeps.
    pub first: u64,
}

/// A file that is called like one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OrderArchiveRow {
    /// A log.
    Archive(OrderArchive),
    /// Something else.
    Damaged {
        /// The file.
        file: String,
        /// Why it is none.
        why: String,
    },
}

/// The newest state for which a quorum vouches: what nodes are given that begin without the blocks before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderCertified {
    /// At which height.
    pub height: u64,
    /// How large it is.
    pub bytes: u64,
}

/// The logs in files that this node wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderSnapshotsDocument {
    /// `wattle.order_snapshots/1`.
    pub schema: OrderSnapshotsSchema,
    /// The files in its data directory, the newest last.
    pub snapshots: Vec<OrderArchiveRow>,
    /// The state that others are given, if there is one yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certified: Option<OrderCertified>,
    /// The height of the first block that this node keeps.
    pub first: u64,
}

/// Go on from a file.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderRestoreRequest {
    /// Which, on the machine of the node.
    pub file: String,
}

/// The log goes on from a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderRestoreDocument {
    /// `wattle.order_restore/1`.
    pub schema: OrderRestoreSchema,
    /// What names the log.
    pub chain: String,
    /// What this node does for it.
    pub role: OrderRole,
    /// How far the log is here.
    pub height: u64,
    /// The height of the first block that this node keeps.
    pub first: u64,
}

/// One of many entries.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderSubmission {
    /// For which app; `note/1`, which nobody reads, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// What it says.
    pub data_b64: Bytes,
    /// As of a single entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<u64>,
    /// As of a single entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// Many entries.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderSubmissionsRequest {
    /// The entries, 1024 at the most.
    pub entries: Vec<OrderSubmission>,
    /// How long to wait.
    #[serde(default)]
    pub wait: OrderWait,
    /// When to give up; 30 s when absent, 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// How far one of many entries is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderSubmissionState {
    /// It stands in the log for ever.
    Ordered,
    /// It waits to be ordered.
    Accepted,
    /// It was not taken, or its time is over: it is not in the log, and never will be unless it is submitted again.
    Refused,
    /// Nobody knows yet how it ends.
    Unknown,
}

/// What became of one of many entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderSubmitted {
    /// How far it is.
    pub state: OrderSubmissionState,
    /// The hash that names the entry.
    pub entry: String,
    /// The block it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// Its place there, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Why it is not ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What became of many entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderSubmissionsDocument {
    /// `wattle.order_submissions/1`.
    pub schema: OrderSubmissionsSchema,
    /// Each, as they were given.
    pub entries: Vec<OrderSubmitted>,
    /// How many are not ordered, or not accepted where that was asked for.
    pub failed: u64,
    /// How long it took.
    pub took_ms: u64,
}
