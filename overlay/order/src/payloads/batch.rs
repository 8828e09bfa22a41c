//! Batches: entries that travel ahead of the block that orders them (rule M3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::{ByteBuf, Bytes};
use wattle_types::{NodeId, Time, UnixTime, cbor};

use crate::entry::{InvalidEntry, Key, Whole};
use crate::ids::{Digest, Seq};
use crate::limits::{
    AUTHOR_BATCHES_MAX, AUTHOR_BYTES_MAX, BATCH_BYTES_MAX, BATCH_COUNT_MAX, FETCHED_BYTES_MAX,
    MESSAGE_BYTES_MAX, SERVED_BATCHES_MAX, WANTED_BATCHES_MAX,
};
use crate::merkle::tree_root;

/// Why bytes are no batch. The fault of who sent them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// Not a list of transactions in its one encoding.
    #[error("not a batch: {0}")]
    Malformed(#[from] cbor::DecodeError),
    /// Nothing in it, or more than a batch may have.
    #[error("a batch of {entries} entries and {bytes} bytes")]
    Size {
        /// Its entries.
        entries: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// Something in it is no entry.
    #[error("in a batch: {0}")]
    Entry(#[from] InvalidEntry),
}

/// Entries that go together, each of them whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub(crate) entries: Vec<Arc<Whole>>,
    digest: Digest,
    bytes: usize,
    until: UnixTime,
}

impl Batch {
    pub(crate) fn new(entries: Vec<Arc<Whole>>) -> Result<Self, InvalidBatch> {
        let bytes = entries.iter().map(|whole| whole.bytes.len()).sum();
        if !(1..=BATCH_COUNT_MAX).contains(&entries.len()) || bytes > BATCH_BYTES_MAX {
            return Err(InvalidBatch::Size { entries: entries.len(), bytes });
        }
        let hashes: Vec<Digest> = entries.iter().map(|whole| whole.transaction).collect();
        let digest = tree_root(&hashes);
        let until = entries.iter().map(|whole| whole.key.until).max().unwrap_or(UnixTime::from_millis(0));
        Ok(Self { entries, digest, bytes, until })
    }

    /// From its transactions.
    ///
    /// # Errors
    /// [`InvalidBatch`]: the sender's fault.
    pub fn read(transactions: Vec<ByteBuf>) -> Result<Self, InvalidBatch> {
        let (entries, bytes) = (transactions.len(), transactions.iter().map(|tx| tx.len()).sum());
        if entries > BATCH_COUNT_MAX || bytes > BATCH_BYTES_MAX {
            return Err(InvalidBatch::Size { entries, bytes });
        }
        let read = |bytes| Whole::read(bytes).map(Arc::new);
        let entries: Result<Vec<Arc<Whole>>, InvalidEntry> = transactions.into_iter().map(read).collect();
        Self::new(entries?)
    }

    /// What names it.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Its transactions, in order.
    pub fn transactions(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|whole| whole.bytes.as_slice())
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&self.transactions().map(Bytes::new).collect::<Vec<_>>())
    }

    /// What was stored.
    ///
    /// # Errors
    /// [`InvalidBatch`]: the disk's fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidBatch> {
        Self::read(cbor::decode(bytes, MESSAGE_BYTES_MAX)?)
    }

    /// Its transactions, as they travel.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<ByteBuf> {
        self.entries.iter().map(|whole| whole.bytes.clone()).collect()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last moment at which anything in it may be ordered.
    pub(crate) const fn until(&self) -> UnixTime {
        self.until
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.entries.iter().map(|whole| whole.key)
    }
}

/// A batch that is here.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) batch: Arc<Batch>,
    /// Who sent it unasked; none for one that was asked for, or found on disk.
    pub(crate) author: Option<NodeId>,
    /// On disk with this record; none if it was there before.
    pub(crate) seq: Option<Seq>,
    pub(crate) arrival: u64,
    /// A block that was told of has it.
    pub(crate) ordered: bool,
    /// Who says that it has it on disk.
    pub(crate) haves: BTreeSet<NodeId>,
    /// Who asked for it.
    pub(crate) asked_by: BTreeSet<NodeId>,
    /// Of this node's own: when it is told again, and how often it was.
    pub(crate) again: Option<(Time, u32)>,
}

/// One that a block needs and that is not here.
#[derive(Debug)]
pub(crate) struct Want {
    pub(crate) holders: Vec<NodeId>,
    /// None while the disk is asked.
    at: Option<Time>,
    attempts: u32,
}

/// Where a batch came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Author(NodeId),
    Asked,
    Disk,
}

