//! What open documents take of memory, and putting them away when that is too much.

use std::time::Duration;

use automerge::ReadDoc as _;
use wattle_types::{DocId, Time};

use super::{Replica, State};
use crate::document::Document;

/// A document that was used within this span is in use: putting it away would only mean to read it again.
const IN_USE: Duration = Duration::from_secs(1);

/// A document without use is put away after this long.
const IDLE: Duration = Duration::from_secs(60);

/// Small documents of a machine that stay open for that long. Of more, the one that was not used for longest is put
/// away: to read it again takes a third of a millisecond, and a thousand of them take twenty megabytes. A node has many
/// machines.
const FEW_OPEN: usize = 1;

/// Bytes that an operation, a change and an empty document take. Measured with 259,778 operations: 0.55 MB where they
/// are one change, 39.8 MB where each is a change of its own. Twice of what that makes of an operation, for room that
/// is kept free.
const OPERATION_BYTES: u64 = 4;
const CHANGE_BYTES: u64 = 160;
const DOCUMENT_BYTES: u64 = 8 * 1024;

impl Replica {
    /// About how many bytes the open documents take.
    #[must_use]
    pub fn open_bytes(&self) -> u64 {
        let open = self.entries.values().filter_map(|entry| match &entry.state {
            State::Open(document) => Some(weight(document)),
            _ => None,
        });
        open.fold(0, u64::saturating_add)
    }

    /// A document is in memory now.
    pub(super) fn opened(&mut self, now: Time, doc: DocId) {
        self.look_at(doc, now.after(IDLE));
    }

    /// Puts away small documents beyond [`FEW_OPEN`], the one that was not used for longest first. One that is being
    /// written stays until it is.
    pub(super) fn make_place(&mut self) {
        if self.rests.len() <= FEW_OPEN {
            return;
        }
        let used =
            |doc: &DocId| self.entries.get(doc).filter(|entry| entry.is_small()).map(|entry| entry.used);
        let small = self.rests.iter().filter_map(|(_, doc)| Some((used(doc)?, *doc)));
        let mut small: Vec<(Time, DocId)> = small.collect();
        small.sort_unstable();
        let mut over = small.len().saturating_sub(FEW_OPEN);
        for (_, doc) in small {
            if over > 0 && self.close(doc) {
                over -= 1;
            }
        }
    }

    fn look_at(&mut self, doc: DocId, at: Time) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if let Some(before) = entry.rests.replace(at) {
            self.rests.remove(&(before, doc));
        }
        self.rests.insert((at, doc));
    }

    /// A document is not in memory any more.
    pub(super) fn closed(&mut self, doc: DocId) {
        if let Some(at) = self.entries.get_mut(&doc).and_then(|entry| entry.rests.take()) {
            self.rests.remove(&(at, doc));
        }
    }

    /// Puts away what nobody used for a while.
    pub(super) fn put_away(&mut self, now: Time) {
        while let Some((_, doc)) = self.rests.first().copied().filter(|(at, _)| *at <= now) {
            let used = self.entries.get(&doc).map_or(now, |entry| entry.used);
            if now.since(used) < IDLE || !self.close(doc) {
                self.look_at(doc, used.after(IDLE).max(now.after(IDLE / 4)));
            }
        }
    }

    /// Puts away what is not in use, because memory is short.
    pub(super) fn shed(&mut self, now: Time) {
        let unused = |used: Time| now.since(used) >= IN_USE;
        let idle = self.entries.iter().filter(|(_, entry)| unused(entry.used)).map(|(doc, _)| *doc);
        for doc in idle.collect::<Vec<DocId>>() {
            self.close(doc);
        }
    }

    /// Puts a document away, unless the disk lacks something of it; says whether it did.
    pub(super) fn close(&mut self, doc: DocId) -> bool {
        let Some(entry) = self.entries.get_mut(&doc) else { return false };
        let State::Open(document) = &entry.state else { return false };
        let closes = !entry.is_writing() && document.is_vouched();
        if closes {
            entry.actor = document.actor();
            entry.state = State::Closed;
            self.closed(doc);
        }
        closes
    }
}

fn weight(document: &Document) -> u64 {
    let stats = document.answer(|automerge| automerge.stats());
    let (operations, changes) = stats.map_or((0, 0), |stats| (stats.num_ops, stats.num_changes));
    let parts =
        operations.saturating_mul(OPERATION_BYTES).saturating_add(changes.saturating_mul(CHANGE_BYTES));
    parts.saturating_add(DOCUMENT_BYTES)
}
