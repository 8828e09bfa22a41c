//! What the ordered log writes, in its order: nothing is said before what it rests on is on disk.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wattle_order::Seq;
use wattle_store::{BATCH_WRITES_MAX, CommitError};
use wattle_types::Write;

use super::disk;

/// Bytes that are written at once.
const WRITE_BYTES_MAX: usize = 512 * 1024;
/// How long after a write that found no space it is tried again: first, and at most. Each doubles it: where the system
/// says that there is space and there is none, a try makes the store open its file anew.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(8);

/// What a write covers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Covers {
    Record(Seq),
    Batch(Seq),
    /// Nothing that anybody waits for.
    Rest,
}

/// What was covered by a write, up to which number of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Covered {
    pub(super) record: Option<Seq>,
    pub(super) batch: Option<Seq>,
}

/// How a write ended.
pub(super) struct Written {
    pub(super) covered: Covered,
    pub(super) outcome: Result<(), (CommitError, Vec<Write>)>,
}

/// A write that found no space.
struct Again {
    covered: Covered,
    batch: Vec<Write>,
    at: Instant,
}

/// Writes on their way to the disk, in their order.
#[derive(Default)]
pub(super) struct Writes {
    waiting: VecDeque<(Covers, Vec<Write>)>,
    busy: bool,
    again: Option<Again>,
    /// The last one found no space, and is tried again after this.
    full: Option<Duration>,
    /// Nothing is written any more: what came later would stand behind a gap.
    given_up: bool,
}

impl Writes {
    pub(super) fn push(&mut self, covers: Covers, writes: Vec<Write>) {
        if !self.given_up {
            self.waiting.push_back((covers, writes));
        }
    }

    /// The next write and what it covers, unless one is under way. What found no space comes first, once it is time.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(Covered, Vec<Write>)> {
        if self.busy || self.again.as_ref().is_some_and(|again| again.at > now) {
            return None;
        }
        let next = match self.again.take() {
            Some(again) => Some((again.covered, again.batch)),
            None => self.take(),
        };
        self.busy = next.is_some();
        next
    }

    /// The one under way is on disk. True when there was no space before.
    pub(super) fn end(&mut self) -> bool {
        self.busy = false;
        self.full.take().is_some()
    }

    /// The one under way found no space. True when there was some before.
    pub(super) fn try_again(&mut self, covered: Covered, batch: Vec<Write>, now: Instant) -> bool {
        self.busy = false;
        let before = self.full;
        let after = before.map_or(AGAIN_AFTER, |after| AGAIN_AFTER_MAX.min(after * 2));
        self.full = Some(after);
        self.again = Some(Again { covered, batch, at: now + after });
        before.is_none()
    }

    /// When something is tried again that found no space.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again.as_ref().map(|again| again.at)
    }

    /// Whether what was written last found no space.
    pub(super) const fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Nothing is written any more.
    pub(super) fn give_up(&mut self) {
        *self = Self { given_up: true, ..Self::default() };
    }

    /// Bytes that are not under way yet.
    pub(super) fn bytes_waiting(&self) -> usize {
        self.waiting.iter().flat_map(|(_, writes)| writes).map(size).sum()
    }

    /// As much as goes at once, and what it covers. Of the safety records in it only the last is written: it replaces
    /// the others in the same step.
    fn take(&mut self) -> Option<(Covered, Vec<Write>)> {
        let (mut covered, mut batch, mut bytes) = (Covered::default(), Vec::new(), 0);
        while let Some((_, writes)) = self.waiting.front() {
            let more: usize = writes.iter().map(size).sum();
            let full = bytes + more > WRITE_BYTES_MAX || batch.len() + writes.len() > BATCH_WRITES_MAX;
            if full && !batch.is_empty() {
                break;
            }
            let Some((covers, writes)) = self.waiting.pop_front() else { break };
            bytes += more;
            match covers {
                Covers::Record(seq) => covered.record = Some(seq),
                Covers::Batch(seq) => covered.batch = Some(seq),
                Covers::Rest => {}
            }
            batch.extend(writes);
        }
        let last = batch.iter().rposition(disk::is_safety);
        let mut at = 0..;
        batch.retain(|write| {
            let at = at.next();
            !disk::is_safety(write) || at == last
        });
        // A record may have no rows; what it covers is as durable as what was before it.
        (!batch.is_empty() || covered.record.is_some() || covered.batch.is_some()).then_some((covered, batch))
    }
}

fn size(write: &Write) -> usize {
    match write {
        Write::Put { key, value, .. } => key.len() + value.len(),
        Write::Remove { key, .. } => key.len(),
        Write::RemoveRange { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use wattle_types::Table;

    use super::*;

    fn put(key: u8) -> Vec<Write> {
        vec![Write::Put { table: Table::Order, key: vec![key], value: vec![key] }]
    }

    #[test]
    fn what_found_no_space_is_tried_again_before_anything_else_and_covers_the_same() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        writes.push(Covers::Record(Seq(1)), put(1));
        let (covered, batch) = writes.begin(now).unwrap();
        writes.push(Covers::Record(Seq(2)), put(2));
        assert!(writes.begin(now).is_none(), "one at a time");
        assert!(writes.try_again(covered, batch, now), "that is news");
        assert!(writes.is_full() && writes.begin(now).is_none(), "not at once, and nothing overtakes it");
        let later = now + AGAIN_AFTER;
        let (covered, batch) = writes.begin(later).unwrap();
        assert_eq!((covered.record, &batch), (Some(Seq(1)), &put(1)));
        assert!(!writes.try_again(covered, batch, later), "that is known");
        assert!(writes.begin(later + AGAIN_AFTER).is_none(), "twice as long after the second time");
        let (covered, batch) = writes.begin(later + AGAIN_AFTER * 2).unwrap();
        assert_eq!((covered.record, batch), (Some(Seq(1)), put(1)));
        assert!(writes.end() && !writes.is_full(), "there is space again");
        let (covered, batch) = writes.begin(later).unwrap();
        assert_eq!((covered.record, batch), (Some(Seq(2)), put(2)));
        assert!(!writes.end());
    }

    #[test]
    fn nothing_is_written_behind_a_gap() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        writes.push(Covers::Record(Seq(1)), put(1));
        writes.begin(now).unwrap();
        writes.give_up();
        writes.push(Covers::Rest, put(2));
        assert!(writes.begin(now).is_none());
    }
}
