//! What goes to the disk and comes from it.

use std::sync::Arc;

use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::{DocId, Envelope, KeyRange, Outbox, Table, Time, Write, cbor};

use super::{
    DocError, Entry, Event, Job, Outcome, Output, PersistId, Replica, RequestId, State, Waiting, Writing,
};
use crate::document::{Document, Hash, Judge, heads_of, is_document};
use crate::payload::{PAYLOAD_BYTES_MAX, Payload};
use crate::row::{Stored, operation_key};
use crate::shown::removals;

/// A payload up to this many bytes is one record; a larger one is a snapshot, which has parts.
const RECORD_BYTES_MAX: usize = 512 * 1024;

impl Replica {
    fn persist(&mut self, doc: DocId, writes: Vec<Write>, out: &mut Outbox<Output>) -> PersistId {
        self.persists_made += 1;
        let id = PersistId(self.persists_made);
        self.persists.insert(id, doc);
        out.push(Output::Persist { id, writes });
        id
    }

    /// Writes what has gathered, unless a batch of this document is on its way.
    pub(super) fn flush(&mut self, doc: DocId, now: Time, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if entry.is_writing() {
            return;
        }
        let mut flight = std::mem::take(&mut entry.writing().next);
        let mut snapshot = std::mem::take(&mut entry.writing().snapshot);
        if let State::Open(document) = &mut entry.state {
            let fresh = document.take_fresh(doc, &self.config.key, &self.config.network, entry.log.epoch());
            if !fresh.chunks.is_empty() {
                flight.from = None;
            }
            flight.payload.chunks.extend(fresh.chunks);
            flight.payload.vouches.extend(fresh.vouches);
            let label = document.answer(self.config.label).unwrap_or_default();
            // It is shared with the one on disk while it is the same.
            if entry.row.label != label {
                Arc::make_mut(&mut entry.row).label = label;
            }
        }
        let empty = flight.payload == Payload::default();
        if flight.is_empty() && !snapshot {
            return entry.rest();
        }
        let mut batches = operation_batches(doc, &flight.operations);
        let mut writes = batches.pop().unwrap_or_default();
        if let State::Open(document) = &entry.state {
            let is_large = document.is_large();
            let stored = &entry.row.tip.stored;
            let is_due = stored.is_due(is_large) && stored.next >= entry.unproven_until;
            // What a document that is written as its changes gets is more of them.
            let records = if empty { Vec::new() } else { records(&flight.payload, is_large) };
            snapshot |= is_due || records.iter().any(|record| record.len() > RECORD_BYTES_MAX);
            let proven = match records.as_slice() {
                _ if !snapshot => None,
                [record] if is_all_there_is(entry, &flight.payload) => Some(record.clone()),
                _ => proven_snapshot(document, PAYLOAD_BYTES_MAX),
            };
            if snapshot && proven.is_none() {
                // The records stay. Trying again costs as much as the document is large.
                let after = if is_large { TRY_LARGE_AFTER_RECORDS } else { TRY_AFTER_RECORDS };
                entry.unproven_until = entry.row.tip.stored.next.saturating_add(after);
            }
            if let Some(bytes) = proven {
                let tip = &mut Arc::make_mut(&mut entry.row).tip;
                let (parts, stored) = tip.stored.snapshot(&doc, &bytes);
                batches.extend(parts);
                writes.extend(tip.stored.removals(&doc));
                tip.stored = stored;
            } else {
                // Those before the last go first: without the row, which names them, they count for nothing.
                let stored = &mut Arc::make_mut(&mut entry.row).tip.stored;
                let mut records: Vec<Write> =
                    records.into_iter().map(|record| stored.append(&doc, record)).collect();
                writes.extend(records.pop());
                batches.extend(records.into_iter().map(|record| vec![record]));
            }
            Arc::make_mut(&mut entry.row).tip.heads = document.heads();
        }
        writes.extend(entry.row.writes(entry.saved.as_deref()));
        batches.push(writes);
        let row = Arc::clone(&entry.row);
        let writing = entry.writing();
        (writing.row, writing.flight, writing.batches) = (Some(row), flight, batches.into());
        entry.used = now;
        self.next_batch(doc, out);
        self.outdate_shown(now, doc);
    }

