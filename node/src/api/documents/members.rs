//! Documents about the members of the network, as membership sees them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{ErrorDocument, MembersLeaveSchema, MembersRemoveSchema, MembersSchema};

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It answers, or nobody has said otherwise.
    Alive,
    /// It is accused and may still refute.
    Suspect,
    /// It did not refute; it comes back when it does.
    Faulty,
    /// It said that it goes.
    Left,
    /// An operator removed it; it is in no list, until it comes back.
    Removed,
}

/// How packets reach a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberReach {
    /// At its addresses.
    Public,
    /// At its addresses, after both sides have sent.
    Punched,
    /// Only in answer to its own; its anchors are asked after it.
    Anchored,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its peer id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it calls itself: no petname.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Where it stands.
    pub state: MemberState,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// How often it said that it is alive: its run, and its refutations within that run.
    pub incarnation: String,
    /// The smallest of the last twenty round trips.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The round trip that both nodes' network coordinates predict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<f64>,
    /// Where it says that it is reached.
    pub addresses: Vec<String>,
    /// Its port for datagrams.
    pub udp_port: u16,
    /// How packets reach it.
    pub reach: MemberReach,
    /// Where to ask after it, if packets do not.
    #[schema(value_type = Vec<String>)]
    pub anchors: Vec<NodeId>,
    /// What it does.
    pub roles: Vec<String>,
    /// What its owner says of it.
    pub tags: BTreeMap<String, String>,
    /// Who accuses it, while it is suspect or faulty.
    #[schema(value_type = Vec<String>)]
    pub accusers: Vec<NodeId>,
    /// Whether it is this node.
    pub myself: bool,
}

/// How many members stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MembersStatus {
    /// Alive, with this node.
    pub alive: u64,
    /// Accused.
    pub suspect: u64,
    /// Held for gone.
    pub faulty: u64,
    /// Gone by their own word.
    pub left: u64,
    /// How badly this node itself does: 0 is well, 7 the worst.
    pub health: u64,
    /// This node doubts itself: so many fail at once that it is likely at fault.
    pub self_suspect: bool,
}

/// All members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MembersDocument {
    /// `wattle.members/1`.
    pub schema: MembersSchema,
    /// Grows with every change.
    pub version: u64,
    /// How many stand where.
    pub counts: MembersStatus,
    /// This node first, then the others by id.
    pub members: Vec<Member>,
}

/// This node has left the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MembersLeaveDocument {
    /// `wattle.members_leave/1`.
    pub schema: MembersLeaveSchema,
    /// This node.
    #[schema(value_type = String)]
    pub id: NodeId,
}

/// Whom to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MembersRemoveRequest {
    /// A petname, short id or peer id.
    pub peer: String,
}

/// A member was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MembersRemoveDocument {
    /// `wattle.members_remove/1`.
    pub schema: MembersRemoveSchema,
    /// Who.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its petname here, else what it called itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Why a member stands elsewhere now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberReason {
    /// Its record came for the first time.
    Joined,
    /// It was remembered from before this node's restart.
    Remembered,
    /// It answered this node in no way.
    NoAck,
    /// Others accuse it.
    Accused,
    /// Its suspicion ran out.
    RanOut,
    /// A quorum accuses it.
    Certified,
    /// It refuted.
    Refuted,
    /// It spoke again, as a higher incarnation.
    Spoke,
    /// It started again.
    Restarted,
    /// It said that it goes.
    Left,
    /// An operator removed it: the reporter's.
    Removed,
}

/// How a member stands now, and who says so: the same in a line and in an event of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberChange {
    /// Its petname here, else what it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it stood; absent when it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<MemberState>,
    /// Where it stands.
    pub to: MemberState,
    /// As which incarnation.
    pub incarnation: String,
    /// Who said so first; this node when it found out itself.
    #[schema(value_type = String)]
    pub reporter: NodeId,
    /// Why.
    pub reason: MemberReason,
    /// Everybody who accuses it.
    #[schema(value_type = Vec<String>)]
    pub accusers: Vec<NodeId>,
    /// Whom this node had asked to reach it, in vain.
    #[schema(value_type = Vec<String>)]
    pub indirect: Vec<NodeId>,
}

/// A line of what happens among the members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MemberLine {
    /// A member stands elsewhere.
    Member {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Who.
        #[schema(value_type = String)]
        id: NodeId,
        /// How it stands now.
        #[serde(flatten)]
        change: MemberChange,
    },
    /// Two nodes run with one key.
    DuplicateIdentity {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// Whose.
        #[schema(value_type = String)]
        id: NodeId,
        /// Its petname here, else what it calls itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// This node doubts itself, or no longer does.
    SelfSuspect {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// It begins.
        begins: bool,
    },
    /// Lines were lost because the reader was too slow.
    Gap {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        ts: Timestamp,
        /// How many.
        lost: u64,
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
