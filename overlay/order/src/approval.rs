//! How the validators of the next epoch are agreed on: by entries that stand in the log (rule N).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wattle_types::{Domain, NodeId, SecretKey, UnixTime, cbor};

use crate::block::Header;
use crate::committee::{Committee, Validator, Validators};
use crate::entry::Whole;
use crate::ids::{ChainId, Digest, Epoch, Signature, hash};
use crate::limits::{APPROVAL_LIFE_MS, APPROVALS_PER_BLOCK_MAX, ENTRY_BYTES_MAX};

/// The app of entries that approve validators: no app of a node is called so.
pub const APPROVALS_APP: &str = "validators/1";

/// A node's word that these are to vote from the next epoch on. Who joins says by it that it follows the log and is
/// ready. It counts until the time that it says, which is at most a minute behind its block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The epoch that is to end: in another one it counts for nothing.
    pub epoch: Epoch,
    /// Who is to vote in the next, as in [`Validators`].
    pub next: Vec<Validator>,
    /// Whose word it is.
    pub by: NodeId,
    /// Until when it counts: that of its entry, so that nobody else can say it again later.
    pub until: UnixTime,
    /// Its signature over all of that and the log.
    pub signature: Signature,
}

impl Approval {
    /// A node's word, for the epoch of a committee.
    #[must_use]
    pub fn sign(key: &SecretKey, committee: &Committee, next: Validators, until: UnixTime) -> Self {
        let (epoch, by, next) = (committee.epoch(), key.node_id(), next.into());
        let signature = Signature::from_bytes([0; 64]);
        let unsigned = Self { epoch, next, by, until, signature };
        let body = unsigned.signed_body(committee.chain(), &unsigned.digest());
        let signature = key.sign(Domain::OrderApproval, committee.network(), &body);
        Self { signature: Signature::from_bytes(signature), ..unsigned }
    }

    /// The data of its entry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// What [`Validators::digest`] is of the set, if it is one.
    fn digest(&self) -> Digest {
        Digest::from_bytes(hash("wattle order validators v1", &self.next))
    }

    fn signed_body(&self, chain: ChainId, next: &Digest) -> Vec<u8> {
        cbor::encode(&(chain, self.epoch, next, self.until))
    }

    /// The approval in an entry, if it could count in an epoch: of that epoch, by one who votes in it or would in the
    /// next, and with its own time. Its signature is not checked.
    fn read(committee: &Committee, whole: &Whole) -> Option<Self> {
        let approval: Self = cbor::decode(&whole.entry.data, ENTRY_BYTES_MAX).ok()?;
        let Self { epoch, next, by, until, .. } = &approval;
        let sits = committee.seat(by).is_some() || next.iter().any(|validator| validator.id == *by);
        (*epoch == committee.epoch() && *until == whole.key.until && sits).then_some(approval)
    }
}

/// An approval that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Approved {
    epoch: Epoch,
    by: NodeId,
    /// None of one who joins: somebody who votes says what it wants.
    next: Option<Arc<Validators>>,
    digest: Digest,
    /// In no block whose time is later does it count; and a later word has a later time.
    until: UnixTime,
}

impl Approved {
    fn of(committee: &Committee, approval: Approval) -> Option<Self> {
        let digest = approval.digest();
        let body = approval.signed_body(committee.chain(), &digest);
        let Approval { epoch, next, by, until, signature } = approval;
        if !by.verifies(Domain::OrderApproval, committee.network(), &body, signature.as_bytes()) {
            return None;
        }
        let next = match committee.seat(&by) {
            Some(_) => Some(Arc::new(Validators::try_from(next).ok()?)),
            None => None,
        };
        Some(Self { epoch, by, next, digest, until })
    }

    /// Whether it is a newer word than one that is known. An old one that somebody else says again changes nothing.
    fn replaces(&self, known: &Self) -> bool {
        self.until > known.until
    }
}

/// The approvals among what a block orders, in its order. They count in blocks of their own epoch, and no more than so
/// many in one block.
pub(crate) fn approved<'a>(
    committee: &Committee,
    block: &Header,
    entries: impl Iterator<Item = &'a Arc<Whole>>,
) -> Vec<Approved> {
    if block.epoch != committee.epoch() {
        return Vec::new();
    }
    let (last, mut heard) = (block.time.after(Duration::from_millis(APPROVAL_LIFE_MS)), BTreeSet::new());
    let entries = entries.filter(|whole| whole.entry.app == APPROVALS_APP && whole.key.until <= last);
    let read = entries.filter_map(|whole| Approval::read(committee, whole));
    // One word said again and again takes one place.
    let once =
        read.filter(|approval| heard.insert((approval.by, approval.until, *approval.signature.as_bytes())));
    once.take(APPROVALS_PER_BLOCK_MAX).filter_map(|approval| Approved::of(committee, approval)).collect()
}

