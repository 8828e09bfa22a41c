//! Who may do what with a document: signed operations, and the members that follow from them.
//!
//! The operations of a document are a set that only grows; replicas exchange what the other lacks. Who is a
//! member is a function of the set alone, so replicas with equal sets agree, in whatever order it arrived.
//!
//! A ticket's limits depend on a clock and on what was redeemed elsewhere, which a set does not know. So a
//! member whose role is no lower than the ticket's signs that it let somebody in while the limits held
//! ([`Act::Admit`]); a redemption of a ticket with limits is worth nothing without.

use std::collections::{BTreeMap, BTreeSet};

use litemap::LiteMap;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::{DocAccess, DocId, Domain, Envelope, FeedId, NetworkName, NodeId, UnixTime, keyed};

use crate::feed::FeedEnd;
use crate::payload::Root;

/// Operations kept per document. A member costs one or two; beyond the cap new ones are refused.
pub const OPERATIONS_MAX: usize = 4096;

/// Of these, redemptions and admissions: whoever has a ticket can sign as many as it likes. The rest is room
/// for grants and removals.
const GUESTS_MAX: usize = OPERATIONS_MAX / 4 * 3;

/// Redemptions of one ticket: beyond it, other tickets go on.
const TICKET_MAX: usize = 512;

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
    /// Gives a role to a key, and takes none away: of two grants the higher role holds. A bearer's key is the
    /// one inside a ticket: it takes no part itself, it lets others in by [`Act::Redeem`].
    Grant { to: NodeId, role: Role, bearer: Option<Bearer> },
    /// Takes every role from a key, or those above the one that `stays`. Where that ends its writing, its
    /// changes end at `cut` and its feeds at `feeds`; of what it signed, `keep` stays valid.
    Remove {
        who: NodeId,
        cut: Vec<Root>,
        feeds: Vec<FeedEnd>,
        keep: Vec<OpHash>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stays: Option<Role>,
    },
    /// Of the changes that an actor has under one number this one stays: the others go, with all that builds on
    /// them.
    Settle { story: Root },
    /// Signed by a bearer's key: lets a member in with the bearer's role.
    Redeem { member: NodeId },
    /// Signed by a member: this redemption came while its ticket's limits held.
    Admit { redemption: OpHash },
}

impl Act {
    /// Whether somebody who is no admin may sign such an operation.
    const fn is_of_guests(&self) -> bool {
        matches!(self, Self::Redeem { .. } | Self::Admit { .. })
    }
}

/// The limits of a ticket, checked by the member that lets somebody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bearer {
    /// Until when it lets in.
    pub expires: Option<u64>,
    /// How many it lets in.
    pub uses: Option<u32>,
}

impl Bearer {
    const fn has_limits(&self) -> bool {
        self.expires.is_some() || self.uses.is_some()
    }
}

/// How somebody may be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// With which role.
    pub role: Role,
    /// Whether a member has to sign for it.
    pub needs_a_word: bool,
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
    operations: LiteMap<OpHash, Box<Signed>>,
}

/// Who is a member, and whose word for changes holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    roles: LiteMap<NodeId, Role>,
    cuts: Vec<(NodeId, Root)>,
    feed_ends: BTreeMap<FeedId, FeedEnd>,
    settled: BTreeMap<(ByteBuf, u64), ByteArray<32>>,
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

    /// Whether an entry of a feed holds: it is before the end that a removal named, also where its author was
    /// let in again; or there is none and its author may write.
    pub(crate) fn may_post(&self, feed: &FeedId, seq: u64) -> bool {
        self.feed_ends.get(feed).map_or_else(|| self.may_write(&feed.author), |end| seq <= end.last)
    }

    /// Where feeds of removed writers end.
    pub(crate) const fn feed_ends(&self) -> &BTreeMap<FeedId, FeedEnd> {
        &self.feed_ends
    }

    /// Of actors that have several changes under one number, which one stays.
    pub(crate) const fn settled(&self) -> &BTreeMap<(ByteBuf, u64), ByteArray<32>> {
        &self.settled
    }

    /// Removed writers and those of their changes that removals vouch for.
    pub(crate) fn cuts(&self) -> &[(NodeId, Root)] {
        &self.cuts
    }
}

