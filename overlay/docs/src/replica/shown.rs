//! What a large document shows at first, kept beside it.
//!
//! Automerge takes seconds to read a text of megabytes again, and whoever only wants to see it need not wait for that:
//! what it shows is written once it rests, with the version that it is of, and is good as long as that is the newest.
//! It can be had from the document at any time, so nothing waits for these writes, and none of them is missed.

use std::collections::VecDeque;
use std::time::Duration;

use automerge::Automerge;
use wattle_types::{DocId, Outbox, Time, Write};

use super::{
    DocError, Entry, Fetch, Job, Outcome, Output, PersistId, Replica, RequestId, State, WAITING_MAX,
};
use crate::shown::{Shown, Version, removals};

/// A document rests when it did not change for so long.
const QUIET: Duration = Duration::from_secs(5);

/// What it shows is written no more often than this: all of it is.
const PACE: Duration = Duration::from_secs(60);

/// What is kept of large documents beside themselves.
#[derive(Clone, Copy)]
pub struct Show {
    /// Operations from which on it is.
    pub from: u64,
    /// The form of the bytes: what was kept in another one is not shown.
    pub form: u32,
    /// What a document shows at first.
    pub bytes: fn(&Automerge) -> Vec<u8>,
}

impl Show {
    /// Nothing is kept.
    pub const NOTHING: Self = Self { from: u64::MAX, form: 0, bytes: |_| Vec::new() };
}

/// What is kept of one document, and what is to be.
#[derive(Default)]
pub(super) struct Showing {
    /// What is on disk.
    pub(super) kept: Option<Box<Shown>>,
    /// When the document last changed, where what is kept may not be of this version.
    changed: Option<Time>,
    /// When writing it last began.
    written: Option<Time>,
    /// What is being written, and the batches that follow the one that is on its way.
    writing: Option<Box<(Shown, VecDeque<Vec<Write>>)>>,
    /// Who waits for what is kept.
    pub(super) waiting: Vec<RequestId>,
}

impl Replica {
    /// Whether what a document shows is on disk in its newest version.
    #[must_use]
    pub fn is_shown(&self, doc: &DocId) -> bool {
        self.entries.get(doc).is_some_and(|entry| self.newest(entry).is_some())
    }

    fn version(&self, entry: &Entry) -> Version {
        let (form, heads) = (self.config.show.form, entry.row.tip.heads.clone());
        Version { form, heads, control: entry.log.fingerprint() }
    }

    /// What is kept, if it is of this version.
    fn newest<'a>(&self, entry: &'a Entry) -> Option<&'a Shown> {
        entry.showing.kept.as_deref().filter(|kept| kept.version == self.version(entry))
    }

    /// Shows a document: by what is kept, where it would have to be read first.
    pub(super) fn show(&mut self, now: Time, doc: DocId, request: RequestId, out: &mut Outbox<Output>) {
        let closed = self.entries.get(&doc).filter(|entry| matches!(entry.state, State::Closed));
        let Some(shown) = closed.and_then(|entry| self.newest(entry)).cloned() else {
            return self.local_job(now, doc, request, Job::Show { request }, out);
        };
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if entry.showing.waiting.len() >= WAITING_MAX {
            return out.push(Output::Reply { request, outcome: Err(DocError::Busy) });
        }
        entry.showing.waiting.push(request);
        // One reading answers all who ask meanwhile.
        if entry.showing.waiting.len() == 1 {
            let keys = shown.keys(&doc);
            self.fetch(doc, Fetch::Show { shown }, keys, out);
        }
    }

    /// What was kept came from the disk.
    pub(super) fn show_kept(
        &mut self,
        now: Time,
        doc: DocId,
        shown: &Shown,
        values: Result<Vec<Option<Vec<u8>>>, String>,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let was_read = values.is_ok();
        let whole = values.ok().and_then(|values| shown.whole(values));
        if was_read && whole.is_none() && entry.showing.kept.as_deref() == Some(shown) {
            // It is not what was written.
            entry.showing.kept = None;
        }
        for request in std::mem::take(&mut entry.showing.waiting) {
            match &whole {
                Some(bytes) => {
                    out.push(Output::Reply { request, outcome: Ok(Outcome::Read(bytes.clone())) });
                }
                None => self.local_job(now, doc, request, Job::Show { request }, out),
            }
        }
    }

    /// After an open document changed, or was read: what it shows is to be written when it rests.
    pub(super) fn outdate_shown(&mut self, now: Time, doc: DocId) {
        let from = self.config.show.from;
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if matches!(&entry.state, State::Open(document) if document.operations() >= from) {
            entry.showing.changed = Some(now);
            self.set_due(doc, now.after(QUIET));
        }
    }

    /// Writes what a document shows, if it rests and that is not kept.
    pub(super) fn keep_shown(&mut self, now: Time, doc: DocId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        let (Some(changed), State::Open(document)) = (entry.showing.changed, &entry.state) else { return };
        let is_kept = self.newest(entry).is_some();
        let due = changed.after(QUIET).max(entry.showing.written.map_or(now, |written| written.after(PACE)));
        // What is not on disk yet is of no version.
        let is_saved = !entry.is_writing() && document.is_vouched();
        let begins = !is_kept && due <= now && is_saved && entry.showing.writing.is_none();
        let bytes = begins.then(|| document.answer(self.config.show.bytes)).flatten();
        let shown = bytes.as_ref().map(|bytes| Shown::of(self.version(entry), bytes));
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if is_kept || begins {
            entry.showing.changed = None;
        } else {
            return self.set_due(doc, due.max(now.after(QUIET / 5)));
        }
        if let (Some(bytes), Some(shown)) = (bytes, shown) {
            let batches = shown.batches(&doc, &bytes).into();
            (entry.showing.kept, entry.showing.written) = (None, Some(now));
            entry.showing.writing = Some(Box::new((shown, batches)));
            self.write_shown(doc, out);
        }
    }

    /// Writes the next batch, unless the document has changed meanwhile.
    fn write_shown(&mut self, doc: DocId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        let version = self.version(entry);
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(writing) = entry.showing.writing.take() else { return };
        let (shown, mut batches) = *writing;
        match batches.pop_front() {
            None => entry.showing.kept = Some(Box::new(shown)),
            Some(writes) if shown.version == version => {
                entry.showing.writing = Some(Box::new((shown, batches)));
                self.persists_made += 1;
                let id = PersistId(self.persists_made);
                self.shown_persists.insert(id, doc);
                out.push(Output::Persist { id, writes });
            }
            // The next rest writes it, and removes this.
            Some(_) => {}
        }
    }

    /// A batch of it is on disk, or is not.
    pub(super) fn shown_written(&mut self, doc: DocId, is_there: bool, out: &mut Outbox<Output>) {
        let entry = self.entries.get_mut(&doc);
        if is_there && entry.is_some() {
            return self.write_shown(doc, out);
        }
        // The disk is full, or the document was forgotten meanwhile: what is there of it goes. Nobody hears whether it
        // does, because all that depends on it is room.
        entry.into_iter().for_each(|entry| entry.showing.writing = None);
        self.persists_made += 1;
        out.push(Output::Persist { id: PersistId(self.persists_made), writes: removals(&doc).to_vec() });
    }
}
