//! What consumers see: numbered snapshots and what changed between them.

use std::sync::Arc;
use std::time::Duration;

use wattle_types::{NodeId, UnixTime};

use crate::claim::{Incarnation, Signed};
use crate::coordinate::Coordinate;

/// Where a member stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It answers, or nobody has said otherwise.
    Alive,
    /// It is accused and may still refute.
    Suspect,
    /// It did not refute. It comes back with a higher incarnation.
    Faulty,
    /// It said that it goes.
    Left,
    /// An operator said that it is gone for good, and here it was faulty or had left. It is in no [`View`] and is
    /// not tried any more. It comes back with a higher incarnation.
    Removed,
}

/// How that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Its record came for the first time.
    Joined,
    /// It was remembered from before this node's restart.
    Remembered,
    /// It answered this node in no way.
    NoAnswer,
    /// Others accuse it.
    Accused,
    /// Its suspicion ran out, and it did not take its last chance.
    RanOut,
    /// A quorum accuses it, and it did not take its last chance.
    Certified,
    /// It refuted.
    Refuted,
    /// It spoke to this node as a higher incarnation.
    Spoke,
    /// It started again.
    Restarted,
    /// It said that it goes.
    Left,
    /// An operator said that it is gone for good; the one accuser is that operator's node.
    Removed,
}

/// Why a member is what it is now: who says so, and which ways were tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// How that came.
    pub reason: Reason,
    /// Who accused it, the first first.
    pub accusers: Vec<NodeId>,
    /// Whom this node had asked to probe it, if it did so itself.
    pub helpers: Vec<NodeId>,
}

/// What consumers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member stands elsewhere than was last told. One that changes often is told of at most twice in five
    /// seconds, after six times.
    MemberChanged {
        /// The snapshot that has it.
        version: u64,
        /// Who.
        member: NodeId,
        /// Where it stood; none if it is new.
        from: Option<State>,
        /// Where it stands.
        to: State,
        /// As which incarnation.
        incarnation: Incarnation,
        /// Why.
        why: Why,
    },
    /// What a member says of itself changed.
    Described {
        /// The snapshot that has it.
        version: u64,
        /// Who.
        member: NodeId,
    },
    /// A member was forgotten: it left or failed long ago, or made room.
    Forgotten {
        /// The snapshot that lacks it.
        version: u64,
        /// Who.
        member: NodeId,
    },
    /// Two run with one key. Neither is accused.
    DuplicateIdentity {
        /// Whose key.
        member: NodeId,
    },
    /// This node does so badly, or sees so many fail at once, that it is more likely at fault than they.
    /// Consumers do nothing upon a verdict until it is over, but reconnect.
    SelfSuspect {
        /// It began; otherwise it is over.
        begins: bool,
    },
    /// This node's epoch is on disk: it takes part from now on.
    Started {
        /// Its first incarnation.
        incarnation: Incarnation,
    },
    /// The epoch could not be written: without it nothing is sent. It is tried again.
    CannotStart {
        /// What the disk said.
        why: String,
    },
    /// This node has left; the machine does nothing more.
    Left,
}

/// One member in a snapshot.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// Who.
    pub id: NodeId,
    /// What it says of itself.
    pub record: Arc<Signed>,
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: UnixTime,
    /// As which incarnation.
    pub incarnation: Incarnation,
    /// The smallest of the last twenty round trips.
    pub rtt: Option<Duration>,
    /// Where it is among the others.
    pub coordinate: Option<Coordinate>,
    /// The round trip that its coordinate and this node's predict.
    pub estimate: Option<Duration>,
    /// Who accuses it.
    pub accusers: Vec<NodeId>,
}

/// All members at one moment, without this node.
#[derive(Clone, Debug)]
pub struct View {
    /// Grows with every change.
    pub version: u64,
    /// This node's own record, once it has started.
    pub own: Option<Arc<Signed>>,
    /// In the order of their ids, without those that were removed.
    pub members: Vec<MemberView>,
    /// See [`Event::SelfSuspect`].
    pub self_suspect: bool,
}

/// Counters since the start, and how this node does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Members alive or suspect, with this node.
    pub live: usize,
    /// Members that are faulty.
    pub faulty: usize,
    /// Members that left.
    pub left: usize,
    /// Members that were removed, and are remembered so that nobody brings them back.
    pub removed: usize,
    /// Members that are suspect.
    pub suspect: usize,
    /// The local health score: 0 is well, 7 the worst.
    pub health: u32,
    /// Rumours that wait.
    pub queue: usize,
    /// Counters since the start.
    pub counts: Counts,
}

/// How often what happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Probes begun.
    pub probes: u64,
    /// Probes that the member answered itself.
    pub answered: u64,
    /// Probes answered through others.
    pub indirect: u64,
    /// Probes answered over a connection.
    pub fallback: u64,
    /// Probes answered in no way.
    pub failed: u64,
    /// Accusations this node made.
    pub accused: u64,
    /// Accusations this node did not make for its quota.
    pub withheld: u64,
    /// Suspicions begun here.
    pub suspected: u64,
    /// Suspicions that ended well.
    pub cleared: u64,
    /// Members held faulty here.
    pub failed_members: u64,
    /// Last chances taken by the member.
    pub chances_taken: u64,
    /// Refutations this node made.
    pub refuted: u64,
    /// Accusations not counted: their author had too many.
    pub over_quota: u64,
    /// Accusations not counted: the same again too soon.
    pub repeated: u64,
    /// Accusations not counted: their author is not alive here.
    pub untrusted: u64,
    /// Accusations of earlier incarnations.
    pub stale: u64,
    /// Accusations of incarnations that their subject has not shown.
    pub unproven: u64,
    /// Certificates with too few that count.
    pub thin_certificates: u64,
    /// Packets not read: their sender sent too many.
    pub unread: u64,
    /// Newcomers not let in: the table is full, or the short id is taken.
    pub refused: u64,
    /// Times this node was woken too late.
    pub stalls: u64,
    /// Comparisons of tables begun.
    pub syncs: u64,
    /// Faulty members that came back within a minute: the verdict was wrong.
    pub false_positives: u64,
}
