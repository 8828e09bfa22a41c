//! Entries that were handed in here and are not ordered yet: first come, first served, with room for everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wattle_types::{NodeId, UnixTime};

use crate::entry::{InvalidEntry, Key, Whole};
use crate::ids::Digest;

/// Who handed an entry in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Submitter {
    /// This node's own apps and callers.
    Here,
    /// Another node.
    Peer(NodeId),
}

/// Room for entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How many.
    pub entries: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// What the mempool holds at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In all.
    pub all: Room,
    /// Of one peer. This node's own may take three quarters of all.
    pub peer: Room,
}

impl Default for Bounds {
    /// 64 MiB, of which a peer may take a sixteenth.
    fn default() -> Self {
        let all = Room { entries: 64 * 1024, bytes: 64 << 20 };
        Self { all, peer: Room { entries: all.entries / 16, bytes: all.bytes / 16 } }
    }
}

impl Bounds {
    const fn of(&self, submitter: Submitter) -> Room {
        match submitter {
            Submitter::Here => Room { entries: self.all.entries / 4 * 3, bytes: self.all.bytes / 4 * 3 },
            Submitter::Peer(_) => self.peer,
        }
    }
}

/// Why an entry is not taken. Unless said otherwise nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The caller's fault.
    #[error(transparent)]
    Invalid(#[from] InvalidEntry),
    /// It stands in the log. Nobody's fault: look it up by its hash.
    #[error("this entry is ordered already")]
    Ordered,
    /// Back-pressure: the log is slower than what is handed in. To do: try again in a while.
    #[error("busy: {0}")]
    Busy(Busy),
    /// The disk's fault: a node that stores no batch spreads none, so nobody would order it. To do: hand it in at
    /// another node, or start this one again when the disk is well.
    #[error("the disk failed: this node takes nothing for the log until it is started again")]
    Disk,
    /// There is no space on it. To do: free some, or hand it in at another node.
    #[error("no space is left on the disk: this node takes nothing for the log until there is some")]
    DiskFull,
}

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Busy {
    /// The mempool has as many entries as it takes.
    #[error("{waiting} entries wait to be ordered here, and at most {max} may")]
    Entries {
        /// How many wait.
        waiting: usize,
        /// How many may.
        max: usize,
    },
    /// The mempool has as many bytes as it takes.
    #[error("{waiting} bytes of entries wait to be ordered here, and at most {max} may")]
    Bytes {
        /// How many wait.
        waiting: usize,
        /// How many may.
        max: usize,
    },
    /// This submitter has as much waiting as one may.
    #[error("{waiting} entries of this submitter wait to be ordered here, and that is all that one may have")]
    Submitter {
        /// How many wait.
        waiting: usize,
    },
    /// The chain remembers as many entries as it may.
    #[error("the log took {ordered} entries within their lifetimes, and at most {max} are remembered")]
    Chain {
        /// How many are remembered.
        ordered: usize,
        /// How many may be.
        max: usize,
    },
}

/// How far an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Loose,
    /// In a block that this node put together.
    Offered,
    /// In a batch.
    Sealed,
}

#[derive(Debug)]
struct Waiting {
    whole: Arc<Whole>,
    from: Submitter,
    place: u64,
    stage: Stage,
}

/// Entries that wait to be ordered.
#[derive(Debug)]
pub struct Mempool {
    bounds: Bounds,
    entries: BTreeMap<Key, Waiting>,
    /// In no batch, in the order in which they came.
    unsealed: BTreeMap<u64, Key>,
    /// The bytes of those that are loose.
    loose_bytes: usize,
    bytes: usize,
    shares: BTreeMap<Submitter, Room>,
    places: u64,
}

