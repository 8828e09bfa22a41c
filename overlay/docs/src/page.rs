//! Reading feeds back: entries of all authors in one order, from any place backwards.

use std::collections::BTreeMap;

use wattle_types::{DocId, Envelope, FeedId, Post, PostLink, Posted, Table, cbor};

use crate::feed::{Feed, Stored, post_key, posted};

/// How far a document's feeds were here at one moment. Pages are read from the disk without the machine.
#[derive(Clone, Debug)]
pub struct FeedLog {
    doc: DocId,
    feeds: BTreeMap<FeedId, Feed>,
}

/// One value of the disk; none where there is none.
type Get<'a> = &'a dyn Fn(Table, &[u8]) -> Result<Option<Vec<u8>>, String>;

/// A place in one feed, read from its end to its beginning.
struct Cursor<'a> {
    id: FeedId,
    feed: &'a Feed,
    /// The next entry, already read.
    next: Option<Posted>,
    /// Entries of the fork that were not given yet.
    forked: Vec<Posted>,
}

impl FeedLog {
    pub(crate) const fn new(doc: DocId, feeds: BTreeMap<FeedId, Feed>) -> Self {
        Self { doc, feeds }
    }

    /// The newest entries before `before`, or the newest of all, in order: by time, then by id. Since an entry
    /// is later than what it builds on, this is an order of causes, and the same everywhere.
    ///
    /// # Errors
    /// Why the disk cannot be read, in words.
    pub fn page(&self, get: Get<'_>, before: Option<PostLink>, limit: usize) -> Result<Vec<Posted>, String> {
        let mut cursors = Vec::new();
        for (id, feed) in &self.feeds {
            cursors.push(self.cursor(get, *id, feed, before)?);
        }
        let mut page = Vec::new();
        while page.len() < limit {
            let newest = cursors.iter_mut().filter(|it| it.link().is_some()).max_by_key(|it| it.link());
            let Some(cursor) = newest else { break };
            page.extend(self.step(get, cursor)?);
        }
        page.reverse();
        Ok(page)
    }

    /// One entry by its name and place.
    ///
    /// # Errors
    /// Why the disk cannot be read, in words.
    pub fn get(&self, get: Get<'_>, feed: &FeedId, seq: u64) -> Result<Option<Posted>, String> {
        let Some(bytes) = get(Table::DocPosts, &post_key(&self.doc, feed, seq))? else { return Ok(None) };
        let stored: Stored = cbor::decode(&bytes, bytes.len()).map_err(|error| error.to_string())?;
        let post: Post = stored.envelope.reread().map_err(|error| error.to_string())?;
        let forked = self.feeds.get(feed).is_some_and(|feed| feed.fork.is_some());
        Ok(Some(posted(stored, post, forked)))
    }

    fn cursor<'a>(
        &self,
        get: Get<'_>,
        id: FeedId,
        feed: &'a Feed,
        before: Option<PostLink>,
    ) -> Result<Cursor<'a>, String> {
        let is_before = |posted: &Posted| before.is_none_or(|before| posted.link() < before);
        let forked = feed.fork.iter().flat_map(|fork| &fork.entries);
        let forked = forked.filter_map(open_forked).filter(is_before);
        let mut cursor = Cursor { id, feed, next: None, forked: forked.collect() };
        cursor.forked.sort_by_key(Posted::link);
        // Times rise along a feed, so the place is found by halving.
        let (mut low, mut high) = (0, feed.last());
        if let Some(before) = before {
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                match self.at_or_below(get, &cursor, middle)? {
                    Some(posted) if posted.link() < before => low = middle,
                    Some(posted) => high = posted.post.seq - 1,
                    None => high = low,
                }
            }
        }
        cursor.next = self.at_or_below(get, &cursor, high)?;
        Ok(cursor)
    }

    /// The entry with this number, or the nearest below it that is here.
    fn at_or_below(&self, get: Get<'_>, cursor: &Cursor<'_>, seq: u64) -> Result<Option<Posted>, String> {
        let span = cursor.feed.spans.iter().rev().find(|span| span.first <= seq);
        match span.map(|span| span.last.min(seq)) {
            Some(seq) => self.get(get, &cursor.id, seq),
            None => Ok(None),
        }
    }

    /// Takes the cursor's entry and goes one down.
    fn step(&self, get: Get<'_>, cursor: &mut Cursor<'_>) -> Result<Option<Posted>, String> {
        let forked = cursor.forked.last().map(Posted::link);
        if forked > cursor.next.as_ref().map(Posted::link) {
            return Ok(cursor.forked.pop());
        }
        let taken = cursor.next.take();
        if let Some(below) = taken.as_ref().map(|posted| posted.post.seq - 1).filter(|seq| *seq > 0) {
            cursor.next = self.at_or_below(get, cursor, below)?;
        }
        Ok(taken)
    }
}

impl Cursor<'_> {
    fn link(&self) -> Option<PostLink> {
        self.next.as_ref().map(Posted::link).max(self.forked.last().map(Posted::link))
    }
}

fn open_forked(envelope: &Envelope) -> Option<Posted> {
    let post: Post = envelope.reread().ok()?;
    let received = post.at.wall();
    Some(posted(Stored { envelope: envelope.clone(), received, late: false }, post, true))
}
