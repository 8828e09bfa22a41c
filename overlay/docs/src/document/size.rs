//! How large a document is: what is done with a small one takes no time to speak of.

use std::collections::BTreeMap;

use automerge::{ActorId, Change};
use serde_bytes::ByteBuf;

use super::Document;
use crate::chunk;

/// What a small document has at most.
const SMALL_OPERATIONS: u64 = 1024;
const SMALL_BYTES: u64 = 64 * 1024;
const SMALL_CHANGES: u64 = 256;
const SMALL_ACTORS: usize = 32;

impl Document {
    pub(super) fn count(&mut self, changes: &[Change]) {
        for change in changes {
            raise(&mut self.clock, change.actor_id(), change.seq());
            self.operations = self.operations.saturating_add(change.len() as u64);
            self.bytes = self.bytes.saturating_add(change.raw_bytes().len() as u64);
        }
    }

    /// Counts what was read from these chunks.
    pub(super) fn count_history(&mut self, chunks: &[ByteBuf]) {
        for change in self.automerge.get_changes_meta(&[]) {
            raise(&mut self.clock, &change.actor, change.seq);
            let operations = (change.max_op + 1).saturating_sub(change.start_op);
            self.operations = self.operations.saturating_add(operations);
        }
        self.bytes = inflated(chunks);
    }

    /// Operations of all its changes.
    pub(crate) const fn operations(&self) -> u64 {
        self.operations
    }

    /// Whether a copy of it, all of it to save and to read back takes a millisecond.
    pub(crate) fn is_small(&self) -> bool {
        let changes = || self.clock.values().copied().fold(0, u64::saturating_add);
        self.operations <= SMALL_OPERATIONS
            && self.bytes <= SMALL_BYTES
            && self.clock.len() <= SMALL_ACTORS
            && changes() <= SMALL_CHANGES
    }
}

fn raise(clock: &mut BTreeMap<ByteBuf, u64>, actor: &ActorId, seq: u64) {
    let last = clock.entry(ByteBuf::from(actor.to_bytes())).or_default();
    *last = (*last).max(seq);
}

/// Bytes of the changes in chunks that were stored, none of them compressed; more than a small document has where they
/// are too many to look at.
fn inflated(chunks: &[ByteBuf]) -> u64 {
    if chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>() > SMALL_BYTES {
        return u64::MAX;
    }
    let each = chunks.iter().map(|chunk| chunk::inspect(chunk).map_or(u64::MAX, |it| it.inflated_bytes));
    each.fold(0, u64::saturating_add)
}
