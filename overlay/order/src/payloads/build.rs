//! What a block orders: put together as leader, looked at as voter (rules M1, M3 and N).

use std::sync::Arc;

use serde_bytes::ByteBuf;
use wattle_types::{Outbox, Time, UnixTime};

use super::batch::Batch;
use super::chain::{Fresh, Known, Looked};
use super::{Ordered, Output, Payloads};
use crate::approval::approved;
use crate::block::{BatchRef, Left, Payload, Proposal};
use crate::entry::{Key, Whole};
use crate::ids::{BlockId, Digest, Round};
use crate::limits::{BATCHES_MAX, INLINE_BYTES_MAX, INLINE_COUNT_MAX, PAYLOAD_BYTES_MAX};
use crate::merkle::tree_root;
use crate::tree::Verdict;

/// What is in a block.
pub(super) type Content = Vec<Arc<Batch>>;

impl Payloads {
    pub(super) fn on_build(&mut self, now: Time, round: Round, parent: &BlockId, out: &mut Outbox<Output>) {
        let before = self.chain.blocks.get(parent).map_or(self.chain.time, |known| known.block.header().time);
        let time = self.wall(now).max(before);
        self.take_back_lost();
        let (payload, offered) = self.build(parent, time).unwrap_or((Payload::empty(), Vec::new()));
        if !offered.is_empty() {
            self.mempool.offer(offered);
            self.offered_until = Some(now.after(self.config.tell_retry));
        }
        let next = self.chain.next_validators(&self.committee, parent, time).flatten();
        out.push(Output::Built { round, payload, time, next });
    }

    /// M2: what was offered and is in no block that is under way waits as ever. A block may never have been made of it,
    /// or its round failed and others build past it; and this node may not lead again for long.
    pub(super) fn take_back_lost(&mut self) {
        let newest = self.chain.newest();
        let under_way =
            |key: &Key| newest.iter().filter_map(|known| known.keys()).any(|keys| keys.contains(key));
        let lost: Vec<Key> = self.mempool.offered().into_iter().filter(|key| !under_way(key)).collect();
        self.mempool.take_back(lost);
    }

    pub(super) fn take_back_if_due(&mut self, now: Time) {
        if self.offered_until.is_some_and(|until| until <= now) {
            self.take_back_lost();
            let rest = !self.mempool.offered().is_empty();
            self.offered_until = rest.then(|| now.after(self.config.tell_retry));
        }
    }

    /// What waits, if it is little; else batches. With the keys of what is in the block itself. None as long as it is
    /// not known what stands below.
    fn build(&self, parent: &BlockId, time: UnixTime) -> Option<(Payload, Vec<Key>)> {
        let (inline, all) = self.inline(self.chain.on(parent, time)?);
        if !all {
            let batches = self.batches(self.chain.on(parent, time)?);
            if !batches.is_empty() {
                return Some((Payload::Batches(batches), Vec::new()));
            }
        }
        if inline.is_empty() {
            return Some((Payload::empty(), Vec::new()));
        }
        let bytes = inline.iter().map(|whole| whole.bytes.clone()).collect();
        Some((Payload::Inline(bytes), inline.iter().map(|whole| whole.key).collect()))
    }

    /// Entries themselves, first come first. Whether that is all that wait.
    fn inline(&self, mut fresh: Fresh<'_>) -> (Vec<Arc<Whole>>, bool) {
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        let in_batches = self.store.free().flat_map(|held| &held.batch.entries);
        for whole in in_batches.chain(self.mempool.unsealed()) {
            if !fresh.admits(&whole.key) {
                continue;
            }
            bytes += whole.bytes.len();
            if bytes > INLINE_BYTES_MAX || chosen.len() >= INLINE_COUNT_MAX || !fresh.has_room_for(1) {
                return (chosen, false);
            }
            fresh.take(whole.key);
            chosen.push(Arc::clone(whole));
        }
        (chosen, true)
    }

    /// Batches that are on disk here and that others have or get (M3, M5).
    fn batches(&self, mut fresh: Fresh<'_>) -> Vec<BatchRef> {
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        for held in self.store.free() {
            let spread = match held.author {
                Some(author) if author == self.config.me => self.is_spread(held),
                Some(author) => !self.is_late(&author),
                None => true,
            };
            let full = bytes + held.batch.bytes() > PAYLOAD_BYTES_MAX;
            let room = fresh.has_room_for(held.batch.entries.len());
            if !spread || full || !room || self.failed || !self.is_durable(held) {
                continue;
            }
            if let Some(batch) = Self::refer(&held.batch, &mut fresh) {
                bytes += held.batch.bytes();
                chosen.push(batch);
            }
            if chosen.len() >= BATCHES_MAX {
                break;
            }
        }
        chosen
    }