    /// Sends the next batch to the disk; says whether there was one.
    fn next_batch(&mut self, doc: DocId, out: &mut Outbox<Output>) -> bool {
        let Some(entry) = self.entries.get_mut(&doc) else { return false };
        let writing = entry.writing();
        writing.in_flight = None;
        let Some(writes) = writing.batches.pop_front() else { return false };
        let id = self.persist(doc, writes, out);
        if let Some(entry) = self.entries.get_mut(&doc) {
            entry.writing().in_flight = Some(id);
        }
        true
    }

    pub(super) fn persisted(&mut self, now: Time, id: PersistId, out: &mut Outbox<Output>) {
        if let Some((request, entry)) = self.forgotten.remove(&id) {
            let access = &entry.row.access;
            let (doc, tag) = (access.id, access.read.tag());
            // It may have been joined again meanwhile.
            if !self.tags.contains_key(&tag) {
                out.push(Output::Dropped { doc, tag });
            }
            out.push(Output::Notify(Event::Forgotten { doc }));
            out.push(Output::Reply { request, outcome: Ok(Outcome::Done) });
        }
        if let Some(doc) = self.feed_persists.remove(&id) {
            return self.feeds_persisted(now, doc, out);
        }
        if let Some(doc) = self.shown_persists.remove(&id) {
            return self.shown_written(doc, true, out);
        }
        let Some(doc) = self.persists.remove(&id) else { return };
        if self.next_batch(doc, out) {
            return;
        }
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let flight = std::mem::take(&mut entry.writing().flight);
        // Nothing changes the row while it is on its way but what the next batch will hold.
        let written = entry.writing().row.take().unwrap_or_else(|| Arc::clone(&entry.row));
        let after = written.tip.heads.clone();
        let saved = entry.saved.replace(written);
        if saved.is_none() {
            out.push(Output::Held { doc, tag: entry.row.access.read.tag() });
        }
        let before = saved.map(|row| row.tip.heads.clone()).unwrap_or_default();
        for waiting in flight.waiting {
            let (request, outcome) = match waiting {
                Waiting::Plain { request, outcome } => (request, outcome),
                Waiting::Edit { request, before, after } => {
                    let bytes = |heads: Vec<ByteArray<32>>| heads.iter().map(|head| **head).collect();
                    (request, Outcome::Edited { before: bytes(before), after: bytes(after) })
                }
            };
            out.push(Output::Reply { request, outcome: Ok(outcome) });
        }
        if after != before {
            let bytes = |heads: &[ByteArray<32>]| heads.iter().map(|head| **head).collect();
            let (before, after) = (bytes(&before), bytes(&after));
            out.push(Output::Notify(Event::Changed { doc, before, after, from: flight.from }));
        }
        self.push_operations(doc, &flight.operations, out);
        self.push(now, doc, &flight.payload, flight.from, out);
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let wants = std::mem::take(&mut entry.writing().wants);
        let prune = std::mem::take(&mut entry.writing().prune);
        for want in wants {
            self.job(now, doc, want, out);
        }
        self.flush(doc, now, out);
        if prune {
            self.job(now, doc, Job::Prune, out);
        }
        self.make_place();
    }

    pub(super) fn not_persisted(&mut self, now: Time, id: PersistId, why: &str, out: &mut Outbox<Output>) {
        if let Some((request, mut entry)) = self.forgotten.remove(&id) {
            // It is still on disk: so it is still here.
            entry.state = State::Closed;
            entry.due = None;
            self.tags.insert(entry.row.access.read.tag(), entry.row.access.id);
            self.entries.insert(entry.row.access.id, entry);
            let outcome = Err(DocError::NotSaved(why.to_owned()));
            return out.push(Output::Reply { request, outcome });
        }
        if let Some(doc) = self.feed_persists.remove(&id) {
            return self.feeds_not_persisted(now, doc, why, out);
        }
        if let Some(doc) = self.shown_persists.remove(&id) {
            return self.shown_written(doc, false, out);
        }
        let Some(doc) = self.persists.remove(&id) else { return };
        self.take_back(doc, now, why, out);
    }

