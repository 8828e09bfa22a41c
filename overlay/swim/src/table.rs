//! Who the members are, where each stands, and the fingerprint of all that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;
use wattle_types::{NodeId, Time, UnixTime};

use crate::claim::{Claim, Description, Incarnation, Reach, ShortId, Signed};
use crate::coordinate::Coordinate;
use crate::rtt::RoundTrips;
use crate::stream::{BUCKETS, Version};
use crate::suspicion::{Credit, QUOTA_WINDOW, Suspicion};
use crate::view::State;

/// Accusers of a member, beside those of its last suspicion, that are remembered as refuted.
const REFUTED_MAX: usize = 16;

/// Where a member is in the table while it is in it.
pub(crate) type Index = usize;

/// One member as it is seen here.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    /// Its record: what it said of itself last.
    pub(crate) record: Arc<Signed>,
    /// Its refutation or leave since, if the incarnation has one.
    pub(crate) since: Option<Arc<Signed>>,
    /// An operator's word that it is gone for good, as this incarnation. One that is suspect is removed with the
    /// verdict.
    pub(crate) removal: Option<Arc<Signed>>,
    pub(crate) incarnation: Incarnation,
    pub(crate) state: State,
    /// Since when it is what it is.
    pub(crate) at: UnixTime,
    /// Who accuses it as this incarnation; a faulty member has its evidence there.
    pub(crate) suspicion: Option<Box<Suspicion>>,
    /// Whose accusations it refuted lately, and since when this node knows that.
    pub(crate) refuted: VecDeque<(Time, ShortId)>,
    /// Its accusations of others.
    pub(crate) credit: Option<Box<Credit>>,
    pub(crate) round_trips: Option<Box<RoundTrips>>,
    pub(crate) coordinate: Option<Box<Coordinate>>,
    /// The key of the run before this one.
    pub(crate) key_before: Option<Box<[u8; 32]>>,
    /// Not accused by this node before then: it was remembered from before a restart.
    pub(crate) spared_until: Time,
    /// When it was last told that it is accused, or asked about.
    pub(crate) spoken_at: Time,
    /// Until when its packets that were read would have taken at the pace that is allowed.
    pub(crate) read_until: Time,
    /// What was last told of it, and until when more must wait.
    pub(crate) told: State,
    pub(crate) told_until: Time,
    /// Its place among those of its kind.
    place: usize,
}

impl Member {
    pub(crate) fn new(record: Arc<Signed>, state: State, at: UnixTime) -> Self {
        Self {
            id: record.author(),
            incarnation: record.claim().incarnation(),
            record,
            since: None,
            removal: None,
            state,
            at,
            suspicion: None,
            refuted: VecDeque::new(),
            credit: None,
            round_trips: None,
            coordinate: None,
            key_before: None,
            spared_until: Time::ZERO,
            spoken_at: Time::ZERO,
            read_until: Time::ZERO,
            told: state,
            told_until: Time::ZERO,
            place: 0,
        }
    }

    pub(crate) fn short(&self) -> ShortId {
        ShortId::of(&self.id)
    }

    pub(crate) fn description(&self) -> Option<&Description> {
        self.record.description()
    }

    pub(crate) fn boot_key(&self) -> Option<[u8; 32]> {
        self.description().map(|description| description.boot_key.into_array())
    }

    pub(crate) fn is_anchored(&self) -> bool {
        self.description().is_some_and(|description| description.reach == Reach::Anchored)
    }

    /// Whether it counts as a member that is there.
    pub(crate) const fn is_live(&self) -> bool {
        matches!(self.state, State::Alive | State::Suspect)
    }

    /// The incarnation that can be shown to others: what it said in passing cannot.
    pub(crate) fn proven(&self) -> Incarnation {
        self.since.as_ref().unwrap_or(&self.record).claim().incarnation()
    }

    /// What it adds to the fingerprint.
    fn fingerprint(&self) -> u64 {
        fingerprint(self.short(), self.proven(), self.standing())
    }

    pub(crate) const fn standing(&self) -> u8 {
        match self.state {
            State::Alive | State::Suspect => 0,
            State::Faulty => 1,
            State::Left => 2,
            State::Removed => 3,
        }
    }

    /// It refuted what some said of it. Once it is known here that it did, it is some time since it did, so that it
    /// does again when they are believed again.
    pub(crate) fn refutes(&mut self, now: Time, accusers: &[NodeId]) {
        let over = |at: Time| now.since(at) >= QUOTA_WINDOW;
        while self.refuted.front().is_some_and(|(at, _)| over(*at)) || self.refuted.len() > REFUTED_MAX {
            self.refuted.pop_front();
        }
        self.refuted.extend(accusers.iter().map(|accuser| (now, ShortId::of(accuser))));
    }

    /// Whether it refuted that accuser lately.
    pub(crate) fn has_refuted(&self, now: Time, accuser: &NodeId) -> bool {
        let short = ShortId::of(accuser);
        self.refuted.iter().any(|(at, refuted)| *refuted == short && now.since(*at) < QUOTA_WINDOW)
    }