/// The batches of a node.
#[derive(Debug, Default)]
pub(crate) struct Store {
    held: BTreeMap<Digest, Held>,
    /// Those that no block has ordered, in the order in which they came.
    free: BTreeMap<u64, Digest>,
    /// Those that are not on disk yet.
    unsynced: BTreeMap<Seq, Digest>,
    wanted: BTreeMap<Digest, Want>,
    /// What each author's batches that are not ordered take: their number, and their bytes.
    room: BTreeMap<NodeId, (usize, usize)>,
    arrivals: u64,
    /// Bytes of those that no author has room for and no block has ordered.
    fetched: usize,
    /// How often something gave way that a block may need.
    lost: u64,
}

impl Store {
    pub(crate) fn get(&self, batch: &Digest) -> Option<&Held> {
        self.held.get(batch)
    }

    pub(crate) fn get_mut(&mut self, batch: &Digest) -> Option<&mut Held> {
        self.held.get_mut(batch)
    }

    pub(crate) fn wants(&self, batch: &Digest) -> bool {
        self.wanted.contains_key(batch)
    }

    pub(crate) fn lens(&self) -> (usize, usize) {
        (self.held.len(), self.wanted.len())
    }

    /// Batches that no block has ordered, first come first.
    pub(crate) fn free(&self) -> impl Iterator<Item = &Held> {
        self.free.values().filter_map(|batch| self.held.get(batch))
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether an author has a batch that no block has ordered.
    pub(crate) fn has_free_of(&self, author: NodeId) -> bool {
        self.room.contains_key(&author)
    }

    pub(crate) fn own_mut(&mut self, me: NodeId) -> impl Iterator<Item = &mut Held> {
        self.held.values_mut().filter(move |held| held.author == Some(me) && !held.ordered)
    }

    /// M4: one author's batches fill its own room only.
    pub(crate) fn has_room_for(&self, author: NodeId, bytes: usize) -> bool {
        let (count, sum) = self.room.get(&author).copied().unwrap_or_default();
        count < AUTHOR_BATCHES_MAX && sum + bytes <= AUTHOR_BYTES_MAX
    }

    pub(crate) fn insert(&mut self, batch: Arc<Batch>, origin: Origin, seq: Option<Seq>) {
        self.arrivals += 1;
        self.wanted.remove(&batch.digest());
        let author = if let Origin::Author(author) = origin { Some(author) } else { None };
        let held = Held {
            author,
            seq,
            arrival: self.arrivals,
            ordered: false,
            haves: BTreeSet::new(),
            asked_by: BTreeSet::new(),
            again: None,
            batch,
        };
        let digest = held.batch.digest();
        self.free.insert(held.arrival, digest);
        if let Some(author) = author {
            let (count, bytes) = self.room.entry(author).or_default();
            (*count, *bytes) = (*count + 1, *bytes + held.batch.bytes());
        } else {
            self.fetched += held.batch.bytes();
        }
        if let Some(seq) = seq {
            self.unsynced.insert(seq, digest);
        }
        self.held.insert(digest, held);
    }

    /// A block that was told of has it.
    pub(crate) fn set_ordered(&mut self, batch: &Digest) {
        if let Some(held) = self.held.get_mut(batch) {
            (held.ordered, held.again) = (true, None);
            if self.free.remove(&held.arrival).is_some() {
                let (author, bytes) = (held.author, held.batch.bytes());
                self.give_room(author, bytes);
            }
        }
    }

    fn give_room(&mut self, author: Option<NodeId>, given: usize) {
        let Some(author) = author else {
            self.fetched -= given;
            return;
        };
        if let Some((count, bytes)) = self.room.get_mut(&author) {
            (*count, *bytes) = (*count - 1, *bytes - given);
            if *count == 0 {
                self.room.remove(&author);
            }
        }
    }

    /// Those that are on disk now and were not before.
    pub(crate) fn synced(&mut self, upto: Seq) -> Vec<Digest> {
        let later = self.unsynced.split_off(&upto.next());
        std::mem::replace(&mut self.unsynced, later).into_values().collect()
    }

    pub(crate) fn forget(&mut self, batch: &Digest) {
        if let Some(held) = self.held.remove(batch)
            && self.free.remove(&held.arrival).is_some()
        {
            self.give_room(held.author, held.batch.bytes());
        }
    }

    /// Ordered ones are on disk; the newest are kept here for those who ask. What was fetched for blocks that are not
    /// committed has a bound too, and comes back from the disk.
    pub(crate) fn shrink(&mut self, needs: impl Fn(&Digest) -> bool) {
        let mut ordered: Vec<(u64, Digest)> =
            self.held.iter().filter(|(_, held)| held.ordered).map(|(id, held)| (held.arrival, *id)).collect();
        ordered.sort_unstable();
        let over = ordered.len().saturating_sub(SERVED_BATCHES_MAX);
        for (_, id) in ordered.iter().take(over).filter(|(_, id)| !needs(id)) {
            self.forget(id);
        }
        let fetched = |held: &&Held| held.author.is_none() && !held.ordered;
        let mut asked: Vec<(u64, Digest)> =
            (self.held.values().filter(fetched)).map(|held| (held.arrival, held.batch.digest())).collect();
        asked.sort_unstable();
        for (_, id) in asked {
            if self.fetched <= FETCHED_BYTES_MAX {
                break;
            }
            self.forget(&id);
            self.lost += 1;
        }
    }

    /// Whether a batch may be asked for that nothing waits for yet.
    pub(crate) fn may_want_more(&self) -> bool {
        self.wanted.len() < WANTED_BATCHES_MAX && self.fetched <= FETCHED_BYTES_MAX
    }

    /// How often something gave way that a block may need: what was asked for before may have to be asked for again.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Asks for a batch: the disk first. Whether that has to be done.
    pub(crate) fn want(&mut self, batch: Digest, holders: &[NodeId]) -> bool {
        if let Some(want) = self.wanted.get_mut(&batch) {
            let fresh: Vec<NodeId> =
                holders.iter().filter(|holder| !want.holders.contains(holder)).copied().collect();
            want.holders.splice(..0, fresh);
            return false;
        }
        if self.wanted.len() >= WANTED_BATCHES_MAX {
            // One that everybody was asked for in vain makes room.
            let vain = |want: &Want| want.attempts as usize >= want.holders.len().max(1);
            let vain = self.wanted.iter().filter(|(_, want)| vain(want));
            let Some(most) = vain.max_by_key(|(_, want)| want.attempts).map(|(batch, _)| *batch) else {
                return false;
            };
            self.wanted.remove(&most);
            self.lost += 1;
        }
        self.wanted.insert(batch, Want { holders: holders.to_vec(), at: None, attempts: 0 });
        true
    }

    /// The disk has it not: others are asked from that time on.
    pub(crate) fn ask_from(&mut self, batch: &Digest, at: Time) {
        if let Some(want) = self.wanted.get_mut(batch) {
            want.at.get_or_insert(at);
        }
    }

    /// Somebody has it not: the next is asked at once.
    pub(crate) fn lacks(&mut self, batch: &Digest, now: Time) {
        if let Some(Want { at: Some(at), attempts, holders }) = self.wanted.get_mut(batch)
            && (*attempts as usize) < holders.len()
        {
            *at = now;
        }
    }

    /// Keeps what some block needs.
    pub(crate) fn retain_wanted(&mut self, needs: impl Fn(&Digest) -> bool) {
        self.wanted.retain(|batch, _| needs(batch));
    }

    /// Whom to ask now: all in turn, less often each time round.
    pub(crate) fn due(&mut self, now: Time, retry: Duration) -> Vec<(Digest, NodeId)> {
        let mut due = Vec::new();
        for (batch, want) in &mut self.wanted {
            let count = want.holders.len().max(1);
            let turn = want.attempts as usize;
            if want.at.is_some_and(|at| at <= now)
                && let Some(holder) = want.holders.get(turn % count)
            {
                due.push((*batch, *holder));
                want.attempts = want.attempts.saturating_add(1);
                want.at = Some(now.after(retry.saturating_mul(1 << (turn / count).min(4))));
            }
        }
        due
    }

    pub(crate) fn asks_at(&self) -> Option<Time> {
        self.wanted.values().filter(|want| !want.holders.is_empty()).filter_map(|want| want.at).min()
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.wanted.len() <= WANTED_BATCHES_MAX, "M4: what is asked for is bounded");
        assert!(
            self.wanted.keys().all(|batch| !self.held.contains_key(batch)),
            "M3: nothing here is asked for"
        );
        let free = self.held.values().filter(|held| !held.ordered).count();
        assert_eq!(free, self.free().count(), "M4: what is not ordered has its place");
        let mut room: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
        for held in self.held.values().filter(|held| !held.ordered) {
            if let Some(author) = held.author {
                let (count, bytes) = room.entry(author).or_default();
                (*count, *bytes) = (*count + 1, *bytes + held.batch.bytes());
            }
        }
        assert_eq!(room, self.room, "M4: what an author has is counted");
        let fetched = self.held.values().filter(|held| held.author.is_none() && !held.ordered);
        let fetched: usize = fetched.map(|held| held.batch.bytes()).sum();
        assert_eq!(fetched, self.fetched, "M4: what was asked for is counted");
        let fits =
            |(count, bytes): &(usize, usize)| *count <= AUTHOR_BATCHES_MAX && *bytes <= AUTHOR_BYTES_MAX;
        assert!(room.values().all(fits), "M4: an author's batches are bounded");
    }
}
