//! Who may do what with a document: signed operations, and the members that follow from them.
//!
//! The operations of a document are a set that only grows; replicas exchange what the other lacks. Who is a
//! member is a function of the set alone, so replicas with equal sets agree, in whatever order it arrived.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use wattle_types::{DocAccess, DocId, Domain, Envelope, FeedId, NetworkName, NodeId, UnixTime, keyed};

use crate::feed::FeedEnd;
use crate::payload::Root;

/// Operations kept per document. A member costs one or two; beyond the cap new ones are refused.
pub const OPERATIONS_MAX: usize = 4096;

/// What names an operation: the hash of its envelope.
pub(crate) type OpHash = ByteArray<32>;

/// What somebody may do. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Receives the document and who is a member.
    Reader,
    /// Changes it.
    Writer,
    /// Grants and removes readers and writers. Only the owner's key makes an admin.
    Admin,
}

/// One signed operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// Which document: a grant for one is worth nothing for another.
    pub doc: DocId,
    /// One more than the highest its author knew: later beats earlier.
    pub epoch: u32,
    /// What it does.
    pub act: Act,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Gives a role to a key. A bearer's key is the one inside a ticket: it takes no part itself, it lets
    /// others in by [`Act::Redeem`].
    Grant { to: NodeId, role: Role, bearer: Option<Bearer> },
    /// Takes every role from a key. Its changes end at `cut`, its feeds at `feeds`; of what it signed, `keep`
    /// stays valid.
    Remove { who: NodeId, cut: Vec<Root>, feeds: Vec<FeedEnd>, keep: Vec<OpHash> },
    /// Signed by a bearer's key: lets a member in with the bearer's role.
    Redeem { member: NodeId },
}

/// The limits of a ticket, checked by the replica that lets somebody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bearer {
    /// Until when it lets in.
    pub expires: Option<u64>,
    /// How many it lets in.
    pub uses: Option<u32>,
}

/// Why a redemption lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No grant names this node, or it was removed.
    #[error("this node is not a member of the document")]
    NotAMember,
    /// The ticket is past its time.
    #[error("the ticket expired")]
    Expired,
    /// As many as it allows have used the ticket.
    #[error("the ticket was used as often as it allows")]
    UsedUp,
}

/// An operation whose signature was checked.
#[derive(Clone, Debug)]
struct Signed {
    envelope: Envelope,
    author: NodeId,
    operation: Operation,
}

/// The set of operations of one document.
#[derive(Clone, Debug, Default)]
pub(crate) struct ControlLog {
    operations: BTreeMap<OpHash, Signed>,
}

/// Who is a member, and whose word for changes holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    roles: BTreeMap<NodeId, Role>,
    cuts: Vec<(NodeId, Root)>,
    feed_ends: BTreeMap<FeedId, FeedEnd>,
}

impl Members {
    /// The role of a node, if it is a member.
    #[must_use]
    pub fn role(&self, node: &NodeId) -> Option<Role> {
        self.roles.get(node).copied()
    }

    /// Whether a node's word for a change holds.
    #[must_use]
    pub fn may_write(&self, node: &NodeId) -> bool {
        self.role(node) >= Some(Role::Writer)
    }

    /// All members, by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Role)> + '_ {
        self.roles.iter().map(|(node, role)| (*node, *role))
    }

    /// Whether an entry of a feed holds: its author may write, or it is before the end that a removal named.
    pub(crate) fn may_post(&self, feed: &FeedId, seq: u64) -> bool {
        self.may_write(&feed.author) || self.feed_ends.get(feed).is_some_and(|end| seq <= end.last)
    }

    /// Where feeds of removed writers end.
    pub(crate) const fn feed_ends(&self) -> &BTreeMap<FeedId, FeedEnd> {
        &self.feed_ends
    }

    /// Removed writers and those of their changes that removals vouch for.
    pub(crate) fn cuts(&self) -> &[(NodeId, Root)] {
        &self.cuts
    }
}

/// The strongest word about one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Verdict {
    epoch: u32,
    /// Of two at one epoch the removal holds.
    removed: bool,
    hash: [u8; 32],
    role: Role,
    bearer: bool,
}

impl ControlLog {
    /// Adds an operation whose author may sign one here; says whether it was new.
    ///
    /// Who was ever granted a say may add to the set, whatever became of them since: so the set never depends
    /// on the order of arrival.
    pub(crate) fn insert(&mut self, access: &DocAccess, network: &NetworkName, envelope: &Envelope) -> bool {
        let hash = OpHash::new(envelope.hash());
        if self.operations.contains_key(&hash) || self.operations.len() >= OPERATIONS_MAX {
            return false;
        }
        let author = envelope.author();
        if !access.is_owner(&author) && !self.was_granted_a_say(&author) {
            return false;
        }
        let Ok(verified) = envelope.open::<Operation>(Domain::DocControl, network) else { return false };
        if verified.value().doc != access.id {
            return false;
        }
        let operation = verified.into_value();
        self.operations.insert(hash, Signed { envelope: envelope.clone(), author, operation });
        true
    }