    /// Whether it went by its own word.
    pub(crate) fn has_left(&self) -> bool {
        self.since.as_ref().is_some_and(|since| matches!(since.claim(), Claim::Leave { .. }))
    }

    /// Who removed it.
    pub(crate) fn removed_by(&self) -> Vec<NodeId> {
        self.removal.iter().map(|removal| removal.author()).collect()
    }
}

/// The members but this node.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Option<Member>>,
    free: Vec<Index>,
    by_short: BTreeMap<ShortId, Index>,
    /// The live, the faulty, those that left and those that were removed, for choosing one of them.
    kinds: [Vec<Index>; 4],
    buckets: Vec<u64>,
    own: Option<(ShortId, Incarnation)>,
}

/// What one member adds to the fingerprint: nothing once it left or was removed. Newcomers are not told of those,
/// and would compare tables with everybody for a day.
fn fingerprint(short: ShortId, incarnation: Incarnation, standing: u8) -> u64 {
    if standing >= 2 {
        return 0;
    }
    let mut bytes = [0; 17];
    let (id, rest) = bytes.split_at_mut(8);
    let (number, last) = rest.split_at_mut(8);
    id.copy_from_slice(&short.0.to_be_bytes());
    number.copy_from_slice(&incarnation.as_u64().to_be_bytes());
    last.copy_from_slice(&[standing]);
    let hash = *blake3::hash(&bytes).as_bytes();
    u64::from_be_bytes(hash.first_chunk::<8>().copied().unwrap_or_default())
}

/// The bucket of a member.
pub(crate) fn bucket(short: ShortId) -> usize {
    usize::from(short.0.to_be_bytes()[0])
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], ..Self::default() }
    }

    /// Members of every state.
    pub(crate) fn len(&self) -> usize {
        self.by_short.len()
    }

    pub(crate) fn live(&self) -> &[Index] {
        &self.kinds[0]
    }

    pub(crate) fn faulty(&self) -> &[Index] {
        &self.kinds[1]
    }

    pub(crate) fn gone(&self) -> &[Index] {
        &self.kinds[2]
    }

    pub(crate) fn removed(&self) -> &[Index] {
        &self.kinds[3]
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Member> {
        self.slots.get(index)?.as_ref()
    }

    /// For all but claims, incarnation and state: those go through [`Table::change`].
    pub(crate) fn get_mut(&mut self, index: Index) -> Option<&mut Member> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// The member with a short id.
    pub(crate) fn by_short(&self, short: ShortId) -> Option<Index> {
        self.by_short.get(&short).copied()
    }

    pub(crate) fn find(&self, id: &NodeId) -> Option<Index> {
        let index = self.by_short(ShortId::of(id))?;
        self.get(index).filter(|member| member.id == *id).map(|_| index)
    }

    /// Everyone, in the order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Index, &Member)> {
        self.by_short.values().filter_map(|index| Some((*index, self.get(*index)?)))
    }

    /// Takes a member in whose short id nobody has.
    pub(crate) fn insert(&mut self, mut member: Member) -> Option<Index> {
        let short = member.short();
        if self.by_short.contains_key(&short) {
            return None;
        }
        let kind = usize::from(member.standing());
        let index = self.free.pop().unwrap_or(self.slots.len());
        member.place = self.kinds[kind].len();
        self.kinds[kind].push(index);
        self.by_short.insert(short, index);
        self.mix(short, member.fingerprint());
        if index == self.slots.len() {
            self.slots.push(Some(member));
        } else {
            self.slots[index] = Some(member);
        }
        Some(index)
    }

    pub(crate) fn remove(&mut self, index: Index) -> Option<Member> {
        let member = self.slots.get_mut(index)?.take()?;
        self.leave_kind(usize::from(member.standing()), member.place);
        let short = member.short();
        self.by_short.remove(&short);
        self.mix(short, member.fingerprint());
        self.free.push(index);
        Some(member)
    }

    /// The one way to change a member's incarnation or state.
    pub(crate) fn change(&mut self, index: Index, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.slots.get_mut(index).and_then(Option::as_mut) else { return };
        let (before, kind_before, place) = (member.proven(), member.standing(), member.place);
        change(member);
        let (short, after, kind_after) = (member.short(), member.proven(), member.standing());
        if (after, kind_after) == (before, kind_before) {
            return;
        }
        self.mix(short, fingerprint(short, before, kind_before) ^ fingerprint(short, after, kind_after));
        if kind_after != kind_before {
            self.leave_kind(usize::from(kind_before), place);
            let kind = &mut self.kinds[usize::from(kind_after)];
            let place = kind.len();
            kind.push(index);
            if let Some(member) = self.get_mut(index) {
                member.place = place;
            }
        }
    }

    fn leave_kind(&mut self, kind: usize, place: usize) {
        self.kinds[kind].swap_remove(place);
        if let Some(moved) = self.kinds[kind].get(place).copied()
            && let Some(member) = self.get_mut(moved)
        {
            member.place = place;
        }
    }

    fn mix(&mut self, short: ShortId, fingerprint: u64) {
        if let Some(hash) = self.buckets.get_mut(bucket(short)) {
            *hash ^= fingerprint;
        }
    }

    /// This node's own incarnation, which the others have too.
    pub(crate) fn set_own(&mut self, short: ShortId, incarnation: Incarnation) {
        if let Some((short, incarnation)) = self.own.replace((short, incarnation)) {
            self.mix(short, fingerprint(short, incarnation, 0));
        }
        self.mix(short, fingerprint(short, incarnation, 0));
    }

    /// The fingerprint of everything.
    pub(crate) fn root(&self) -> u64 {
        self.buckets.iter().fold(0, |root, hash| root ^ hash)
    }

    /// The fingerprints of the buckets, as they travel.
    pub(crate) fn hashes(&self) -> ByteBuf {
        ByteBuf::from(self.buckets.iter().flat_map(|hash| hash.to_be_bytes()).collect::<Vec<u8>>())
    }

    /// Which buckets differ from another's, a bit each. `None` if those are no fingerprints.
    pub(crate) fn differing(&self, hashes: &[u8]) -> Option<[u8; 32]> {
        if hashes.len() != BUCKETS * 8 {
            return None;
        }
        let mut mask = [0; 32];
        for (at, (ours, theirs)) in self.buckets.iter().zip(hashes.chunks_exact(8)).enumerate() {
            if ours.to_be_bytes() != theirs {
                mask[at / 8] |= 1 << (at % 8);
            }
        }
        Some(mask)
    }

    /// The buckets of some members, a bit each.
    pub(crate) fn mask_of(&self, members: &[Index]) -> [u8; 32] {
        let mut mask = [0; 32];
        for member in members.iter().filter_map(|index| self.get(*index)) {
            let at = bucket(member.short());
            if let Some(byte) = mask.get_mut(at / 8) {
                *byte |= 1 << (at % 8);
            }
        }
        mask
    }

    /// What is here in some buckets.
    pub(crate) fn versions(&self, mask: &[u8; 32], now: UnixTime) -> Vec<Version> {
        let own = self.own.filter(|(short, _)| is_masked(mask, *short));
        let own = own.map(|(short, incarnation)| Version(short, incarnation, 0, 0));
        let others = self.iter().filter(|(_, member)| is_masked(mask, member.short()));
        let others = others.map(|(_, member)| {
            Version(member.short(), member.proven(), member.standing(), age_s(member, now))
        });
        own.into_iter().chain(others).collect()
    }

    /// Every rule that the parts keep together.
    pub(crate) fn check(&self) {
        let counted: usize = self.kinds.iter().map(Vec::len).sum();
        assert_eq!(counted, self.by_short.len(), "every member is of one kind");
        let mut buckets = vec![0; BUCKETS];
        if let Some((short, incarnation)) = self.own {
            buckets[bucket(short)] ^= fingerprint(short, incarnation, 0);
        }
        for (index, member) in self.iter() {
            let short = member.short();
            buckets[bucket(short)] ^= member.fingerprint();
            let place = self.kinds[usize::from(member.standing())].get(member.place);
            assert_eq!(place, Some(&index), "a member is where its kind is");
            member.check();
        }
        assert_eq!(buckets, self.buckets, "the fingerprint is that of the members");
    }
}

