//! What watchers of documents are told.

use wattle_types::{DocId, FeedId, NodeId, Posted};

use super::Presence;
use crate::access::Refusal;

/// What watchers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A document has new heads, on disk.
    Changed {
        /// Which.
        doc: DocId,
        /// The heads before.
        before: Vec<[u8; 32]>,
        /// The heads after.
        after: Vec<[u8; 32]>,
        /// Who sent it; none for a local edit.
        from: Option<NodeId>,
    },
    /// Entries of feeds are on disk.
    FeedGrew {
        /// Of which document.
        doc: DocId,
        /// Which, in the order they were written to disk.
        posts: Vec<Posted>,
    },
    /// An author signed two entries for one place of a feed, which ends there.
    FeedForked {
        /// Of which document.
        doc: DocId,
        /// Whose.
        feed: FeedId,
    },
    /// A peer holds this node's entries up to one.
    Reached {
        /// Of which document.
        doc: DocId,
        /// Who.
        peer: NodeId,
        /// Which of this node's feeds.
        feed: FeedId,
        /// The number of the last that it has.
        seq: u64,
    },
    /// A member says something in passing.
    Signal {
        /// Of which document.
        doc: DocId,
        /// Who.
        from: NodeId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Who of the members is connected changed.
    PeersChanged {
        /// Of which document.
        doc: DocId,
    },
    /// A document is gone from here.
    Forgotten {
        /// Which.
        doc: DocId,
    },
    /// Who is a member changed.
    MembersChanged {
        /// Of which document.
        doc: DocId,
    },
    /// A program says something to all who have a document open.
    Ephemeral {
        /// About which document.
        doc: DocId,
        /// Who passed it on; none for a program of this node.
        from: Option<NodeId>,
        /// What.
        presence: Presence,
    },
    /// A peer holds the same as this node.
    InSync {
        /// Of which document.
        doc: DocId,
        /// Who.
        peer: NodeId,
    },
    /// A peer does not let this node in.
    Refused {
        /// To which document.
        doc: DocId,
        /// Who.
        peer: NodeId,
        /// Why.
        why: Refusal,
    },
}
