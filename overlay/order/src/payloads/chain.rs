//! What stands on each chain of blocks, so that nothing stands there twice (rule M1).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use wattle_types::{NodeId, UnixTime};

use super::Below;
use crate::approval::{Approvals, Approved, Change};
use crate::block::{Payload, Proposal};
use crate::check::Checked;
use crate::committee::{Committee, Validators};
use crate::entry::{Key, Whole};
use crate::ids::{BlockId, Digest, Height};
use crate::limits::{KNOWN_BLOCKS_MAX, LIVE_ENTRIES_MAX};
use crate::tree::Verdict;

/// What is ordered and could still come again, up to the last block that was told of.
#[derive(Debug, Default)]
pub(crate) struct Window(BTreeSet<Key>);

impl Window {
    fn has(&self, key: &Key) -> bool {
        self.0.contains(key)
    }

    /// Those that may stand in a block of that time.
    fn live_at(&self, time: UnixTime) -> usize {
        self.0.len() - self.0.range(..Key::first_of(time)).count()
    }

    fn advance(&mut self, time: UnixTime, keys: impl IntoIterator<Item = Key>) {
        // One by one: to split it would cost as much as is left.
        while self.0.first().is_some_and(|first| *first < Key::first_of(time)) {
            self.0.pop_first();
        }
        self.0.extend(keys);
    }
}

/// A block above the last that was told of.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) block: Checked<Proposal>,
    /// As soon as all that it orders is here.
    pub(crate) looked: Option<Looked>,
    /// Somebody waits for the verdict.
    pub(crate) asked: bool,
    pub(crate) committed: bool,
    /// All that is missing of what it orders was asked for, when so much had given way.
    pub(crate) wants: Option<u64>,
    /// Who has what it orders: its author says so by proposing it, and its voters by their votes.
    pub(crate) holders: Vec<NodeId>,
}

/// What came of looking at a block.
#[derive(Debug)]
pub(crate) struct Looked {
    /// What it orders.
    pub(crate) keys: BTreeSet<Key>,
    /// The entries that are in the block itself.
    pub(crate) inline: Vec<Arc<Whole>>,
    /// The approvals among what it orders.
    pub(crate) approved: Vec<Approved>,
    pub(crate) verdict: Verdict,
}

impl Known {
    /// What it orders, if it was looked at.
    pub(crate) fn keys(&self) -> Option<&BTreeSet<Key>> {
        self.looked.as_ref().map(|looked| &looked.keys)
    }

    fn approved(&self) -> &[Approved] {
        self.looked.as_ref().map_or(&[], |looked| &looked.approved)
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.looked.as_ref().map(|looked| looked.verdict)
    }

    pub(crate) fn height(&self) -> Height {
        self.block.header().height
    }
}

/// The blocks on top of the last that was told of, and what is ordered up to it.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) tip: BlockId,
    pub(crate) height: Height,
    pub(crate) time: UnixTime,
    window: Window,
    /// N: what of what was told of is approved.
    approvals: Approvals,
    /// Rule B: up to that time something could come again that the window does not have.
    pub(crate) unknown_until: UnixTime,
    pub(crate) blocks: BTreeMap<BlockId, Known>,
    /// The same blocks, ascending.
    heights: BTreeSet<(Height, BlockId)>,
    /// Their batches, and how many of them have each.
    batches: BTreeMap<Digest, usize>,
}

impl Chain {
    pub(crate) fn new(below: &Below) -> Self {
        let Below { block: tip, height, time, unknown_until } = *below;
        Self {
            tip,
            height,
            time,
            window: Window::default(),
            approvals: Approvals::default(),
            unknown_until,
            blocks: BTreeMap::new(),
            heights: BTreeSet::new(),
            batches: BTreeMap::new(),
        }
    }

    /// An epoch begins: what was approved in the one before counts for nothing.
    pub(crate) fn enter_epoch(&mut self) {
        self.approvals = Approvals::default();
        let open = self.blocks.iter().filter(|(_, known)| !known.committed).map(|(id, _)| *id);
        for id in open.collect::<Vec<_>>() {
            self.remove(&id);
        }
    }

