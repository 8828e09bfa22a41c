//! What happens in the overlay, as others may watch it.

use wattle_types::NodeId;

use crate::{Address, PeerInfo};

/// Something that happened. Watchers that are too slow lose the oldest ones and are told how many.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer connected, or its path changed to a better one.
    Connected(PeerInfo),
    /// The last connection to a peer ended.
    Disconnected {
        /// Who.
        peer: NodeId,
        /// Why, in words for a person.
        reason: DisconnectReason,
    },
    /// This node now listens there.
    Listening(Address),
    /// This node no longer listens there.
    ListenClosed(Address),
    /// A lookup began or ended, for those who watch the DHT at work.
    Lookup {
        /// Which kind: `get`, `put`, `find_peer`, `closest`, `provide`, `find_providers`.
        kind: &'static str,
        /// How many peers were asked.
        requests: u32,
        /// How many of them answered.
        answers: u32,
        /// How long it took.
        took_ms: u64,
        /// Whether it found what it was for.
        found: bool,
    },
    /// A peer broke a rule. Nothing of ours failed.
    Misbehaved {
        /// Who.
        peer: NodeId,
        /// Which rule.
        what: Misbehaviour,
    },
    /// The routing table gained or lost a peer.
    Table {
        /// Peers in the table now.
        size: usize,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The other side closed it.
    Remote,
    /// Somebody here asked for it.
    Asked,
    /// Trimmed: more connections than the high water mark, and this was the least valuable.
    Trimmed,
    /// The peer is blocked or not on the allow list.
    Denied,
    /// The peer belongs to another network.
    OtherNetwork(String),
    /// Nobody used it.
    Idle,
    /// It broke.
    Lost(String),
}

impl std::fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Remote => f.write_str("the peer closed the connection"),
            Self::Asked => f.write_str("disconnected by request"),
            Self::Trimmed => f.write_str("trimmed: too many connections"),
            Self::Denied => f.write_str("blocked here"),
            Self::OtherNetwork(name) => write!(f, "the peer is in another network ({name})"),
            Self::Idle => f.write_str("idle"),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
        }
    }
}

/// A rule that a peer broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Sent a record that its key does not allow.
    BadRecord(String),
    /// Stored more than its share here.
    OverQuota(&'static str),
    /// Sent a gossip message that is no topic message.
    BadMessage(String),
}

impl std::fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadRecord(why) => write!(f, "bad record: {why}"),
            Self::OverQuota(what) => write!(f, "over its quota of {what}"),
            Self::BadMessage(why) => write!(f, "bad message: {why}"),
        }
    }
}

/// Tells whoever watches, if anybody does.
pub(crate) fn emit(watchers: &tokio::sync::broadcast::Sender<Event>, event: Event) {
    if watchers.send(event).is_err() {
        tracing::trace!("nobody watches");
    }
}