    /// Adds what can be added, in whatever order it came; gives the new ones.
    pub(crate) fn extend(
        &mut self,
        access: &DocAccess,
        network: &NetworkName,
        mut envelopes: Vec<Envelope>,
    ) -> Vec<Envelope> {
        let mut added = Vec::new();
        loop {
            let before = added.len();
            envelopes.retain(|envelope| {
                let new = self.insert(access, network, envelope);
                if new {
                    added.push(envelope.clone());
                }
                !new
            });
            if added.len() == before {
                return added;
            }
        }
    }

    fn was_granted_a_say(&self, author: &NodeId) -> bool {
        self.operations.values().any(|signed| {
            matches!(&signed.operation.act, Act::Grant { to, role, bearer }
                if to == author && (bearer.is_some() || *role == Role::Admin))
        })
    }

    /// Takes back an operation that did not reach the disk.
    pub(crate) fn remove(&mut self, envelope: &Envelope) {
        self.operations.remove(&OpHash::new(envelope.hash()));
    }

    pub(crate) fn hashes(&self) -> Vec<OpHash> {
        self.operations.keys().copied().collect()
    }

    pub(crate) fn envelopes(&self) -> Vec<Envelope> {
        self.operations.values().map(|signed| signed.envelope.clone()).collect()
    }

    /// What this log has and a peer with `theirs` lacks.
    pub(crate) fn beyond(&self, theirs: &[OpHash]) -> Vec<Envelope> {
        let lacks = self.operations.iter().filter(|(hash, _)| !theirs.contains(hash));
        lacks.map(|(_, signed)| signed.envelope.clone()).collect()
    }

    pub(crate) fn lacks(&self, theirs: &[OpHash]) -> bool {
        theirs.iter().any(|hash| !self.operations.contains_key(hash))
    }

    /// Equal exactly where the sets are equal.
    pub(crate) fn fingerprint(&self) -> ByteArray<32> {
        let hashes: Vec<&[u8]> = self.operations.keys().map(|hash| hash.as_slice()).collect();
        ByteArray::new(keyed(&[0; 32], &hashes))
    }

    /// The highest epoch of a grant or removal. A bearer chooses none: a stranger with a ticket could exhaust
    /// them.
    pub(crate) fn epoch(&self) -> u32 {
        let chosen = self.operations.values().filter(|it| !matches!(it.operation.act, Act::Redeem { .. }));
        chosen.map(|signed| signed.operation.epoch).max().unwrap_or(0)
    }

    /// The members, from the set alone.
    pub(crate) fn members(&self, access: &DocAccess) -> Members {
        let owners = self.verdicts(|signed, _| access.is_owner(&signed.author));
        let is_admin =
            |node: &NodeId| owners.get(node).is_some_and(|it| !it.removed && it.role == Role::Admin);
        let kept = self.kept(|author| access.is_owner(author));
        let holds = |signed: &Signed, hash: &OpHash| {
            if access.is_owner(&signed.author) {
                return true;
            }
            let within = match &signed.operation.act {
                Act::Grant { to, role, .. } => *role < Role::Admin && !is_admin(to) && !access.is_owner(to),
                Act::Remove { who, .. } => !is_admin(who) && !access.is_owner(who),
                Act::Redeem { .. } => false,
            };
            within && (is_admin(&signed.author) || kept.contains(hash))
        };
        let mut verdicts = self.verdicts(holds);
        let kept_redemptions = self.kept(|author| access.is_owner(author) || is_admin(author));
        let cuts = self.cuts(holds);
        let feed_ends = self.feed_ends(holds);
        for (hash, signed) in &self.operations {
            let Act::Redeem { member } = &signed.operation.act else { continue };
            let Some(bearer) = verdicts.get(&signed.author).copied() else { continue };
            let grant = if bearer.removed && kept_redemptions.contains(hash) {
                self.last_grant(&signed.author, holds)
            } else {
                Some(bearer).filter(|it| it.bearer && !it.removed)
            };
            // With the epoch of its ticket: who was removed since does not come back with it.
            let Some(grant) = grant else { continue };
            let verdict = Verdict { hash: **hash, bearer: false, ..grant };
            raise(&mut verdicts, *member, verdict);
        }
        let members = verdicts.into_iter().filter(|(_, verdict)| !verdict.removed && !verdict.bearer);
        let roles = members.map(|(node, verdict)| (node, verdict.role)).collect();
        Members { roles, cuts, feed_ends }
    }

    fn verdicts(&self, holds: impl Fn(&Signed, &OpHash) -> bool) -> BTreeMap<NodeId, Verdict> {
        let mut verdicts = BTreeMap::new();
        for (hash, signed) in self.operations.iter().filter(|(hash, signed)| holds(signed, hash)) {
            if let Some((node, verdict)) = verdict(signed, hash) {
                raise(&mut verdicts, node, verdict);
            }
        }
        verdicts
    }

