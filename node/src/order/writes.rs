//! What the ordered log writes, in its order: nothing is said before what it rests on is on disk.
//!
//! A write costs the processor about as much whatever is in it, so one begins only for what a word waits for: a record,
//! or so much of batches that no block holds it itself. The rest goes along, or by itself after [`LINGER`]. Most of it
//! is ordered and forgotten by then, and what is written over or removed in the same step is not written at all.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use wattle_order::Seq;
use wattle_order::limits::INLINE_BYTES_MAX;
use wattle_store::{BATCH_WRITES_MAX, CommitError};
use wattle_types::{Table, Write};

/// Bytes that are written at once.
const WRITE_BYTES_MAX: usize = 512 * 1024;
/// How long what nobody waits for waits for company.
const LINGER: Duration = Duration::from_millis(10);
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

/// What is not under way yet.
struct Waiting {
    covers: Covers,
    writes: Vec<Write>,
    bytes: usize,
    since: Instant,
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
    waiting: VecDeque<Waiting>,
    /// Bytes in it.
    bytes: usize,
    /// Records in it.
    records: usize,
    busy: bool,
    again: Option<Again>,
    /// The last one found no space, and is tried again after this.
    full: Option<Duration>,
    /// Nothing is written any more: what came later would stand behind a gap.
    given_up: bool,
}

impl Writes {
    pub(super) fn push(&mut self, covers: Covers, writes: Vec<Write>, now: Instant) {
        if self.given_up {
            return;
        }
        let bytes = writes.iter().map(size).sum();
        self.bytes += bytes;
        self.records += usize::from(matches!(covers, Covers::Record(_)));
        self.waiting.push_back(Waiting { covers, writes, bytes, since: now });
    }

    /// The next write and what it covers, once it is time, unless one is under way. What found no space comes first.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(Covered, Vec<Write>)> {
        if self.at().is_none_or(|at| at > now) {
            return None;
        }
        let next = match self.again.take() {
            Some(again) => Some((again.covered, again.batch)),
            None => self.take(),
        };
        self.busy = next.is_some();
        next
    }

    /// When the next write begins.
    pub(super) fn at(&self) -> Option<Instant> {
        if self.busy {
            return None;
        }
        if let Some(again) = &self.again {
            return Some(again.at);
        }
        let first = self.waiting.front()?.since;
        let hurries = self.records > 0 || self.bytes >= INLINE_BYTES_MAX;
        Some(if hurries { first } else { first + LINGER })
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

    /// Whether what was written last found no space.
    pub(super) const fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Nothing is written any more.
    pub(super) fn give_up(&mut self) {
        *self = Self { given_up: true, ..Self::default() };
    }

    /// Bytes that are not under way yet.
    pub(super) const fn bytes_waiting(&self) -> usize {
        self.bytes
    }

    /// As much as goes at once, and what it covers. Of the writes of one row only the last is among it: it replaces the
    /// others in the same step.
    fn take(&mut self) -> Option<(Covered, Vec<Write>)> {
        let (mut covered, mut batch, mut bytes) = (Covered::default(), Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            let full =
                bytes + next.bytes > WRITE_BYTES_MAX || batch.len() + next.writes.len() > BATCH_WRITES_MAX;
            if full && !batch.is_empty() {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            bytes += next.bytes;
            match next.covers {
                Covers::Record(seq) => {
                    covered.record = Some(seq);
                    self.records -= 1;
                }
                Covers::Batch(seq) => covered.batch = Some(seq),
                Covers::Rest => {}
            }
            batch.extend(next.writes);
        }
        self.bytes -= bytes;
        let batch = without_overwritten(batch);
        // A record may have no rows; what it covers is as durable as what was before it.
        (!batch.is_empty() || covered.record.is_some() || covered.batch.is_some()).then_some((covered, batch))
    }
}

/// The same in the end, with each row written once.
fn without_overwritten(mut writes: Vec<Write>) -> Vec<Write> {
    let mut later: HashSet<(Table, &[u8])> = HashSet::with_capacity(writes.len());
    let mut lasts: Vec<bool> = writes
        .iter()
        .rev()
        .map(|write| match write {
            Write::Put { table, key, .. } | Write::Remove { table, key } => later.insert((*table, key)),
            Write::RemoveRange { .. } => true,
        })
        .collect();
    writes.retain(|_| lasts.pop().unwrap_or(true));
    writes
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
    use super::*;

    fn put(key: u8) -> Vec<Write> {
        vec![Write::Put { table: Table::Order, key: vec![key], value: vec![key] }]
    }

    fn remove(key: u8) -> Vec<Write> {
        vec![Write::Remove { table: Table::Order, key: vec![key] }]
    }

    #[test]
    fn what_found_no_space_is_tried_again_before_anything_else_and_covers_the_same() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        writes.push(Covers::Record(Seq(1)), put(1), now);
        let (covered, batch) = writes.begin(now).unwrap();
        writes.push(Covers::Record(Seq(2)), put(2), now);
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
        writes.push(Covers::Record(Seq(1)), put(1), now);
        writes.begin(now).unwrap();
        writes.give_up();
        writes.push(Covers::Rest, put(2), now);
        assert!(writes.at().is_none() && writes.begin(now + LINGER).is_none());
    }

    #[test]
    fn what_no_word_waits_for_goes_along_with_a_record_or_by_itself_a_little_later() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        writes.push(Covers::Batch(Seq(1)), put(1), now);
        writes.push(Covers::Rest, put(2), now);
        assert!(writes.begin(now).is_none());
        assert_eq!(writes.at(), Some(now + LINGER));
        writes.push(Covers::Record(Seq(1)), put(3), now);
        let (covered, batch) = writes.begin(now).unwrap();
        assert_eq!(covered, Covered { record: Some(Seq(1)), batch: Some(Seq(1)) });
        assert_eq!(batch, [put(1), put(2), put(3)].concat());
        writes.push(Covers::Batch(Seq(2)), put(4), now);
        assert!(!writes.end() && writes.begin(now).is_none(), "the record is on its way, nothing hurries");
        let (covered, batch) = writes.begin(now + LINGER).unwrap();
        assert_eq!((covered.batch, batch), (Some(Seq(2)), put(4)));
    }

    #[test]
    fn batches_that_no_block_holds_itself_are_written_at_once() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        let large = Write::Put { table: Table::OrderBatches, key: vec![1], value: vec![0; INLINE_BYTES_MAX] };
        writes.push(Covers::Batch(Seq(1)), vec![large], now);
        assert!(writes.begin(now).is_some());
        assert_eq!(writes.bytes_waiting(), 0);
    }

    #[test]
    fn of_the_writes_of_one_row_only_the_last_is_written() {
        let (mut writes, now) = (Writes::default(), Instant::now());
        let range =
            Write::RemoveRange { table: Table::Order, range: wattle_types::KeyRange::between(&[1], &[9]) };
        for write in [put(1), put(2), vec![range.clone()], put(1), remove(2), put(3)] {
            writes.push(Covers::Rest, write, now);
        }
        writes.push(Covers::Record(Seq(1)), put(3), now);
        let (_, batch) = writes.begin(now).unwrap();
        assert_eq!(batch, [vec![range], put(1), remove(2), put(3)].concat());
    }
}
