//! What a large document shows at first, kept beside it.
//!
//! Automerge takes seconds to read a text of megabytes again, and whoever only wants to see it need not wait for that:
//! what it shows is written once it rests, with the version that it is of, and is good as long as that is the newest.

use std::time::Duration;

use automerge::Automerge;
use wattle_types::{DocId, Outbox, Time};

use super::{Fetch, Job, Outcome, Output, Replica, RequestId, State};
use crate::row::Shown;

/// A document rests when it did not change for so long.
const QUIET: Duration = Duration::from_secs(5);

/// What it shows is written no more often than this: all of it is.
const PACE: Duration = Duration::from_secs(60);

/// What is kept of large documents beside themselves.
#[derive(Clone, Copy)]
pub struct Show {
    /// Operations from which on a document is large.
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

/// How far the keeping of what a document shows is.
#[derive(Default)]
pub(super) struct Showing {
    /// When the document last changed, where what is kept is not of this version.
    changed: Option<Time>,
    /// When it was last written.
    written: Option<Time>,
}

impl Replica {
    /// Whether what a document shows is kept on disk in its newest version.
    #[must_use]
    pub fn is_shown(&self, doc: &DocId) -> bool {
        self.kept(doc).is_some()
    }

    fn kept(&self, doc: &DocId) -> Option<&Shown> {
        let entry = self.entries.get(doc)?;
        let written = entry.saved.as_ref()?.shown.as_ref();
        let kept = entry.row.shown.as_ref().filter(|it| written == Some(it))?;
        (kept.form == self.config.show.form && kept.heads == entry.row.tip.heads).then_some(kept)
    }

    /// Shows a document: by what is kept, where it would have to be read first.
    pub(super) fn show(&mut self, now: Time, doc: DocId, request: RequestId, out: &mut Outbox<Output>) {
        let is_open = self.entries.get(&doc).is_some_and(|entry| matches!(entry.state, State::Open(_)));
        match self.kept(&doc).filter(|_| !is_open).cloned() {
            Some(shown) => {
                let keys = shown.keys(&doc);
                self.fetch(doc, Fetch::Show { request, shown }, keys, out);
            }
            None => self.local_job(now, doc, request, Job::Show { request }, out),
        }
    }

    /// What was kept came from the disk.
    pub(super) fn show_kept(
        &mut self,
        now: Time,
        doc: DocId,
        (request, shown): (RequestId, &Shown),
        values: Vec<Option<Vec<u8>>>,
        out: &mut Outbox<Output>,
    ) {
        if let Some(bytes) = shown.whole(values) {
            return out.push(Output::Reply { request, outcome: Ok(Outcome::Read(bytes)) });
        }
        // It is not what was written. The document itself is there still.
        if let Some(entry) = self.entries.get_mut(&doc)
            && entry.row.shown.as_ref() == Some(shown)
        {
            entry.row.shown = None;
        }
        self.local_job(now, doc, request, Job::Show { request }, out);
    }

    /// After an open document changed, or was read: what it shows is to be written when it rests.
    pub(super) fn outdate_shown(&mut self, now: Time, doc: DocId) {
        let (is_kept, from) = (self.kept(&doc).is_some(), self.config.show.from);
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let is_large = |entry: &State| matches!(entry, State::Open(it) if it.operations() >= from);
        if !is_kept && is_large(&entry.state) {
            entry.showing.changed = Some(now);
            self.set_due(doc, now.after(QUIET));
        }
    }

    /// Writes what a document shows, if it rests.
    pub(super) fn keep_shown(&mut self, now: Time, doc: DocId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(changed) = entry.showing.changed.filter(|_| matches!(entry.state, State::Open(_))) else {
            return;
        };
        let paced = entry.showing.written.map_or(Time::ZERO, |written| written.after(PACE));
        let due = changed.after(QUIET).max(paced);
        if now < due {
            return self.set_due(doc, due);
        }
        entry.showing = Showing { changed: None, written: Some(now) };
        entry.writing.show = true;
        let used = entry.used;
        self.flush(doc, now, out);
        // Nobody used it.
        if let Some(entry) = self.entries.get_mut(&doc) {
            entry.used = used;
        }
    }
}