impl Mempool {
    /// An empty one.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: BTreeMap::new(),
            unsealed: BTreeMap::new(),
            loose_bytes: 0,
            bytes: 0,
            shares: BTreeMap::new(),
            places: 0,
        }
    }

    /// How many entries wait, and their bytes.
    #[must_use]
    pub fn held(&self) -> Room {
        Room { entries: self.entries.len(), bytes: self.bytes }
    }

    /// Takes an entry. Whether it is new here; one that waits already is taken as that one.
    pub(crate) fn admit(&mut self, from: Submitter, whole: Arc<Whole>) -> Result<bool, Busy> {
        if self.entries.contains_key(&whole.key) {
            return Ok(false);
        }
        let size = whole.bytes.len();
        let Bounds { all, .. } = self.bounds;
        if self.entries.len() >= all.entries {
            return Err(Busy::Entries { waiting: self.entries.len(), max: all.entries });
        }
        if self.bytes + size > all.bytes {
            return Err(Busy::Bytes { waiting: self.bytes, max: all.bytes });
        }
        let (share, bound) = (self.share(from), self.bounds.of(from));
        if share.entries >= bound.entries || share.bytes + size > bound.bytes {
            return Err(Busy::Submitter { waiting: share.entries });
        }
        self.shares.insert(from, Room { entries: share.entries + 1, bytes: share.bytes + size });
        self.places += 1;
        self.bytes += size;
        self.loose_bytes += size;
        self.unsealed.insert(self.places, whole.key);
        let place = self.places;
        self.entries.insert(whole.key, Waiting { whole, from, place, stage: Stage::Loose });
        Ok(true)
    }

    fn share(&self, of: Submitter) -> Room {
        self.shares.get(&of).copied().unwrap_or(Room { entries: 0, bytes: 0 })
    }

    /// It was ordered, or its time is over.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<(Submitter, Digest)> {
        let Waiting { whole, from, place, stage } = self.entries.remove(key)?;
        let size = whole.bytes.len();
        self.bytes -= size;
        self.unsealed.remove(&place);
        if stage == Stage::Loose {
            self.loose_bytes -= size;
        }
        let share = self.share(from);
        if share.entries <= 1 {
            self.shares.remove(&from);
        } else {
            self.shares.insert(from, Room { entries: share.entries - 1, bytes: share.bytes - size });
        }
        Some((from, whole.transaction))
    }

    /// Removes those whose time is over.
    pub(crate) fn expire(&mut self, now: UnixTime) -> Vec<(Submitter, Digest)> {
        let over: Vec<Key> = self.entries.range(..Key::first_of(now)).map(|(key, _)| *key).collect();
        over.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// When the next one's time is over.
    pub(crate) fn expires(&self) -> Option<UnixTime> {
        self.entries.first_key_value().map(|(key, _)| key.until)
    }

    /// Those in no batch, first come first.
    pub(crate) fn unsealed(&self) -> impl Iterator<Item = &Arc<Whole>> {
        self.unsealed.values().filter_map(|key| self.entries.get(key)).map(|waiting| &waiting.whole)
    }

    /// Those in no batch and in no block of this node's.
    pub(crate) fn loose(&self) -> impl Iterator<Item = &Arc<Whole>> {
        let unsealed = self.unsealed.values().filter_map(|key| self.entries.get(key));
        unsealed.filter(|waiting| waiting.stage == Stage::Loose).map(|waiting| &waiting.whole)
    }

    pub(crate) const fn loose_bytes(&self) -> usize {
        self.loose_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Those that this node's own callers handed in, first come first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Whole>> {
        self.entries.values().map(|waiting| &waiting.whole)
    }

    /// They are in a batch from here on.
    pub(crate) fn seal(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            self.set_stage(&key, Stage::Sealed, |stage| stage != Stage::Sealed);
        }
    }

    /// They are in a block that this node puts together: no batch is made of them while it is under way.
    pub(crate) fn offer(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            self.set_stage(&key, Stage::Offered, |stage| stage == Stage::Loose);
        }
    }

    /// The block was abandoned: they are as before, at their old place.
    pub(crate) fn take_back(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            self.set_stage(&key, Stage::Loose, |stage| stage == Stage::Offered);
        }
    }

    pub(crate) fn offered(&self) -> Vec<Key> {
        let unsealed = self.unsealed.values().filter_map(|key| self.entries.get(key));
        let offered = unsealed.filter(|waiting| waiting.stage == Stage::Offered);
        offered.map(|waiting| waiting.whole.key).collect()
    }

    fn set_stage(&mut self, key: &Key, to: Stage, from: impl Fn(Stage) -> bool) {
        let Some(waiting) = self.entries.get_mut(key).filter(|waiting| from(waiting.stage)) else { return };
        let size = waiting.whole.bytes.len();
        if waiting.stage == Stage::Loose {
            self.loose_bytes -= size;
        }
        if to == Stage::Loose {
            self.loose_bytes += size;
        }
        if to == Stage::Sealed {
            self.unsealed.remove(&waiting.place);
        }
        waiting.stage = to;
    }

    pub(crate) fn check_invariants(&self) {
        let sum: usize = self.entries.values().map(|waiting| waiting.whole.bytes.len()).sum();
        assert!(self.bytes == sum && sum <= self.bounds.all.bytes, "M2: bytes are counted and bounded");
        assert!(self.entries.len() <= self.bounds.all.entries, "M2: entries are bounded");
        let unsealed: BTreeSet<Key> = self.unsealed.values().copied().collect();
        let expected = self.entries.iter().filter(|(_, waiting)| waiting.stage != Stage::Sealed);
        assert!(expected.map(|(key, _)| *key).eq(unsealed), "M2: what is in no batch has its place");
        let loose: usize = self.loose().map(|whole| whole.bytes.len()).sum();
        assert_eq!(loose, self.loose_bytes, "M2: what is loose is counted");
        for (from, share) in &self.shares {
            let own = self.entries.values().filter(|waiting| waiting.from == *from);
            let bytes = own.clone().map(|waiting| waiting.whole.bytes.len()).sum();
            assert_eq!(*share, Room { entries: own.count(), bytes }, "M2: a submitter's share is counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_bytes::ByteBuf;
    use wattle_types::SecretKey;

    use super::*;
    use crate::entry::Entry;

    fn whole(number: u64, size: usize, until: u64) -> Arc<Whole> {
        let data = ByteBuf::from(vec![7; size.max(1)]);
        let entry = Entry { app: "a/1".to_owned(), data, until: UnixTime::from_millis(until), salt: number };
        Arc::new(Whole::read(ByteBuf::from(entry.encode())).unwrap())
    }

    fn submitter(number: u8) -> Submitter {
        if number == 0 {
            Submitter::Here
        } else {
            Submitter::Peer(SecretKey::from_bytes(&[number; 32]).node_id())
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit { from: u8, number: u64, size: usize, until: u64 },
        Remove(usize),
        Expire(u64),
        Seal(usize),
        Offer(usize),
        TakeBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u8..4, 0u64..40, 1usize..200, 1u64..100).prop_map(|(from, number, size, until)| {
                Step::Admit { from, number, size, until }
            }),
            1 => (0usize..20).prop_map(Step::Remove),
            1 => (0u64..100).prop_map(Step::Expire),
            1 => (0usize..8).prop_map(Step::Seal),
            1 => (0usize..8).prop_map(Step::Offer),
            1 => Just(Step::TakeBack),
        ]
    }

    proptest! {
        /// M2, against a list: what is here is what was taken and not removed, in the order in which it came; nobody
        /// has more than its share; and what is refused changed nothing.
        #[test]
        fn m2_the_mempool_is_a_bounded_list_in_the_order_of_arrival(steps in prop::collection::vec(step(), 1..200)) {
            let all = Room { entries: 16, bytes: 2_000 };
            let bounds = Bounds { all, peer: Room { entries: 5, bytes: 700 } };
            let mut pool = Mempool::new(bounds);
            let mut model: Vec<(Submitter, Arc<Whole>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Admit { from, number, size, until } => {
                        let (from, whole) = (submitter(from), whole(number, size, until));
                        let known = model.iter().any(|(_, other)| other.key == whole.key);
                        let bytes: usize = model.iter().map(|(_, other)| other.bytes.len()).sum();
                        let own = model.iter().filter(|(other, _)| *other == from);
                        let own_bytes: usize = own.clone().map(|(_, other)| other.bytes.len()).sum();
                        let share = bounds.of(from);
                        let fits = model.len() < all.entries
                            && bytes + whole.bytes.len() <= all.bytes
                            && own.count() < share.entries
                            && own_bytes + whole.bytes.len() <= share.bytes;
                        let taken = pool.admit(from, whole.clone());
                        prop_assert_eq!(taken.is_ok(), known || fits);
                        prop_assert!(!known || taken == Ok(false));
                        if taken == Ok(true) {
                            model.push((from, whole));
                        }
                    }
                    Step::Remove(place) if place < model.len() => {
                        let (from, whole) = model.remove(place);
                        prop_assert_eq!(pool.remove(&whole.key), Some((from, whole.transaction)));
                    }
                    Step::Remove(_) => {}
                    Step::Expire(now) => {
                        let now = UnixTime::from_millis(now);
                        let over = model.iter().filter(|(_, whole)| whole.key.until < now).count();
                        prop_assert_eq!(pool.expire(now).len(), over);
                        model.retain(|(_, whole)| whole.key.until >= now);
                    }
                    Step::Seal(count) => {
                        let keys: Vec<Key> = pool.loose().take(count).map(|whole| whole.key).collect();
                        pool.seal(keys);
                    }
                    Step::Offer(count) => {
                        let keys: Vec<Key> = pool.unsealed().take(count).map(|whole| whole.key).collect();
                        pool.offer(keys);
                    }
                    Step::TakeBack => {
                        let offered = pool.offered();
                        pool.take_back(offered);
                        let loose: Vec<Key> = pool.loose().map(|whole| whole.key).collect();
                        let unsealed: Vec<Key> = pool.unsealed().map(|whole| whole.key).collect();
                        prop_assert_eq!(loose, unsealed);
                    }
                }
                pool.check_invariants();
                prop_assert_eq!(pool.held().entries, model.len());
                let order: Vec<Key> = model.iter().map(|(_, whole)| whole.key).collect();
                let unsealed: Vec<Key> = pool.unsealed().map(|whole| whole.key).collect();
                let expected: Vec<Key> = order.into_iter().filter(|key| unsealed.contains(key)).collect();
                prop_assert_eq!(unsealed, expected);
            }
        }
    }
}
