//! Who wrote what is in a document, as far as somebody's word says so.

use automerge::ActorId;
use serde_bytes::Bytes;
use wattle_types::NodeId;

use super::Vouches;
use crate::payload::Root;

/// Whose word stands for the changes of each actor.
pub struct Authors<'a> {
    pub(super) vouches: &'a Vouches,
    pub(super) cuts: &'a [(NodeId, Root)],
    /// The actor of this node, whose newest changes nobody may have vouched for yet.
    pub(super) own: (&'a ActorId, NodeId),
}

impl Authors<'_> {
    /// Who vouches for the changes of an actor, or did until it was removed. None where no vouch names the
    /// actor: then its changes are here because a change of somebody else builds on them.
    #[must_use]
    pub fn of(&self, actor: &ActorId) -> Option<NodeId> {
        let bytes = actor.to_bytes();
        let vouched = self.vouches.get(Bytes::new(bytes)).map(|it| it.envelope.author());
        let cut = || self.cuts.iter().find(|(_, root)| root.actor == bytes).map(|(who, _)| *who);
        let own = || (self.own.0 == actor).then_some(self.own.1);
        vouched.or_else(cut).or_else(own)
    }
}
