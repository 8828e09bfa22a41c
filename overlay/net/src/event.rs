//! What happens in the overlay, as others may watch it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use wattle_types::NodeId;

use crate::{Address, PeerInfo};

/// Something that happened. Watchers that are too slow lose the oldest ones and are told how many.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer connected and said what it is.
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
    /// A lookup ended, for those who watch the DHT at work.
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
    /// Sent a frame that no channel has.
    BadFrame(String),
}

impl std::fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadRecord(why) => write!(f, "bad record: {why}"),
            Self::OverQuota(what) => write!(f, "over its quota of {what}"),
            Self::BadMessage(why) => write!(f, "bad message: {why}"),
            Self::BadFrame(why) => write!(f, "bad frame: {why}"),
        }
    }
}

/// Peers whose last complaint is remembered.
const COMPLAINED_MAX: usize = 1024;
/// A peer that breaks rules without end is reported so often at first, and then once per pause: its flood
/// pushes out no other event.
const COMPLAINTS_AT_ONCE: u32 = 16;
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

/// Those who watch the overlay.
#[derive(Clone, Debug)]
pub(crate) struct Watchers {
    sender: broadcast::Sender<Event>,
    /// How many complaints of late, and when the last one was.
    complained: BTreeMap<NodeId, (u32, Instant)>,
}

impl Watchers {
    pub(crate) const fn new(sender: broadcast::Sender<Event>) -> Self {
        Self { sender, complained: BTreeMap::new() }
    }

    /// Tells whoever watches, if anybody does.
    pub(crate) fn tell(&self, event: Event) {
        if self.sender.send(event).is_err() {
            tracing::trace!("nobody watches");
        }
    }

    /// Reports that a peer broke a rule, unless it was reported a moment ago.
    pub(crate) fn complain(&mut self, peer: NodeId, what: Misbehaviour) {
        let now = Instant::now();
        let pauses = |last: Instant| {
            let pauses = now.saturating_duration_since(last).as_secs() / COMPLAINT_PAUSE.as_secs();
            u32::try_from(pauses).unwrap_or(u32::MAX)
        };
        if self.complained.len() >= COMPLAINED_MAX && !self.complained.contains_key(&peer) {
            self.complained.retain(|_, (count, last)| *count > pauses(*last));
            if self.complained.len() >= COMPLAINED_MAX {
                return;
            }
        }
        let (count, last) = self.complained.entry(peer).or_insert((0, now));
        let left = count.saturating_sub(pauses(*last));
        if left >= COMPLAINTS_AT_ONCE {
            return;
        }
        (*count, *last) = (left + 1, now);
        tracing::debug!(?peer, %what, "a peer broke a rule");
        self.tell(Event::Misbehaved { peer, what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_broken_rules_is_a_handful_of_events() {
        let (sender, mut watcher) = broadcast::channel(1024);
        let mut watchers = Watchers::new(sender);
        let peer = |number: u8| NodeId::from_public_key([number; 32]);
        for _ in 0..10_000 {
            watchers.complain(peer(1), Misbehaviour::OverQuota("records"));
        }
        watchers.complain(peer(2), Misbehaviour::OverQuota("records"));
        let mut told = Vec::new();
        while let Ok(Event::Misbehaved { peer, .. }) = watcher.try_recv() {
            told.push(peer);
        }
        assert_eq!(told.last(), Some(&peer(2)));
        assert!((16..=20).contains(&told.len()), "{} events", told.len());
    }
}