impl Member {
    fn check(&self) {
        assert!(self.record.claim().incarnation() <= self.incarnation, "a record is never from the future");
        assert!(
            self.record.claim().incarnation().epoch() == self.incarnation.epoch(),
            "an incarnation is of the run of its record"
        );
        let accused = self.suspicion.as_deref();
        // One that was removed has what it was removed for: accusations, or its own word that it goes.
        let is_accused = match self.state {
            State::Suspect | State::Faulty => true,
            State::Removed => !self.has_left(),
            State::Alive | State::Left => false,
        };
        assert_eq!(accused.is_some(), is_accused, "{self:?}");
        let removal = self.removal.as_ref().map(|removal| removal.claim().incarnation());
        assert!(
            removal.is_none_or(|removal| removal == self.incarnation),
            "a removal is of this incarnation"
        );
        assert!(removal.is_some() || self.state != State::Removed, "nobody is removed without a word for it");
        if let Some(suspicion) = accused {
            assert_eq!(suspicion.incarnation, self.incarnation, "accusations are of this incarnation");
            assert!(!suspicion.accusers.is_empty(), "nobody is suspect without an accuser");
        }
    }
}

/// For how many seconds a member has been what it is.
pub(crate) fn age_s(member: &Member, now: UnixTime) -> u32 {
    u32::try_from(now.since(member.at).as_secs()).unwrap_or(u32::MAX)
}

/// That many seconds before now.
pub(crate) fn before(now: UnixTime, age_s: u32) -> UnixTime {
    let age = Duration::from_secs(u64::from(age_s));
    UnixTime::from_millis(now.as_millis().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
}

/// Whether a member's bucket is among those of a mask.
pub(crate) fn is_masked(mask: &[u8; 32], short: ShortId) -> bool {
    let at = bucket(short);
    mask.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
}