    /// A batch without what stands on the chain already; none if nothing is left, or if its time has not come.
    fn refer(batch: &Batch, fresh: &mut Fresh<'_>) -> Option<BatchRef> {
        if batch.entries.iter().any(|whole| fresh.is_early(&whole.key)) {
            return None;
        }
        let (mut skip, mut left) = (Vec::new(), Vec::new());
        for (place, whole) in (0u16..).zip(&batch.entries) {
            if fresh.take(whole.key) {
                left.push(whole.transaction);
            } else {
                skip.push(place);
            }
        }
        if left.is_empty() {
            return None;
        }
        let left = (!skip.is_empty()).then(|| Left { skip, digest: tree_root(&left) });
        Some(BatchRef { batch: batch.digest(), left })
    }

    /// What a block orders, and what is to be said of it; none as long as it is not here, or what stands below is not
    /// known.
    pub(super) fn look_at(&self, block: &Proposal) -> Option<Looked> {
        let header = block.header();
        let mut fresh = self.chain.on(&header.parent, header.time)?;
        let (valid, inline, approved) = match &block.block.payload {
            Payload::Inline(transactions) => {
                let (valid, inline) = look_inline(transactions, &mut fresh);
                let approved = approved(&self.committee, header, inline.iter());
                (valid, inline, approved)
            }
            Payload::Batches(batches) => {
                let content = self.content(batches)?;
                let valid = look_batches(batches, &content, &mut fresh);
                let parts = batches.iter().zip(&content);
                let entries = parts.flat_map(|(part, batch)| part.select(&batch.entries));
                (valid, Vec::new(), approved(&self.committee, header, entries))
            }
        };
        let next = self.chain.next_validators(&self.committee, &header.parent, header.time)?;
        let valid = valid && fresh.has_room_for(0) && block.block.next == next;
        let verdict = if valid { Verdict::Valid } else { Verdict::Invalid };
        Some(Looked { keys: fresh.taken(), inline, approved, verdict })
    }

    /// The batches of a block, if all are on disk here (M3).
    pub(super) fn content(&self, batches: &[BatchRef]) -> Option<Content> {
        let here = |batch: &BatchRef| {
            let held = self.store.get(&batch.batch).filter(|held| self.is_durable(held))?;
            Some(Arc::clone(&held.batch))
        };
        batches.iter().map(here).collect()
    }

    /// The batches of a block that are not here at all.
    pub(super) fn missing(&self, block: &Proposal) -> Vec<Digest> {
        let Payload::Batches(batches) = &block.block.payload else { return Vec::new() };
        let missing = batches.iter().filter(|batch| self.store.get(&batch.batch).is_none());
        missing.map(|batch| batch.batch).collect()
    }

    /// The entries of a block in their places, if they are all here.
    pub(super) fn entries(&self, known: &Known) -> Option<Vec<Ordered>> {
        match &known.block.block.payload {
            Payload::Inline(_) => Some(placed(0, known.looked.as_ref()?.inline.clone())),
            Payload::Batches(batches) => {
                let content = self.content(batches)?;
                let parts = (0..).zip(batches.iter().zip(&content));
                Some(
                    parts
                        .flat_map(|(at, (part, batch))| {
                            placed(at, part.select(batch.entries.iter().cloned()))
                        })
                        .collect(),
                )
            }
        }
    }
}

fn placed(batch: u64, wholes: Vec<Arc<Whole>>) -> Vec<Ordered> {
    (0..).zip(wholes).map(|(index, whole)| Ordered { batch, index, whole }).collect()
}

/// M1: each is an entry, lives, and stands nowhere before. With those that are entries.
fn look_inline(transactions: &[ByteBuf], fresh: &mut Fresh<'_>) -> (bool, Vec<Arc<Whole>>) {
    let read = transactions.iter().filter_map(|bytes| Whole::read(bytes.clone()).ok().map(Arc::new));
    let inline: Vec<Arc<Whole>> = read.collect();
    // All are looked at, so that what stands here is the same whatever is wrong.
    let taken = inline.iter().filter(|whole| fresh.take(whole.key)).count();
    (taken == transactions.len(), inline)
}

/// M1: of each batch exactly that is left out which may not stand here, something is left, and it is what it says.
fn look_batches(batches: &[BatchRef], content: &[Arc<Batch>], fresh: &mut Fresh<'_>) -> bool {
    let bytes: usize = content.iter().map(|batch| batch.bytes()).sum();
    let mut valid = bytes <= PAYLOAD_BYTES_MAX;
    for (part, batch) in batches.iter().zip(content) {
        let mut left = Vec::new();
        for (place, whole) in batch.entries.iter().enumerate() {
            let taken = fresh.take(whole.key);
            valid &= taken != part.skips(place) && !fresh.is_early(&whole.key);
            if !part.skips(place) {
                left.push(whole.transaction);
            }
        }
        let beyond = part.left.as_ref().and_then(|left| left.skip.last());
        valid &= beyond.is_none_or(|place| usize::from(*place) < batch.entries.len());
        valid &= !left.is_empty();
        // A whole batch is named by its digest.
        valid &= part.left.as_ref().is_none_or(|some| tree_root(&left) == some.digest);
    }
    valid
}