    /// Forgets what is not on disk: everyone who waits is told, and the document is read anew.
    pub(super) fn take_back(&mut self, doc: DocId, now: Time, why: &str, out: &mut Outbox<Output>) {
        self.closed(doc);
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        entry.actor = None;
        let writing = entry.writing.take().unwrap_or_default();
        if let Some(id) = writing.in_flight {
            self.persists.remove(&id);
        }
        let jobs = match std::mem::replace(&mut entry.state, State::Closed) {
            State::Loading(jobs) => jobs,
            _ => Vec::new(),
        };
        let waiting = [writing.flight.waiting, writing.next.waiting].into_iter().flatten();
        for waiting in waiting {
            let (Waiting::Edit { request, .. } | Waiting::Plain { request, .. }) = waiting;
            out.push(Output::Reply { request, outcome: Err(DocError::NotSaved(why.to_owned())) });
        }
        for envelope in writing.flight.operations.iter().chain(&writing.next.operations) {
            entry.log.remove(envelope);
        }
        entry.members = entry.log.members(&entry.row.access);
        let is_new = entry.saved.is_none();
        if let Some(saved) = &entry.saved {
            entry.row = Arc::clone(saved);
        }
        entry.used = now;
        for session in entry.sessions.values_mut() {
            session.told = None;
        }
        for job in jobs {
            self.job(now, doc, job, out);
        }
        if is_new && let Some(entry) = self.entries.remove(&doc) {
            let tag = entry.row.access.read.tag();
            self.tags.remove(&tag);
            out.push(Output::Dropped { doc, tag });
        }
    }

    pub(super) fn loaded(
        &mut self,
        now: Time,
        doc: DocId,
        values: Result<Vec<Option<Vec<u8>>>, String>,
        out: &mut Outbox<Output>,
    ) {
        let fresh = self.draw();
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let State::Loading(_) = &entry.state else { return };
        let actor = entry.actor.take().unwrap_or(fresh);
        let read = values.and_then(|values| payloads(entry, values)).and_then(|payloads| {
            let read = Document::restore(&self.me, &actor, &self.config.network, payloads);
            let document = read.map_err(|fault| fault.to_string())?;
            if document.heads() == entry.row.tip.heads {
                Ok(document)
            } else {
                Err("its heads are not those in the index".to_owned())
            }
        });
        let state = match read {
            Ok(document) => State::Open(Box::new(document)),
            Err(why) => State::Damaged(why),
        };
        let is_open = matches!(state, State::Open(_));
        let State::Loading(jobs) = std::mem::replace(&mut entry.state, state) else { return };
        if is_open {
            self.opened(now, doc);
        }
        // A removal may be on disk whose cut is not: the node died between the two, or the disk was full.
        self.prune(now, doc, out);
        for job in jobs {
            self.job(now, doc, job, out);
        }
        self.outdate_shown(now, doc);
        self.make_place();
    }

    /// Leaves out what no writer vouches for any more, and rewrites the rest.
    pub(super) fn prune(&mut self, now: Time, doc: DocId, out: &mut Outbox<Output>) {
        let actor = self.draw();
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let epoch = entry.log.epoch();
        let judge = Judge { doc, network: &self.config.network, members: &entry.members, epoch };
        let is_writing = entry.is_writing();
        let State::Open(document) = &mut entry.state else { return };
        if is_writing || !document.is_vouched() {
            entry.writing().prune = true;
            return;
        }
        match document.prune(&judge, &self.me, &actor) {
            Ok(Some(cut)) => {
                Arc::make_mut(&mut entry.row).cut_off(cut);
                entry.writing().snapshot = true;
                self.flush(doc, now, out);
            }
            Ok(None) => {}
            Err(fault) => {
                entry.state = State::Damaged(fault.to_string());
                self.closed(doc);
            }
        }
    }

    /// Removes everything of a document from the disk.
    pub(super) fn erase(&mut self, request: RequestId, mut entry: Box<Entry>, out: &mut Outbox<Output>) {
        let doc = entry.row.access.id;
        let Writing { flight, next, .. } = *entry.writing.take().unwrap_or_default();
        let waiting = [flight.waiting, next.waiting].into_iter().flatten();
        for waiting in waiting {
            let (Waiting::Edit { request, .. } | Waiting::Plain { request, .. }) = waiting;
            out.push(Output::Reply { request, outcome: Err(DocError::Unknown(doc)) });
        }
        for request in std::mem::take(&mut entry.showing).waiting {
            out.push(Output::Reply { request, outcome: Err(DocError::Unknown(doc)) });
        }
        Self::drop_appends(&mut entry, &DocError::Unknown(doc), out);
        let mut writes: Vec<Write> = Vec::new();
        writes.extend(entry.log.envelopes().iter().map(|envelope| Write::Remove {
            table: Table::DocControl,
            key: operation_key(&doc, &envelope.hash()),
        }));
        for table in [Table::DocChanges, Table::DocSnapshots, Table::DocFeeds, Table::DocPosts] {
            writes.push(Write::RemoveRange { table, range: KeyRange::prefix(doc.as_bytes()) });
        }
        writes.extend(removals(&doc));
        writes.extend(entry.row.removals());
        entry.sessions.clear();
        let id = self.persist(doc, writes, out);
        self.forgotten.insert(id, (request, entry));
    }
}