/// All that was said of one key.
#[derive(Clone, Debug, Default)]
struct Said {
    /// The highest role that was granted at each epoch.
    granted: BTreeMap<u32, Role>,
    /// The lowest role that was left to it, at each epoch at which something was taken away.
    left: BTreeMap<u32, Option<Role>>,
}

impl Said {
    fn grant(&mut self, epoch: u32, role: Role) {
        let granted = self.granted.entry(epoch).or_insert(role);
        *granted = role.max(*granted);
    }

    fn lower(&mut self, epoch: u32, stays: Option<Role>) {
        let left = self.left.entry(epoch).or_insert(stays);
        *left = stays.min(*left);
    }

    /// In the order of epochs. A grant never takes away: otherwise whoever holds a reader's ticket could redeem
    /// it for a writer, and two admins that let somebody in at once could undo what it wrote. What takes away
    /// never gives, and at one epoch it holds.
    fn role(&self) -> Option<Role> {
        let epochs: BTreeSet<u32> = self.granted.keys().chain(self.left.keys()).copied().collect();
        epochs.into_iter().fold(None, |role, epoch| {
            let role = role.max(self.granted.get(&epoch).copied());
            self.left.get(&epoch).map_or(role, |left| role.min(*left))
        })
    }
}

/// The strongest word about one ticket's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Verdict {
    epoch: u32,
    /// Of two at one epoch the removal holds.
    removed: bool,
    hash: [u8; 32],
    role: Role,
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
        if !access.is_owner(&author) && !self.is_named(&author) {
            return false;
        }
        let Ok(verified) = envelope.open::<Operation>(Domain::DocControl, network) else { return false };
        let operation = verified.into_value();
        if operation.doc != access.id || !self.may_sign(access, &author, &operation.act) {
            return false;
        }
        if operation.act.is_of_guests() {
            let guests = || self.operations.values().filter(|signed| signed.operation.act.is_of_guests());
            let theirs = guests().filter(|signed| signed.author == author).count();
            if theirs >= TICKET_MAX || guests().count() >= GUESTS_MAX {
                return false;
            }
        }
        if self.operations.is_empty() {
            // Most documents have one, and a list grows to four at once.
            self.operations = LiteMap::with_capacity(1);
        }
        self.operations.insert(hash, Box::new(Signed { envelope: envelope.clone(), author, operation }));
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

    /// Whether any operation says something of a key: before a signature is checked.
    fn is_named(&self, author: &NodeId) -> bool {
        self.operations.values().any(|signed| match &signed.operation.act {
            Act::Grant { to, .. } => to == author,
            Act::Redeem { member } => member == author,
            Act::Remove { .. } | Act::Settle { .. } | Act::Admit { .. } => false,
        })
    }

    /// Whether a key was ever given a say of this kind. A ticket's key signs redemptions and nothing else:
    /// who holds one could use up epochs.
    fn may_sign(&self, access: &DocAccess, author: &NodeId, act: &Act) -> bool {
        let granted = |wanted: &dyn Fn(Role, bool) -> bool| {
            self.operations.values().any(|signed| {
                matches!(&signed.operation.act, Act::Grant { to, role, bearer }
                    if to == author && wanted(*role, bearer.is_some()))
            })
        };
        match act {
            Act::Grant { .. } | Act::Remove { .. } | Act::Settle { .. } => {
                access.is_owner(author) || granted(&|role, is_bearer| role == Role::Admin && !is_bearer)
            }
            Act::Redeem { .. } => granted(&|_, is_bearer| is_bearer),
            Act::Admit { redemption } => {
                let redeemed = self.operations.get(redemption).map(|signed| &signed.operation.act);
                let is_first = !self.admissions(redemption).any(|(by, _)| by == author);
                matches!(redeemed, Some(Act::Redeem { .. })) && is_first
            }
        }
    }

    /// Who signed that a redemption came in time.
    fn admissions(&self, redemption: &OpHash) -> impl Iterator<Item = (&NodeId, &OpHash)> {
        self.operations.iter().filter_map(move |(hash, signed)| match &signed.operation.act {
            Act::Admit { redemption: of } if of == redemption => Some((&signed.author, hash)),
            _ => None,
        })
    }

    /// Takes back an operation that did not reach the disk.
    pub(crate) fn remove(&mut self, envelope: &Envelope) {
        self.operations.remove(&OpHash::new(envelope.hash()));
    }

    pub(crate) fn len(&self) -> usize {
        self.operations.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty()
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

    /// The highest epoch of a grant or removal. Guests choose none: a stranger with a ticket could use them up.
    pub(crate) fn epoch(&self) -> u32 {
        let chosen = self.operations.values().filter(|signed| !signed.operation.act.is_of_guests());
        chosen.map(|signed| signed.operation.epoch).max().unwrap_or(0)
    }

    /// The members, from the set alone.
    pub(crate) fn members(&self, access: &DocAccess) -> Members {
        self.judged(access, None).0
    }

    /// The members, and the redemptions that let somebody in; as if `admitted` came in time.
    fn judged(&self, access: &DocAccess, admitted: Option<&OpHash>) -> (Members, BTreeSet<OpHash>) {
        let owners = self.said(|signed, _| access.is_owner(&signed.author));
        let is_admin = |node: &NodeId| owners.get(node).is_some_and(|it| it.role() == Some(Role::Admin));
        let kept = self.kept(|author| access.is_owner(author));
        let holds = |signed: &Signed, hash: &OpHash| {
            if access.is_owner(&signed.author) {
                return true;
            }
            let within = match &signed.operation.act {
                Act::Grant { to, role, .. } => *role < Role::Admin && !is_admin(to) && !access.is_owner(to),
                Act::Remove { who, .. } => !is_admin(who) && !access.is_owner(who),
                Act::Settle { .. } => true,
                Act::Redeem { .. } | Act::Admit { .. } => false,
            };
            within && (is_admin(&signed.author) || kept.contains(hash))
        };
        let mut said = self.said(holds);
        let tickets = self.tickets(holds);
        let kept_redemptions = self.kept(|author| access.is_owner(author) || is_admin(author));
        let mut waiting: Vec<(OpHash, NodeId, Verdict)> = Vec::new();
        for (hash, signed) in &self.operations {
            let Act::Redeem { member } = &signed.operation.act else { continue };
            let Some(ticket) = tickets.get(&signed.author).copied() else { continue };
            let grant = if ticket.removed && kept_redemptions.contains(hash) {
                self.last_grant(&signed.author, holds)
            } else {
                Some(ticket).filter(|it| !it.removed)
            };
            waiting.extend(grant.map(|grant| (*hash, *member, grant)));
        }
        let counted = self.let_in(access, admitted, waiting, &mut said);
        let mut roles = LiteMap::with_capacity(said.len());
        roles.extend(said.iter().filter_map(|(node, said)| Some((*node, said.role()?))));
        let (cuts, feed_ends) = (self.cuts(holds), self.feed_ends(holds));
        (Members { roles, cuts, feed_ends, settled: self.settled(holds) }, counted)
    }

    /// Of redemptions with their tickets' grants those that let somebody in; who was let in may have let in
    /// others.
    fn let_in(
        &self,
        access: &DocAccess,
        admitted: Option<&OpHash>,
        mut waiting: Vec<(OpHash, NodeId, Verdict)>,
        said: &mut BTreeMap<NodeId, Said>,
    ) -> BTreeSet<OpHash> {
        let mut words: BTreeMap<OpHash, Vec<NodeId>> = BTreeMap::new();
        for signed in self.operations.values() {
            if let Act::Admit { redemption } = &signed.operation.act {
                words.entry(*redemption).or_default().push(signed.author);
            }
        }
        let mut counted = BTreeSet::new();
        loop {
            let before = waiting.len();
            waiting.retain(|(hash, member, grant)| {
                let holds = |by: &NodeId| {
                    access.is_owner(by) || said.get(by).and_then(Said::role) >= Some(grant.role)
                };
                let is_in = admitted == Some(hash)
                    || !self.has_limits(grant)
                    || words.get(hash).is_some_and(|by| by.iter().any(holds));
                if is_in {
                    // With the epoch of its ticket: who was removed since does not come back with it.
                    said.entry(*member).or_default().grant(grant.epoch, grant.role);
                    counted.insert(*hash);
                }
                !is_in
            });
            if waiting.len() == before {
                return counted;
            }
        }
    }

    fn has_limits(&self, grant: &Verdict) -> bool {
        let signed = self.operations.get(&OpHash::new(grant.hash));
        signed.is_some_and(|signed| {
            matches!(&signed.operation.act, Act::Grant { bearer: Some(bearer), .. } if bearer.has_limits())
        })
    }

    /// What was said of each member's key by operations that hold.
    fn said(&self, holds: impl Fn(&Signed, &OpHash) -> bool) -> BTreeMap<NodeId, Said> {
        let mut said: BTreeMap<NodeId, Said> = BTreeMap::new();
        for (_, signed) in self.operations.iter().filter(|(hash, signed)| holds(signed, hash)) {
            let epoch = signed.operation.epoch;
            match &signed.operation.act {
                Act::Grant { to, role, bearer: None } => said.entry(*to).or_default().grant(epoch, *role),
                Act::Remove { who, stays, .. } => said.entry(*who).or_default().lower(epoch, *stays),
                Act::Grant { .. } | Act::Settle { .. } | Act::Redeem { .. } | Act::Admit { .. } => {}
            }
        }
        said
    }

    /// The strongest word about each ticket's key, by operations that hold.
    fn tickets(&self, holds: impl Fn(&Signed, &OpHash) -> bool) -> BTreeMap<NodeId, Verdict> {
        let mut tickets = BTreeMap::new();
        for (hash, signed) in self.operations.iter().filter(|(hash, signed)| holds(signed, hash)) {
            if let Some((node, verdict)) = verdict(signed, hash) {
                let strongest = tickets.entry(node).or_insert(verdict);
                *strongest = (*strongest).max(verdict);
            }
        }
        tickets
    }

    /// The strongest grant of a bearer, whatever removed it.
    fn last_grant(&self, node: &NodeId, holds: impl Fn(&Signed, &OpHash) -> bool) -> Option<Verdict> {
        let valid = self.operations.iter().filter(|(hash, signed)| holds(signed, hash));
        let grants = valid.filter_map(|(hash, signed)| verdict(signed, hash));
        grants.filter(|(to, it)| to == node && !it.removed).map(|(_, it)| it).max()
    }

    /// What removals by such authors leave valid.
    fn kept(&self, by: impl Fn(&NodeId) -> bool) -> BTreeSet<OpHash> {
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

    /// Where admins settled one place differently the first word holds: what it cut is gone.
    fn settled(&self, holds: impl Fn(&Signed, &OpHash) -> bool) -> BTreeMap<(ByteBuf, u64), ByteArray<32>> {
        let mut settled: BTreeMap<(ByteBuf, u64), (u32, OpHash, ByteArray<32>)> = BTreeMap::new();
        for (hash, signed) in self.operations.iter().filter(|(hash, signed)| holds(signed, hash)) {
            let Act::Settle { story } = &signed.operation.act else { continue };
            let word = (signed.operation.epoch, *hash, story.change);
            let first = settled.entry((story.actor.clone(), story.seq)).or_insert(word);
            *first = word.min(*first);
        }
        settled.into_iter().map(|(place, (_, _, change))| (place, change)).collect()
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

    /// The redemptions of a bearer and what a node signed, for the `keep` of its removal. Admissions hold as
    /// long as who signed them has the role, so they are signed anew instead.
    pub(crate) fn signed_by(&self, author: &NodeId) -> Vec<OpHash> {
        let signed = self.operations.iter().filter(|(_, signed)| signed.author == *author);
        let kept = signed.filter(|(_, signed)| !matches!(signed.operation.act, Act::Admit { .. }));
        kept.map(|(hash, _)| *hash).collect()
    }

    /// The redemptions that hold and that a member signed for: whoever takes its role signs for them, or they
    /// go with it.
    pub(crate) fn admitted_by(&self, access: &DocAccess, author: &NodeId) -> Vec<OpHash> {
        let (_, counted) = self.judged(access, None);
        let theirs = self.operations.values().filter(|signed| signed.author == *author);
        let admitted = theirs.filter_map(|signed| match &signed.operation.act {
            Act::Admit { redemption } if counted.contains(redemption) => Some(*redemption),
            _ => None,
        });
        admitted.collect()
    }

    /// What of these operations is about a node: who is no member any more may know that.
    pub(crate) fn about(&self, node: &NodeId, envelopes: &[Envelope]) -> Vec<Envelope> {
        let is_about = |envelope: &&Envelope| {
            let signed = self.operations.get(&OpHash::new(envelope.hash()));
            signed.is_some_and(|signed| match &signed.operation.act {
                Act::Grant { to, .. } => to == node,
                Act::Remove { who, .. } => who == node,
                Act::Settle { .. } | Act::Redeem { .. } | Act::Admit { .. } => false,
            })
        };
        envelopes.iter().filter(is_about).cloned().collect()
    }

    /// The highest role that a ticket's key was ever granted.
    pub(crate) fn given_by(&self, ticket: &NodeId) -> Option<Role> {
        let granted = self.operations.values().filter_map(|signed| match &signed.operation.act {
            Act::Grant { to, role, bearer: Some(_) } if to == ticket => Some(*role),
            _ => None,
        });
        granted.max()
    }

    /// The tickets by which a member came in, as far as they give more than `role`.
    pub(crate) fn bearers_of(&self, node: &NodeId, role: Option<Role>) -> BTreeSet<NodeId> {
        let gives_more = |ticket: &NodeId| self.given_by(ticket) > role;
        let redeemed = self
            .operations
            .values()
            .filter(|signed| matches!(&signed.operation.act, Act::Redeem { member } if member == node));
        redeemed.map(|signed| signed.author).filter(gives_more).collect()
    }

    /// Whether a redemption may let its member in now, and how.
    pub(crate) fn admits(
        &self,
        access: &DocAccess,
        network: &NetworkName,
        redemption: &Envelope,
        now: UnixTime,
    ) -> Result<Admission, Refusal> {
        let opened = redemption.open::<Operation>(Domain::DocControl, network);
        let operation = opened.map_err(|_invalid| Refusal::NotAMember)?.into_value();
        let Act::Redeem { member } = operation.act else { return Err(Refusal::NotAMember) };
        let mut with = self.clone();
        with.insert(access, network, redemption);
        let hash = OpHash::new(redemption.hash());
        let (members, counted) = with.judged(access, Some(&hash));
        let Some(role) = members.role(&member) else { return Err(Refusal::NotAMember) };
        let limits = self.operations.values().filter_map(|signed| match &signed.operation.act {
            Act::Grant { to, bearer: Some(bearer), .. } if *to == redemption.author() => Some(bearer),
            _ => None,
        });
        let is_another = |it: &&OpHash| {
            let signed = self.operations.get(*it);
            **it != hash && signed.is_some_and(|signed| signed.author == redemption.author())
        };
        let used = counted.iter().filter(is_another).count();
        let mut needs_a_word = false;
        for limit in limits {
            needs_a_word |= limit.has_limits();
            if limit.expires.is_some_and(|at| UnixTime::from_millis(at) <= now) {
                return Err(Refusal::Expired);
            }
            if limit.uses.is_some_and(|uses| used >= uses as usize) {
                return Err(Refusal::UsedUp);
            }
        }
        Ok(Admission { role, needs_a_word })
    }
}

/// What an operation says of a ticket's key.
fn verdict(signed: &Signed, hash: &OpHash) -> Option<(NodeId, Verdict)> {
    let verdict = |removed, role| Verdict { epoch: signed.operation.epoch, removed, hash: **hash, role };
    match &signed.operation.act {
        Act::Grant { to, role, bearer: Some(_) } => Some((*to, verdict(false, *role))),
        Act::Remove { who, .. } => Some((*who, verdict(true, Role::Reader))),
        Act::Grant { .. } | Act::Settle { .. } | Act::Redeem { .. } | Act::Admit { .. } => None,
    }
}

#[cfg(test)]
mod tests;
