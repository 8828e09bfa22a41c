//! What happens in a node, as lines of one stream.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wattle_types::NodeId;

use super::{MemberChange, Peer};

/// One event. In the server-sent stream, `id` and the type are also the `id:` and `event:` of the frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventLine {
    /// Grows by one an event; a number that is missing is an event that was missed.
    pub id: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// What it is about.
    pub topic: EventTopic,
    /// What happened.
    #[serde(flatten)]
    pub event: NodeEvent,
}

/// What an event is about, and what `?topics=` chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventTopic {
    /// Connections.
    Peers,
    /// Who is a member, and who is well.
    Members,
    /// Lookups and the routing table.
    Dht,
    /// The ordered log.
    Order,
    /// The node itself.
    Node,
}

impl EventTopic {
    /// Every topic.
    pub const ALL: [Self; 5] = [Self::Peers, Self::Members, Self::Dht, Self::Order, Self::Node];

    /// Its name in a query.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Members => "members",
            Self::Dht => "dht",
            Self::Order => "order",
            Self::Node => "node",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeEvent {
    /// A peer connected, or its path became better.
    PeerConnected {
        /// The connection.
        peer: Box<Peer>,
    },
    /// The last connection to a peer ended.
    PeerDisconnected {
        /// Who.
        #[schema(value_type = String)]
        peer: NodeId,
        /// Its petname here.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Why, in words.
        reason: String,
    },
    /// A peer broke a rule.
    Misbehaved {
        /// Who.
        #[schema(value_type = String)]
        peer: NodeId,
        /// Its petname here.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Which rule.
        what: String,
    },
    /// A member stands elsewhere.
    Member {
        /// Who.
        #[schema(value_type = String)]
        peer: NodeId,
        /// How it stands now.
        #[serde(flatten)]
        change: MemberChange,
    },
    /// Two nodes run with one key.
    DuplicateIdentity {
        /// Whose.
        #[schema(value_type = String)]
        peer: NodeId,
        /// Its petname here, else what it calls itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// This node doubts itself, or no longer does: so many members fail at once that it is likely cut off.
    SelfSuspect {
        /// It begins.
        begins: bool,
    },
    /// The node listens there now.
    Listening {
        /// Where.
        address: String,
    },
    /// The node listens there no more.
    ListenClosed {
        /// Where.
        address: String,
    },
    /// A lookup ended.
    Lookup {
        /// `get`, `put`, `find_peer`, `closest`, `provide` or `find_providers`.
        kind: String,
        /// Peers asked.
        requests: u64,
        /// Peers that answered.
        answers: u64,
        /// How long it took.
        took_ms: u64,
        /// Whether it found what it was for.
        found: bool,
    },
    /// The routing table gained or lost a peer.
    Table {
        /// Peers in it now.
        size: u64,
    },
    /// A block with entries is committed.
    OrderCommitted {
        /// Its height.
        height: u64,
        /// In which turn it was proposed.
        view: u64,
        /// How many entries it has.
        entries: u64,
        /// Who proposed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        leader: Option<NodeId>,
    },
    /// Others vote in the log from now on.
    OrderEpoch {
        /// In which epoch.
        epoch: u64,
        /// Behind which block.
        height: u64,
        /// Who.
        #[schema(value_type = Vec<String>)]
        validators: Vec<NodeId>,
    },
    /// A validator of the log lies, which its own signatures prove.
    OrderEvidence {
        /// Who.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        peer: Option<NodeId>,
        /// `proposals`, `votes` or `amnesia`.
        what: String,
    },
    /// A validator of the log sent what no honest one sends.
    OrderMisbehaved {
        /// Who.
        #[schema(value_type = String)]
        peer: NodeId,
    },
    /// The log needs an operator.
    OrderAlarm {
        /// Why, and what to do.
        what: String,
    },
    /// The node stops.
    Stopping,
    /// Events were missed: the reader was too slow, or asked for ones that are gone.
    Gap {
        /// How many.
        lost: u64,
    },
}

impl NodeEvent {
    /// What it is about.
    #[must_use]
    pub const fn topic(&self) -> EventTopic {
        match self {
            Self::PeerConnected { .. } | Self::PeerDisconnected { .. } | Self::Misbehaved { .. } => {
                EventTopic::Peers
            }
            Self::Member { .. } | Self::DuplicateIdentity { .. } | Self::SelfSuspect { .. } => {
                EventTopic::Members
            }
            Self::Lookup { .. } | Self::Table { .. } => EventTopic::Dht,
            Self::OrderCommitted { .. }
            | Self::OrderEpoch { .. }
            | Self::OrderEvidence { .. }
            | Self::OrderMisbehaved { .. }
            | Self::OrderAlarm { .. } => EventTopic::Order,
            Self::Listening { .. } | Self::ListenClosed { .. } | Self::Stopping | Self::Gap { .. } => {
                EventTopic::Node
            }
        }
    }

    /// Its `type`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PeerConnected { .. } => "peer_connected",
            Self::PeerDisconnected { .. } => "peer_disconnected",
            Self::Misbehaved { .. } => "misbehaved",
            Self::Member { .. } => "member",
            Self::DuplicateIdentity { .. } => "duplicate_identity",
            Self::SelfSuspect { .. } => "self_suspect",
            Self::Listening { .. } => "listening",
            Self::ListenClosed { .. } => "listen_closed",
            Self::Lookup { .. } => "lookup",
            Self::Table { .. } => "table",
            Self::OrderCommitted { .. } => "order_committed",
            Self::OrderEpoch { .. } => "order_epoch",
            Self::OrderEvidence { .. } => "order_evidence",
            Self::OrderMisbehaved { .. } => "order_misbehaved",
            Self::OrderAlarm { .. } => "order_alarm",
            Self::Stopping => "stopping",
            Self::Gap { .. } => "gap",
        }
    }
}