/// The same of a document that is written as its changes.
const TRY_LARGE_AFTER_RECORDS: u64 = 64 * 1024;

/// After a snapshot that did not read back, so many records are written before another is tried.
const TRY_AFTER_RECORDS: u64 = 1024;

/// Bytes of operations in one batch, beside a record or the keys that a snapshot removes.
const OPERATIONS_BYTES_MAX: usize = 256 * 1024;

/// Operations as batches that the store takes; they may be more than one does.
fn operation_batches(doc: DocId, operations: &[Envelope]) -> Vec<Vec<Write>> {
    let mut batches: Vec<Vec<Write>> = Vec::new();
    let mut left = 0;
    for envelope in operations {
        let value = cbor::encode(envelope);
        let bytes = value.len() + 64;
        if bytes > left {
            batches.push(Vec::new());
            left = OPERATIONS_BYTES_MAX;
        }
        left = left.saturating_sub(bytes);
        let key = operation_key(&doc, &envelope.hash());
        let put = Write::Put { table: Table::DocControl, key, value };
        if let Some(batch) = batches.last_mut() {
            batch.push(put);
        }
    }
    batches
}

/// What is stored, as payloads: the parts of the snapshot are one.
pub(super) fn payloads(entry: &Entry, values: Vec<Option<Vec<u8>>>) -> Result<Vec<Payload>, String> {
    let missing = || "a part of it is missing".to_owned();
    let mut values =
        values.into_iter().map(|value| value.ok_or_else(missing)).collect::<Result<Vec<_>, _>>()?;
    let records = values.split_off((entry.row.tip.stored.parts as usize).min(values.len()));
    let snapshot = values.concat();
    let snapshot = Some(snapshot).filter(|bytes| !bytes.is_empty());
    let decode = |bytes: Vec<u8>| {
        cbor::decode::<Payload>(&bytes, PAYLOAD_BYTES_MAX).map_err(|error| error.to_string())
    };
    snapshot.into_iter().chain(records).map(decode).collect()
}

/// A payload as records: one, or as many as it takes if it may be more. The document is what all of them hold.
fn records(payload: &Payload, may_be_more: bool) -> Vec<Vec<u8>> {
    if !may_be_more || payload.bytes() <= RECORD_BYTES_MAX {
        return vec![cbor::encode(payload)];
    }
    let mut records = vec![Payload::default()];
    let mut bytes = 0;
    let mut add = |more: usize, put: &mut dyn FnMut(&mut Payload)| {
        if bytes + more > RECORD_BYTES_MAX - RECORD_BYTES_MAX / 8 && bytes > 0 {
            records.push(Payload::default());
            bytes = 0;
        }
        bytes += more;
        records.last_mut().into_iter().for_each(put);
    };
    for vouch in &payload.vouches {
        add(cbor::encode(vouch).len() + 16, &mut |record| record.vouches.push(vouch.clone()));
    }
    for chunk in &payload.chunks {
        add(chunk.len() + 16, &mut |record| record.chunks.push(chunk.clone()));
    }
    records.iter().map(cbor::encode).collect()
}

/// Whether nothing is on disk and all of the document came as one chunk, which was read when it came.
fn is_all_there_is(entry: &Entry, payload: &Payload) -> bool {
    let is_one = matches!(payload.chunks.as_slice(), [chunk] if is_document(chunk));
    is_one && entry.row.tip.stored == Stored::default()
}

/// D4: a snapshot that was read back and has the same heads. One that is larger than what is read takes nothing's
/// place.
fn proven_snapshot(document: &Document, bytes_max: usize) -> Option<Vec<u8>> {
    let prove = || {
        let payload = document.whole();
        let is_within = payload.bytes() <= bytes_max && !payload.chunks.is_empty();
        (is_within && reads_back(&payload.chunks, &document.heads())).then(|| cbor::encode(&payload))
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(prove)).ok()?
}

/// Whether chunks are a document with these heads.
fn reads_back(chunks: &[ByteBuf], heads: &[Hash]) -> bool {
    heads_of(chunks).is_ok_and(|found| found == heads)
}

#[cfg(test)]
mod tests;