    /// The strongest grant of a bearer, whatever removed it.
    fn last_grant(&self, node: &NodeId, holds: impl Fn(&Signed, &OpHash) -> bool) -> Option<Verdict> {
        let valid = self.operations.iter().filter(|(hash, signed)| holds(signed, hash));
        let grants = valid.filter_map(|(hash, signed)| verdict(signed, hash));
        grants.filter(|(to, it)| to == node && !it.removed && it.bearer).map(|(_, it)| it).max()
    }

    /// What removals by such authors leave valid.
    fn kept(&self, by: impl Fn(&NodeId) -> bool) -> Vec<OpHash> {
        let removals = self.operations.values().filter(|signed| by(&signed.author));
        let kept = removals.filter_map(|signed| match &signed.operation.act {
            Act::Remove { keep, .. } => Some(keep),
            _ => None,
        });
        kept.flatten().copied().collect()
    }

    fn cuts(&self, holds: impl Fn(&Signed, &OpHash) -> bool) -> Vec<(NodeId, Root)> {
        let valid = self.operations.iter().filter(|(hash, signed)| holds(signed, hash));
        let cuts = valid.filter_map(|(_, signed)| match &signed.operation.act {
            Act::Remove { who, cut, .. } => Some(cut.iter().map(|root| (*who, root.clone()))),
            _ => None,
        });
        cuts.flatten().collect()
    }

    /// Of a feed that several removals end the farthest end: nothing that one of them kept is lost.
    fn feed_ends(&self, holds: impl Fn(&Signed, &OpHash) -> bool) -> BTreeMap<FeedId, FeedEnd> {
        let mut ends: BTreeMap<FeedId, FeedEnd> = BTreeMap::new();
        let valid = self.operations.iter().filter(|(hash, signed)| holds(signed, hash));
        for (_, signed) in valid {
            let Act::Remove { who, feeds, .. } = &signed.operation.act else { continue };
            for end in feeds.iter().filter(|end| end.feed.author == *who) {
                let farthest = ends.entry(end.feed).or_insert_with(|| end.clone());
                if end.last > farthest.last {
                    farthest.clone_from(end);
                }
            }
        }
        ends
    }

    /// The redemptions of a bearer and what a node signed, for the `keep` of its removal.
    pub(crate) fn signed_by(&self, author: &NodeId) -> Vec<OpHash> {
        let signed = self.operations.iter().filter(|(_, signed)| signed.author == *author);
        signed.map(|(hash, _)| *hash).collect()
    }

    /// The tickets by which a member came in.
    pub(crate) fn bearers_of(&self, node: &NodeId) -> Vec<NodeId> {
        let redeemed = self
            .operations
            .values()
            .filter(|signed| matches!(&signed.operation.act, Act::Redeem { member } if member == node));
        redeemed.map(|signed| signed.author).collect()
    }

    /// Whether a redemption lets its member in now.
    pub(crate) fn admits(
        &self,
        access: &DocAccess,
        network: &NetworkName,
        redemption: &Envelope,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let opened = redemption.open::<Operation>(Domain::DocControl, network);
        let operation = opened.map_err(|_invalid| Refusal::NotAMember)?.into_value();
        let Act::Redeem { member } = operation.act else { return Err(Refusal::NotAMember) };
        let mut with = self.clone();
        with.insert(access, network, redemption);
        if with.members(access).role(&member).is_none() {
            return Err(Refusal::NotAMember);
        }
        let limits = self.operations.values().filter_map(|signed| match &signed.operation.act {
            Act::Grant { to, bearer: Some(bearer), .. } if *to == redemption.author() => Some(bearer),
            _ => None,
        });
        let used = self.signed_by(&redemption.author()).len();
        for limit in limits {
            if limit.expires.is_some_and(|at| UnixTime::from_millis(at) <= now) {
                return Err(Refusal::Expired);
            }
            if limit.uses.is_some_and(|uses| used >= uses as usize) {
                return Err(Refusal::UsedUp);
            }
        }
        Ok(())
    }
}

fn verdict(signed: &Signed, hash: &OpHash) -> Option<(NodeId, Verdict)> {
    let verdict = |removed, role, bearer| Verdict {
        epoch: signed.operation.epoch,
        removed,
        hash: **hash,
        role,
        bearer,
    };
    match &signed.operation.act {
        Act::Grant { to, role, bearer } => Some((*to, verdict(false, *role, bearer.is_some()))),
        Act::Remove { who, .. } => Some((*who, verdict(true, Role::Reader, false))),
        Act::Redeem { .. } => None,
    }
}

fn raise(verdicts: &mut BTreeMap<NodeId, Verdict>, node: NodeId, verdict: Verdict) {
    let strongest = verdicts.entry(node).or_insert(verdict);
    *strongest = (*strongest).max(verdict);
}

#[cfg(test)]
mod tests;