    /// A block that is looked at, or committed. At the cap the lowest goes that nothing stands on.
    pub(crate) fn insert(&mut self, block: &Checked<Proposal>) -> Option<&mut Known> {
        if block.header().height <= self.height {
            return None;
        }
        let id = block.id();
        let loose = || self.blocks.values().filter(|known| !known.committed).count();
        if !self.blocks.contains_key(&id)
            && self.blocks.len() >= KNOWN_BLOCKS_MAX
            && loose() >= KNOWN_BLOCKS_MAX
        {
            let parents: BTreeSet<BlockId> =
                self.blocks.values().map(|known| known.block.header().parent).collect();
            let loose = self.blocks.iter().filter(|(id, known)| !known.committed && !parents.contains(*id));
            let lowest = loose.min_by_key(|(_, known)| known.block.header().round).map(|(id, _)| *id);
            lowest.map(|id| self.remove(&id));
        }
        if self.heights.insert((block.header().height, id)) {
            for batch in batches_of(block) {
                *self.batches.entry(batch).or_default() += 1;
            }
        }
        Some(self.blocks.entry(id).or_insert_with(|| Known {
            block: block.clone(),
            looked: None,
            asked: false,
            wants: None,
            committed: false,
            holders: Vec::new(),
        }))
    }

    fn remove(&mut self, id: &BlockId) -> Option<Known> {
        let known = self.blocks.remove(id)?;
        self.heights.remove(&(known.height(), *id));
        for batch in batches_of(&known.block) {
            if let Some(count) = self.batches.get_mut(&batch) {
                *count -= 1;
                if *count == 0 {
                    self.batches.remove(&batch);
                }
            }
        }
        Some(known)
    }

    /// Whether a block above the tip has a batch.
    pub(crate) fn needs(&self, batch: &Digest) -> bool {
        self.batches.contains_key(batch)
    }

    /// The block behind one in the order of heights; the first when none is named.
    pub(crate) fn above(&self, one: Option<(Height, BlockId)>) -> Option<(Height, BlockId)> {
        self.heights.range((one.map_or(Unbounded, Excluded), Unbounded)).next().copied()
    }

    /// Whether it is known what stands up to a block, so that what stands on it can be looked at.
    pub(crate) fn is_known_up_to(&self, id: &BlockId) -> bool {
        *id == self.tip || self.blocks.get(id).is_some_and(|known| known.looked.is_some())
    }

    /// The blocks from one down to the tip, if all are here and what they order is known.
    pub(crate) fn path(&self, from: &BlockId) -> Option<Vec<&Known>> {
        let (mut path, mut next) = (Vec::new(), *from);
        while next != self.tip {
            let known = self.blocks.get(&next)?;
            known.looked.as_ref()?;
            next = known.block.header().parent;
            path.push(known);
        }
        Some(path)
    }