/// Validators that somebody wants for the next epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who is to vote.
    pub next: Validators,
    /// Who approved it so far: of those who vote now, and of those who would join.
    pub approved: BTreeSet<NodeId>,
}

/// The approvals that stand on a chain. Bounded: one for each who votes, and for each set that one of them approves one
/// for each who would join.
#[derive(Clone, Debug, Default)]
pub(crate) struct Approvals {
    votes: BTreeMap<NodeId, Approved>,
    joins: BTreeMap<(Digest, NodeId), Approved>,
}

impl Approvals {
    pub(crate) fn is_empty(&self) -> bool {
        self.votes.is_empty()
    }

    /// With those of the next block: of each who votes the last word counts, and one who would join is heard of a set
    /// that one of those approves already.
    pub(crate) fn add(&mut self, committee: &Committee, time: UnixTime, approved: &[Approved]) {
        self.expire(time);
        for one in approved.iter().filter(|one| one.epoch == committee.epoch()) {
            let newer = |known: &Approved| one.replaces(known);
            if one.next.is_some() {
                if self.votes.get(&one.by).is_none_or(newer) {
                    self.votes.insert(one.by, one.clone());
                }
            } else if self.wants(&one.digest) {
                let place = (one.digest, one.by);
                if self.joins.get(&place).is_none_or(newer) {
                    self.joins.insert(place, one.clone());
                }
            }
        }
        self.expire(time);
    }

    /// Without what does not count any more.
    fn expire(&mut self, time: UnixTime) {
        self.votes.retain(|_, vote| vote.until >= time);
        let wanted: BTreeSet<Digest> = self.votes.values().map(|vote| vote.digest).collect();
        self.joins.retain(|(digest, _), join| join.until >= time && wanted.contains(digest));
    }

    /// Whether somebody who votes wants this set.
    fn wants(&self, digest: &Digest) -> bool {
        self.votes.values().any(|vote| vote.digest == *digest)
    }

    /// Whether an approval that somebody hands in would change anything. What costs most is looked at last.
    pub(crate) fn hears(&self, committee: &Committee, whole: &Whole) -> bool {
        let Some(approval) = Approval::read(committee, whole) else { return false };
        let digest = approval.digest();
        let known = match committee.seat(&approval.by) {
            Some(_) => self.votes.get(&approval.by),
            None if !self.wants(&digest) => return false,
            None => self.joins.get(&(digest, approval.by)),
        };
        let newer = known.is_none_or(|known| approval.until > known.until);
        newer && Approved::of(committee, approval).is_some()
    }

    /// What is wanted at that time, each set once.
    pub(crate) fn changes(&self, time: UnixTime) -> Vec<Change> {
        let mut changes: BTreeMap<Digest, Change> = BTreeMap::new();
        for (by, vote) in self.votes.iter().filter(|(_, vote)| vote.until >= time) {
            let Some(next) = &vote.next else { continue };
            let new = || Change { next: (**next).clone(), approved: BTreeSet::new() };
            changes.entry(vote.digest).or_insert_with(new).approved.insert(*by);
        }
        for ((digest, by), _) in self.joins.iter().filter(|(_, join)| join.until >= time) {
            if let Some(change) = changes.get_mut(digest) {
                change.approved.insert(*by);
            }
        }
        changes.into_values().collect()
    }

