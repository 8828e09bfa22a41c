//! What a document is at a glance.

use wattle_types::{DocId, FeedId, NodeId, UnixTime};

use super::Replica;
use crate::access::Role;
use crate::row::Label;
use crate::session::Session;

/// A peer of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub peer: NodeId,
    /// Whether it was last known to hold exactly what this node holds.
    pub in_sync: bool,
    /// Of its heads, how many are not known here.
    pub heads_unknown: usize,
}

/// A document at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocStatus {
    /// Which.
    pub doc: DocId,
    /// Which app it is for, and what people call it.
    pub label: Label,
    /// When it came here.
    pub since: UnixTime,
    /// Its heads on disk.
    pub heads: Vec<[u8; 32]>,
    /// Bytes on disk.
    pub bytes: u64,
    /// This node's role.
    pub role: Option<Role>,
    /// Members, this node among them.
    pub members: usize,
    /// Peers that are here now.
    pub peers: Vec<PeerStatus>,
    /// Entries of feeds on disk.
    pub posts: u64,
    /// Entries that peers that are here have and this node lacks.
    pub posts_missing: u64,
    /// This node's feed, and the number of its last entry on disk.
    pub own_feed: Option<(FeedId, u64)>,
}

impl Replica {
    /// Every document here, by id.
    #[must_use]
    pub fn list(&self) -> Vec<DocStatus> {
        self.entries.keys().filter_map(|doc| self.status(doc)).collect()
    }

    /// Which app a document is for, and what people call it.
    #[must_use]
    pub fn label(&self, doc: &DocId) -> Option<&Label> {
        self.entries.get(doc).map(|entry| &entry.row.label)
    }

    /// One document at a glance.
    #[must_use]
    pub fn status(&self, doc: &DocId) -> Option<DocStatus> {
        let entry = self.entries.get(doc)?;
        let standing = entry.standing();
        let peer = |peer: &NodeId, session: &Session| PeerStatus {
            peer: *peer,
            in_sync: session.theirs.as_ref() == Some(&standing),
            heads_unknown: session.theirs.as_ref().map_or(0, |theirs| {
                theirs.heads.iter().filter(|head| !standing.heads.contains(head)).count()
            }),
        };
        Some(DocStatus {
            doc: *doc,
            label: entry.row.label.clone(),
            since: entry.row.since,
            heads: standing.heads.iter().map(|head| **head).collect(),
            bytes: entry.row.tip.stored.snapshot_bytes
                + entry.row.tip.stored.record_bytes
                + entry.showing.kept.as_ref().map_or(0, |kept| kept.bytes),
            role: entry.members.role(&self.me),
            members: entry.members.iter().count(),
            peers: entry.sessions.iter().map(|(id, session)| peer(id, session)).collect(),
            posts: entry.feeds.posts(),
            posts_missing: entry.posts_missing(),
            own_feed: entry.feeds.last_of(&self.me),
        })
    }
}