    /// What may be ordered on top of a block; none as long as it is not known what stands below.
    pub(crate) fn on(&self, parent: &BlockId, time: UnixTime) -> Option<Fresh<'_>> {
        let path: Vec<&BTreeSet<Key>> = self.path(parent)?.into_iter().filter_map(Known::keys).collect();
        let live = |keys: &&BTreeSet<Key>| keys.range(Key::first_of(time)..).count();
        let live = self.window.live_at(time) + path.iter().map(live).sum::<usize>();
        Some(Fresh { window: &self.window, path, time, live, own: BTreeSet::new() })
    }

    /// N: the validators that a block on top of this one has to name; none within if it names none. None as long as it
    /// is not known what stands below.
    pub(crate) fn next_validators(
        &self,
        committee: &Committee,
        parent: &BlockId,
        time: UnixTime,
    ) -> Option<Option<Validators>> {
        let path = self.path(parent)?;
        let ended = |known: &&Known| {
            known.block.block.next.is_some() && known.block.header().epoch == committee.epoch()
        };
        let nothing = self.approvals.is_empty() && path.iter().all(|known| known.approved().is_empty());
        if nothing || path.iter().any(ended) {
            return Some(None);
        }
        let mut approvals = self.approvals.clone();
        for known in path.iter().rev() {
            approvals.add(committee, known.block.header().time, known.approved());
        }
        Some(approvals.decided(committee, time))
    }

    /// N: whether the next block is to end the epoch.
    pub(crate) fn is_to_end(&self, committee: &Committee) -> bool {
        let newest = self.blocks.iter().max_by_key(|(_, known)| known.block.header().round);
        let (parent, time) = newest
            .map_or((&self.tip, self.time), |(id, known)| (id, known.block.header().time.max(self.time)));
        self.next_validators(committee, parent, time).flatten().is_some()
    }

    /// N: whether an approval would count.
    pub(crate) fn hears(&self, committee: &Committee, whole: &Whole) -> bool {
        self.approvals.hears(committee, whole)
    }

    /// What is approved by blocks that were told of.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.approvals.changes(self.time)
    }

    /// The block of the highest round and those below it that are not applied. What is beside them has failed.
    pub(crate) fn newest(&self) -> Vec<&Known> {
        let newest = self.blocks.iter().max_by_key(|(_, known)| known.block.header().round);
        newest.and_then(|(id, _)| self.path(id)).unwrap_or_default()
    }

    /// Whether an entry is ordered by a block that was told of, or over its time by then.
    pub(crate) fn is_spent(&self, key: &Key) -> bool {
        self.window.has(key) || key.until < self.time
    }

    pub(crate) fn is_ordered(&self, key: &Key) -> bool {
        self.window.has(key)
    }

    pub(crate) fn live(&self) -> usize {
        self.window.live_at(self.time)
    }

    /// The committed block on top of the tip, if what it orders is here.
    pub(crate) fn next(&self) -> Option<BlockId> {
        let next = |known: &&Known| {
            known.committed && known.looked.is_some() && known.block.header().parent == self.tip
        };
        let above = self.heights.iter().take_while(|(height, _)| *height <= self.height.next());
        above.filter_map(|(_, id)| self.blocks.get(id)).find(next).map(|known| known.block.id())
    }

    /// Makes that block the tip. What does not stand on it is forgotten, and handed out.
    pub(crate) fn advance(&mut self, committee: &Committee, id: &BlockId) -> Option<(Known, Vec<Known>)> {
        let known = self.remove(id)?;
        let header = known.block.header();
        (self.tip, self.height, self.time) = (*id, header.height, header.time);
        self.window.advance(header.time, known.keys().into_iter().flatten().copied());
        self.approvals.add(committee, header.time, known.approved());
        let (mut gone, mut dropped) = (Vec::new(), BTreeSet::new());
        // Above that nothing stands on what is dropped.
        let (mut upto, mut next) = (self.height.next(), None);
        while let Some((height, id)) = self.above(next).filter(|(height, _)| *height <= upto) {
            next = Some((height, id));
            let Some(parent) = self.blocks.get(&id).map(|known| known.block.header().parent) else {
                continue;
            };
            // One whose parent is not here, a little above, may still belong.
            let beside = height.follows(self.height) && parent != self.tip;
            if height <= self.height || beside || dropped.contains(&parent) {
                dropped.insert(id);
                gone.extend(self.remove(&id));
                upto = upto.max(height.next());
            }
        }
        Some((known, gone))
    }

    pub(crate) fn check_invariants(&self) {
        let all: BTreeSet<_> = self.blocks.iter().map(|(id, known)| (known.height(), *id)).collect();
        assert_eq!(all, self.heights, "M6: each block has its place");
        let mut batches: BTreeMap<Digest, usize> = BTreeMap::new();
        for batch in self.blocks.values().flat_map(|known| batches_of(&known.block)) {
            *batches.entry(batch).or_default() += 1;
        }
        assert_eq!(batches, self.batches, "M4: what blocks need is counted");
    }

    pub(crate) fn remembered(&self) -> usize {
        self.window.0.len()
    }
}

fn batches_of(block: &Proposal) -> impl Iterator<Item = Digest> {
    let batches = match &block.block.payload {
        Payload::Batches(batches) => batches.as_slice(),
        Payload::Inline(_) => &[],
    };
    batches.iter().map(|part| part.batch)
}

/// What is not on a chain yet, while a block on top of it is put together or looked at.
#[derive(Debug)]
pub(crate) struct Fresh<'a> {
    window: &'a Window,
    path: Vec<&'a BTreeSet<Key>>,
    time: UnixTime,
    live: usize,
    own: BTreeSet<Key>,
}

impl Fresh<'_> {
    /// M1: it lives at the block's time and stands nowhere below.
    fn is_new(&self, key: &Key) -> bool {
        key.lives_at(self.time) && !self.window.has(key) && !self.path.iter().any(|keys| keys.contains(key))
    }

    /// M1: it may stand in later blocks, and not in this one. A batch with such a one waits: so a batch stands in one
    /// block only, and can go with it.
    pub(crate) fn is_early(&self, key: &Key) -> bool {
        key.until >= self.time && !key.lives_at(self.time)
    }

    /// M1: an entry that may stand in this block, and does not yet.
    pub(crate) fn admits(&self, key: &Key) -> bool {
        self.is_new(key) && !self.own.contains(key)
    }

    /// It stands in this block from here on. Whether it may.
    pub(crate) fn take(&mut self, key: Key) -> bool {
        self.is_new(&key) && self.own.insert(key)
    }

    /// M1: what is remembered has a bound, and so many more keep it.
    pub(crate) fn has_room_for(&self, more: usize) -> bool {
        self.live + self.own.len() + more <= LIVE_ENTRIES_MAX
    }

    pub(crate) fn taken(self) -> BTreeSet<Key> {
        self.own
    }
}