    /// N: the set that a quorum approves at that time, and each who is in it. Of two sets only one can be.
    pub(crate) fn decided(&self, committee: &Committee, time: UnixTime) -> Option<Validators> {
        let decided = |Change { next, approved }: &Change| {
            let seats = approved.iter().filter_map(|by| committee.seat(by));
            committee.is_quorum(seats) && next.list().iter().all(|one| approved.contains(&one.id))
        };
        self.changes(time).into_iter().find(decided).map(|change| change.next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_bytes::ByteBuf;
    use wattle_types::NetworkName;

    use super::*;
    use crate::block::Executed;
    use crate::committee::{Genesis, Rules};
    use crate::entry::Entry;
    use crate::ids::{BlockId, Height, Round, Seat};
    use crate::limits::ENTRY_LIFE_MAX_MS;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_bytes(&[seed; 32])
    }

    fn set(seeds: &[u8]) -> Validators {
        let one = |seed: &u8| Validator { id: key(*seed).node_id(), weight: 1 };
        Validators::new(seeds.iter().map(one).collect()).unwrap()
    }

    fn committee(seeds: &[u8]) -> Committee {
        let (network, created) = (NetworkName::default(), UnixTime::from_millis(1));
        Committee::genesis(&Genesis { network, validators: set(seeds), rules: Rules::default(), created })
    }

    fn ordered(approval: &Approval, until: u64) -> Arc<Whole> {
        let data = ByteBuf::from(approval.encode());
        let until = UnixTime::from_millis(until);
        let entry = Entry { app: APPROVALS_APP.to_owned(), data, until, salt: 1 };
        Arc::new(Whole::read(ByteBuf::from(entry.encode())).unwrap())
    }

    /// A block of that time.
    fn block(epoch: u64, time: u64) -> Header {
        let none = Digest::default();
        Header {
            epoch: Epoch(epoch),
            round: Round(1),
            height: Height(1),
            author: Seat(0),
            parent: BlockId::default(),
            qc: none,
            tc: None,
            payload: none,
            stored: None,
            evidence: none,
            next: None,
            executed: Executed::default(),
            time: UnixTime::from_millis(time),
        }
    }

    fn sign(by: u8, committee: &Committee, next: &[u8], until: u64) -> Approval {
        Approval::sign(&key(by), committee, set(next), UnixTime::from_millis(until))
    }

    fn read(committee: &Committee, time: u64, approval: &Approval) -> Vec<Approved> {
        approved(committee, &block(1, time), [ordered(approval, approval.until.as_millis())].iter())
    }

    proptest! {
        /// Whoever begins with the blocks of the last two minutes counts what those count who were there before: else
        /// honest voters would judge one block differently.
        #[test]
        fn n_what_counts_follows_from_the_blocks_of_one_life_of_an_entry(
            steps in prop::collection::vec((0u64..50_000, 1u8..7, 0usize..3, 0u64..ENTRY_LIFE_MAX_MS), 1..30)
        ) {
            let committee = committee(&[1, 2, 3, 4]);
            let sets = [[1, 2, 3, 5], [1, 2, 5, 6], [1, 2, 3, 4]];
            let (mut time, mut blocks) = (1, Vec::new());
            for (later, by, which, life) in steps {
                time += later;
                let approval = sign(by, &committee, &sets[which], time + life);
                blocks.push((UnixTime::from_millis(time), read(&committee, time, &approval)));
            }
            let now = UnixTime::from_millis(time);
            let count = |from: UnixTime| {
                let mut approvals = Approvals::default();
                for (at, approved) in blocks.iter().filter(|(at, _)| *at >= from) {
                    approvals.add(&committee, *at, approved);
                }
                approvals.changes(now)
            };
            let window = UnixTime::from_millis(time.saturating_sub(ENTRY_LIFE_MAX_MS));
            prop_assert_eq!(count(window), count(UnixTime::from_millis(0)));
        }
    }

    #[test]
    fn an_approval_is_of_its_log_its_epoch_and_its_author_and_of_one_who_votes_or_joins() {
        let committee = committee(&[1, 2, 3, 4]);
        let good = sign(5, &committee, &[1, 2, 3, 5], 9);
        let counts = |approval: &Approval| read(&committee, 1, approval).len();
        assert_eq!(counts(&good), 1);
        assert_eq!(counts(&sign(6, &committee, &[1, 2, 3, 5], 9)), 0, "a stranger");
        assert_eq!(counts(&Approval { by: key(1).node_id(), ..good.clone() }), 0, "another's word");
        assert_eq!(counts(&Approval { epoch: Epoch(2), ..good.clone() }), 0, "another epoch");
        assert_eq!(counts(&Approval { until: UnixTime::from_millis(10), ..good.clone() }), 0, "another time");
        let later = [ordered(&good, 10)];
        assert!(approved(&committee, &block(1, 1), later.iter()).is_empty(), "in an entry of another time");
        let others = set(&[1, 2, 4, 5]).into();
        assert_eq!(counts(&Approval { next: others, ..good }), 0, "another set");
        let three = Approval {
            next: set(&[1, 2, 3, 5]).list()[..3].to_vec(),
            ..sign(1, &committee, &[1, 2, 3, 5], 9)
        };
        assert_eq!(counts(&three), 0, "no set");
        let elsewhere = self::committee(&[1, 2, 3, 5]);
        assert_eq!(counts(&sign(5, &elsewhere, &[1, 2, 3, 5], 9)), 0, "another log");
    }

    #[test]
    fn what_a_block_may_approve_is_bounded_and_what_counts_for_nothing_takes_no_place() {
        let committee = committee(&[1, 2, 3, 4]);
        let good = ordered(&sign(1, &committee, &[1, 2, 3, 5], 9), 9);
        let junk = ordered(&sign(6, &committee, &[1, 2, 3, 5], 9), 9);
        let words = (0..APPROVALS_PER_BLOCK_MAX as u64 + 7).map(|word| 9 + word);
        let many: Vec<_> =
            words.map(|until| ordered(&sign(1, &committee, &[1, 2, 3, 5], until), until)).collect();
        assert_eq!(approved(&committee, &block(1, 1), many.iter()).len(), APPROVALS_PER_BLOCK_MAX);
        assert!(approved(&committee, &block(2, 1), many.iter()).is_empty(), "in a block of another epoch");
        let behind = [vec![junk; APPROVALS_PER_BLOCK_MAX + 7], vec![good]].concat();
        assert_eq!(approved(&committee, &block(1, 1), behind.iter()).len(), 1);
        let again = vec![Arc::clone(&behind[behind.len() - 1]); 3];
        assert_eq!(approved(&committee, &block(1, 1), again.iter()).len(), 1, "one word, said three times");
        let long = [ordered(&sign(1, &committee, &[1, 2, 3, 5], 2 + APPROVAL_LIFE_MS), 2 + APPROVAL_LIFE_MS)];
        assert!(approved(&committee, &block(1, 1), long.iter()).is_empty(), "it would count for too long");
    }

    #[test]
    fn n_those_who_are_to_vote_are_not_enough_without_a_quorum_of_those_who_do() {
        let committee = committee(&[1, 2, 3, 4]);
        let (next, at) = ([1, 2, 5, 6], UnixTime::from_millis(2));
        let mut approvals = Approvals::default();
        let mut say = |by: u8| {
            approvals.add(&committee, at, &read(&committee, 1, &sign(by, &committee, &next, 9)));
            approvals.decided(&committee, at)
        };
        assert!([1, 2, 5, 6].map(&mut say).iter().all(Option::is_none), "two of four");
        assert_eq!(say(3), Some(set(&next)), "who leaves is asked too");
    }

    #[test]
    fn what_somebody_said_before_changes_nothing_when_others_say_it_again() {
        let committee = committee(&[1, 2, 3, 4]);
        let say = |next: &[u8], until: u64| read(&committee, 1, &sign(1, &committee, next, until));
        let at = UnixTime::from_millis;
        let mut approvals = Approvals::default();
        approvals.add(&committee, at(1), &say(&[1, 2, 3, 5], 50));
        approvals.add(&committee, at(2), &say(&[1, 2, 3, 6], 60));
        approvals.add(&committee, at(3), &say(&[1, 2, 3, 5], 50));
        assert_eq!(approvals.changes(at(3))[0].next, set(&[1, 2, 3, 6]));
        assert!(approvals.changes(at(61)).is_empty());
    }

    #[test]
    fn sets_that_nobody_who_votes_wants_any_more_are_forgotten_with_those_who_would_join() {
        let committee = committee(&[1, 2, 3, 4]);
        let say = |by: u8, next: &[u8], until: u64| read(&committee, 1, &sign(by, &committee, next, until));
        let at = UnixTime::from_millis;
        let mut approvals = Approvals::default();
        approvals.add(&committee, at(1), &say(5, &[1, 2, 3, 5], 90));
        assert!(approvals.is_empty() && approvals.joins.is_empty(), "nobody who votes wants it");
        approvals.add(&committee, at(1), &say(1, &[1, 2, 3, 5], 50));
        approvals.add(&committee, at(2), &say(5, &[1, 2, 3, 5], 90));
        assert_eq!(approvals.changes(at(2)).len(), 1);
        approvals.add(&committee, at(3), &say(1, &[1, 2, 3, 6], 51));
        assert_eq!((approvals.votes.len(), approvals.joins.len()), (1, 0), "its last word counts");
        assert!(approvals.changes(at(52)).is_empty(), "its time is over");
        approvals.add(&committee, at(52), &[]);
        assert!(approvals.is_empty());
    }
}
