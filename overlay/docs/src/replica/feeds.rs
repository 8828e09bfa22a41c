//! Feeds: appended to by local callers and by peers, caught up with newest first.
//!
//! They live beside the document and never wait for it: an entry needs neither the replica in memory nor a
//! batch of its changes on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::limits::{FEEDS_PER_DOC_MAX, POST_BYTES_MAX};
use wattle_types::{
    DocId, Domain, Envelope, FeedId, Hlc, KeyRange, NodeId, Outbox, Post, PostId, PostLink, Posted, Table,
    Time, Write, cbor, frontier, keyed,
};

use super::forks::{Claim, Suspect};
use super::{DocError, Entry, Event, Fetch, FetchId, Outcome, Output, PersistId, REPEAT, Replica, RequestId};
use crate::feed::{
    Feed, FeedEnd, Sent, Step, Stored, Top, feed_key, post_key, posted, posts_behind, posts_from, print_parts,
};
use crate::message::Message;

/// Bytes of entries in one batch; what comes beyond them waits at who sent it.
const BATCH_BYTES: usize = 512 * 1024;
/// Bytes of an entry around its body, and of a piece of its feed that it may begin: each names up to nine entries.
const POST_OVERHEAD_BYTES: usize = 1536;
/// Entries in one answer: at 300 bytes each it is 40 KiB, and the newest of ten feeds come in ten answers.
pub(super) const ANSWER_POSTS: usize = 128;
/// Feeds of one author: each is there because the one before it forked.
pub(super) const FEEDS_PER_AUTHOR: u16 = 16;
/// An entry that took longer to come is late.
const LATE: Duration = Duration::from_secs(5);
/// A clock that is further ahead moves no other clock.
const AHEAD_MAX: Duration = Duration::from_secs(10 * 60);

/// The feeds of one document.
#[derive(Default)]
pub(super) struct Feeds {
    /// With what is on its way to the disk.
    pub(super) here: BTreeMap<FeedId, Feed>,
    /// As they are on disk: what peers are told.
    saved: BTreeMap<FeedId, Feed>,
    /// Of what is on disk; zeros while there is nothing.
    print: ByteArray<32>,
    pub(super) suspects: BTreeMap<FeedId, Suspect>,
    /// Feeds whose end is being read, to be cut there.
    cutting: BTreeSet<FeedId>,
    clock: Hlc,
    /// Of which members are still to be told how far they are here, and when they last were told anything.
    pub(super) grown: BTreeSet<FeedId>,
    pub(super) told_at: Option<Time>,
    in_flight: Option<PersistId>,
    /// Who is to be asked for more once the next batch has room again.
    pub(super) has_room_for: BTreeSet<NodeId>,
    /// What is being written, and what comes next. None where nothing is: most documents have no feeds.
    flight: Option<Box<Batch>>,
    next: Option<Box<Batch>>,
}

#[derive(Default)]
pub(super) struct Batch {
    appends: Vec<(RequestId, PostId)>,
    pub(super) posts: Vec<Grown>,
    rows: BTreeMap<FeedId, Feed>,
    pub(super) removals: Vec<KeyRange>,
    pub(super) forked: BTreeSet<FeedId>,
    bytes: usize,
}

pub(super) struct Grown {
    pub(super) posted: Posted,
    pub(super) envelope: Envelope,
    pub(super) from: Option<NodeId>,
}

impl Feeds {
    pub(super) fn restore(&mut self, id: FeedId, feed: Feed, wall_max: Hlc) {
        let top = feed.top().map(|span| span.top.at).filter(|at| *at <= wall_max);
        self.clock = self.clock.max(top.unwrap_or_default());
        self.saved.insert(id, feed.clone());
        self.here.insert(id, feed);
    }

    /// After the last of [`Self::restore`].
    pub(super) fn restored(&mut self) {
        self.print = print_of(&self.saved);
    }

    pub(super) const fn print(&self) -> ByteArray<32> {
        self.print
    }

    pub(super) const fn saved(&self) -> &BTreeMap<FeedId, Feed> {
        &self.saved
    }

    /// Entries on disk.
    pub(super) fn posts(&self) -> u64 {
        let spans = self.saved.values().flat_map(|feed| &feed.spans);
        spans.map(|span| span.last - span.first + 1).sum()
    }

    pub(super) fn tops(&self, of: impl Fn(&FeedId) -> bool) -> Vec<Top> {
        self.saved.iter().filter(|(id, _)| of(id)).map(|(id, feed)| Top::of(*id, feed)).collect()
    }

    /// The newest of this author's feeds, and the number of its last entry on disk.
    pub(super) fn last_of(&self, author: &NodeId) -> Option<(FeedId, u64)> {
        let mut own = self.saved.iter().filter(|(id, _)| id.author == *author);
        own.next_back().map(|(id, feed)| (*id, feed.last()))
    }

    /// Whether the next batch takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.bytes > BATCH_BYTES)
    }

    /// The next batch.
    pub(super) fn next(&mut self) -> &mut Batch {
        self.next.get_or_insert_default()
    }

    pub(super) fn touch(&mut self, id: FeedId) {
        let Some(feed) = self.here.get(&id) else { return };
        let next = self.next.get_or_insert_default();
        if !next.rows.contains_key(&id) {
            next.bytes += cbor::encode(feed).len() + POST_OVERHEAD_BYTES;
        }
        next.rows.insert(id, feed.clone());
    }
}

/// A feed that was cut at its beginning counts as none: others never heard of it.
fn print_of(feeds: &BTreeMap<FeedId, Feed>) -> ByteArray<32> {
    let some = feeds.iter().filter(|(_, feed)| !feed.is_empty());
    let parts: Vec<ByteBuf> = some.map(|(id, feed)| print_parts(id, feed)).collect();
    if parts.is_empty() {
        return ByteArray::default();
    }
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
    ByteArray::new(keyed(&[0; 32], &parts))
}

impl Replica {
    /// The latest time that an entry may have and still move clocks.
    pub(super) fn hlc_max(&self, now: Time) -> Hlc {
        Hlc::at(self.wall(now).after(AHEAD_MAX))
    }

    /// Signs an entry of this node's own feed.
    pub(super) fn append(
        &mut self,
        now: Time,
        doc: DocId,
        request: RequestId,
        body: Vec<u8>,
        out: &mut Outbox<Output>,
    ) {
        match self.sign_post(now, doc, body) {
            Ok((posted, envelope)) => {
                let Some(entry) = self.entries.get_mut(&doc) else { return };
                entry.feeds.next().appends.push((request, posted.id));
                let feed = entry.feeds.here.entry(posted.feed()).or_default();
                feed.insert(posted.id, &posted.post);
                entry.feeds.clock = posted.post.at;
                entry.feeds.add(Grown { posted, envelope, from: None });
                self.flush_feeds(doc, out);
            }
            Err(error) => out.push(Output::Reply { request, outcome: Err(error) }),
        }
    }

    fn sign_post(&self, now: Time, doc: DocId, body: Vec<u8>) -> Result<(Posted, Envelope), DocError> {
        let entry = self.entries.get(&doc).ok_or(DocError::Unknown(doc))?;
        if entry.members.iter().next().is_none() || entry.saved.is_none() {
            return Err(DocError::NotHere);
        }
        if !entry.members.may_write(&self.me) {
            return Err(super::local::not_allowed("writer", entry.members.role(&self.me)));
        }
        if body.len() > POST_BYTES_MAX {
            let why = format!("{} bytes are more than the {POST_BYTES_MAX} of one message", body.len());
            return Err(DocError::Refused(why));
        }
        let feeds = &entry.feeds;
        if feeds.is_full() {
            return Err(DocError::Busy);
        }
        let own = |number| FeedId { author: self.me, number };
        let Some(number) = (0..FEEDS_PER_AUTHOR).find(|number| !entry.is_over(&own(*number))) else {
            let forked =
                feeds.here.iter().filter(|(id, feed)| id.author == self.me && feed.fork.is_some()).count();
            let why = if forked > usize::from(FEEDS_PER_AUTHOR / 2) {
                "every feed of this node forked: its key is in use elsewhere".to_owned()
            } else {
                format!(
                    "this node lost its right to write here {FEEDS_PER_AUTHOR} times, and has no feed left"
                )
            };
            return Err(DocError::Refused(why));
        };
        let top = feeds.here.get(&own(number)).and_then(Feed::top);
        let limit = self.hlc_max(now);
        let others = feeds.here.iter().filter(|(id, _)| id.author != self.me);
        let tops = others.filter_map(|(_, feed)| feed.top()).filter(|span| span.top.at <= limit);
        let seen = frontier(tops.map(|span| (&span.top, span.seen.as_slice())));
        let wall = self.wall(now);
        let prev = top.map(|span| span.top);
        // What was too far ahead when it came moved no clock, and may be named by now.
        let named = prev.iter().chain(&seen).map(|link| link.at).max().unwrap_or_default();
        let post = Post {
            doc,
            feed: number,
            seq: top.map_or(1, |span| span.last + 1),
            at: feeds.clock.max(named).tick(wall),
            prev,
            seen,
            body: ByteBuf::from(body),
        };
        let envelope = Envelope::seal(&self.config.key, Domain::DocPost, &self.config.network, &post);
        let stored = Stored { envelope: envelope.clone(), received: wall, late: false };
        Ok((posted(stored, post, false), envelope))
    }

    /// Writes what has gathered, unless a batch of this document's feeds is on its way.
    pub(super) fn flush_feeds(&mut self, doc: DocId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let feeds = &mut entry.feeds;
        let is_due = |next: &mut Box<Batch>| !(next.rows.is_empty() && next.removals.is_empty());
        let Some(batch) = feeds.next.take_if(|next| feeds.in_flight.is_none() && is_due(next)) else {
            return;
        };
        let posts = batch.posts.iter().map(|grown| Write::Put {
            table: Table::DocPosts,
            key: post_key(&doc, &grown.posted.feed(), grown.posted.post.seq),
            value: cbor::encode(&Stored {
                envelope: grown.envelope.clone(),
                received: grown.posted.received,
                late: grown.posted.late,
            }),
        });
        let rows = batch.rows.iter().map(|(id, feed)| Write::Put {
            table: Table::DocFeeds,
            key: feed_key(&doc, id),
            value: cbor::encode(feed),
        });
        let removals = batch.removals.iter().cloned();
        let removals = removals.map(|range| Write::RemoveRange { table: Table::DocPosts, range });
        // What was cut has left this batch: what is in it came after.
        let writes = removals.chain(posts).chain(rows).collect();
        feeds.flight = Some(batch);
        self.persists_made += 1;
        let id = PersistId(self.persists_made);
        if let Some(entry) = self.entries.get_mut(&doc) {
            entry.feeds.in_flight = Some(id);
        }
        self.feed_persists.insert(id, doc);
        out.push(Output::Persist { id, writes });
    }

    pub(super) fn feeds_persisted(&mut self, now: Time, doc: DocId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let feeds = &mut entry.feeds;
        feeds.in_flight = None;
        let batch = *feeds.flight.take().unwrap_or_default();
        // How far a feed of this node is, who is given its entries sees.
        let others = batch.rows.keys().filter(|id| id.author != self.me);
        feeds.grown.extend(others.copied());
        feeds.saved.extend(batch.rows);
        feeds.print = print_of(&feeds.saved);
        for (request, post) in batch.appends {
            out.push(Output::Reply { request, outcome: Ok(Outcome::Appended { post }) });
        }
        let mut grown = batch.posts;
        // A fork or a removal may have cut some of it off meanwhile.
        let here = |it: &Grown| {
            feeds.here.get(&it.posted.feed()).is_some_and(|feed| feed.covers(it.posted.post.seq))
        };
        grown.retain(here);
        self.push_posts(doc, &grown, out);
        self.tell_grown(now, doc, out);
        for feed in &batch.forked {
            self.push_fork(doc, *feed, None, out);
            out.push(Output::Notify(Event::FeedForked { doc, feed: *feed }));
        }
        if !grown.is_empty() {
            let posts = grown.into_iter().map(|grown| grown.posted).collect();
            out.push(Output::Notify(Event::FeedGrew { doc, posts }));
        }
        self.set_due(doc, now.after(super::SUMMARY_AFTER));
        self.cut_feeds(doc, out);
        let waits = self.entries.get_mut(&doc).map(|entry| std::mem::take(&mut entry.feeds.has_room_for));
        for peer in waits.into_iter().flatten() {
            self.fetch_next(now, doc, peer, out);
        }
    }

    fn push_fork(&self, doc: DocId, feed: FeedId, to: Option<NodeId>, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        let Some(fork) = entry.feeds.saved.get(&feed).and_then(|feed| feed.fork.as_ref()) else { return };
        for peer in entry.sessions.keys().filter(|peer| to.is_none_or(|to| to == **peer)) {
            if entry.members.role(peer).is_some() {
                let message = Message::Forked { entries: fork.entries.clone() };
                self.send(&doc, *peer, &message, out);
            }
        }
    }

    pub(super) fn feeds_not_persisted(&mut self, now: Time, doc: DocId, why: &str, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        Self::drop_appends(entry, &DocError::NotSaved(why.to_owned()), out);
        let feeds = &mut entry.feeds;
        feeds.in_flight = None;
        feeds.here.clone_from(&feeds.saved);
        feeds.suspects.clear();
        // What a removal ended is cut once the disk takes it.
        self.set_due(doc, now.after(REPEAT));
    }

    /// Tells a peer how far every feed is here.
    pub(super) fn send_tops(&self, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        if entry.members.role(&peer).is_some() && !entry.feeds.saved.is_empty() {
            self.send(&doc, peer, &Message::Feeds { tops: entry.feeds.tops(|_| true) }, out);
        }
    }

    pub(super) fn on_tops(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        tops: Vec<Top>,
        out: &mut Outbox<Output>,
    ) {
        for top in tops {
            let Some(entry) = self.entries.get_mut(&doc) else { return };
            let Some(session) = entry.sessions.get_mut(&peer) else { return };
            if session.feeds.len() >= FEEDS_PER_DOC_MAX && !session.feeds.contains_key(&top.feed) {
                continue;
            }
            let known = session.feeds.insert(top.feed, top.clone()).map_or(0, |top| top.last);
            session.asked_from.remove(&top.feed);
            if top.feed.author == self.me && top.last > known {
                let seq = top.last;
                out.push(Output::Notify(Event::Reached { doc, peer, feed: top.feed, seq }));
            }
            let Some(feed) = entry.feeds.saved.get(&top.feed) else { continue };
            let mine = Top::of(top.feed, feed);
            if mine.fork.is_some() && mine.fork != top.fork {
                self.push_fork(doc, top.feed, Some(peer), out);
            }
            let end = |top: &Top| top.fork.as_ref().map(|fork| fork.0);
            if end(&mine) == end(&top) && mine.last == top.last && mine.link != top.link && mine.last > 0 {
                self.suspect(now, doc, top.feed, Claim { place: top.last, by: Some(peer) }, None, out);
            }
        }
        self.fetch_next(now, doc, peer, out);
    }

    /// A peer that stands where this replica stands has all of this node's entries.
    pub(super) fn reached(&mut self, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some((feed, seq)) = entry.feeds.last_of(&self.me) else { return };
        let Some(session) = entry.sessions.get_mut(&peer) else { return };
        let known = session.feeds.get(&feed).map_or(0, |top| top.last);
        if seq > known
            && let Some(saved) = entry.feeds.saved.get(&feed)
        {
            session.feeds.insert(feed, Top::of(feed, saved));
            out.push(Output::Notify(Event::Reached { doc, peer, feed, seq }));
        }
    }

    pub(super) fn fetch(
        &mut self,
        doc: DocId,
        what: Fetch,
        keys: Vec<(Table, Vec<u8>)>,
        out: &mut Outbox<Output>,
    ) {
        self.persists_made += 1;
        let id = FetchId(self.persists_made);
        self.fetches.insert(id, (doc, what));
        out.push(Output::Fetch { id, keys });
    }

    pub(super) fn fetched(
        &mut self,
        now: Time,
        id: FetchId,
        values: Result<Vec<Option<Vec<u8>>>, String>,
        out: &mut Outbox<Output>,
    ) {
        let Some((doc, what)) = self.fetches.remove(&id) else { return };
        let first = |values| stored(values).into_iter().next().map(|stored| stored.envelope);
        match what {
            Fetch::Give { peer, feed } => self.give_posts(doc, peer, feed, stored(values), out),
            Fetch::Own { feed, seq } => self.on_own(now, doc, (feed, seq), first(values), out),
            Fetch::End { feed, last } => self.on_end(now, doc, (feed, last), first(values), out),
            Fetch::Show { shown } => self.show_kept(now, doc, &shown, values, out),
        }
    }

    pub(super) fn on_posts(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        posts: Vec<Sent>,
        asked: Option<FeedId>,
        out: &mut Outbox<Output>,
    ) {
        let newest = posts.iter().map(|sent| sent.seq).max();
        let full = self.entries.get(&doc).is_some_and(|entry| entry.feeds.is_full());
        let mut kept = false;
        for sent in posts {
            match self.accept_post(now, doc, peer, sent, out) {
                Ok(news) => kept |= news,
                Err(why) => return out.push(Output::Misbehaved { peer, why }),
            }
        }
        self.flush_feeds(doc, out);
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(session) = entry.sessions.get_mut(&peer) else { return };
        // What was pushed may lie behind a gap.
        let Some(feed) = asked else { return self.fetch_next(now, doc, peer, out) };
        let asked = session.take_asked(&feed, newest);
        if kept {
            session.doubted.remove(&feed);
        } else if let Some(asked) = asked.filter(|_| !full) {
            // It has nothing new of this: until it says again how far the feed is there.
            session.asked_from.insert(feed, asked.first);
            session.doubted.insert(feed);
            // Somebody else may have it.
            return self.fetch_from_all(now, doc, out);
        }
        self.fetch_next(now, doc, peer, out);
    }

    /// Checks one entry and adds it; says whether it was new. An error is the sender's fault.
    fn accept_post(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        sent: Sent,
        out: &mut Outbox<Output>,
    ) -> Result<bool, &'static str> {
        let (wall, limit) = (self.wall(now), self.hlc_max(now));
        let Some(entry) = self.entries.get_mut(&doc) else { return Ok(false) };
        let id = FeedId { author: sent.envelope.author(), number: sent.number };
        let suspected = entry.feeds.suspects.get(&id).is_some_and(|suspect| suspect.is_at(sent.seq));
        let full = entry.feeds.is_full()
            || (entry.feeds.here.len() >= FEEDS_PER_DOC_MAX && !entry.feeds.here.contains_key(&id));
        // The newest entry is compared: two of them are the proof of a fork.
        let top = entry.feeds.here.get(&id).map_or(0, Feed::last);
        let known = top > sent.seq && entry.feeds.here.get(&id).is_some_and(|feed| feed.covers(sent.seq));
        let name = PostId::from_bytes(sent.envelope.hash());
        let same = entry.feeds.here.get(&id).and_then(Feed::top).is_some_and(|span| span.top.id == name);
        if same && let Some(top) = entry.feeds.here.get(&id).and_then(Feed::top).map(|span| span.top) {
            entry.gave(peer, id, sent.seq, top);
        }
        if same || ((known || full) && !suspected) || sent.number >= FEEDS_PER_AUTHOR {
            return Ok(false);
        }
        let opened = sent.envelope.open::<Post>(Domain::DocPost, &self.config.network);
        let post = opened.map_err(|_invalid| "a feed's entry whose signature does not verify")?.into_value();
        if post.doc != doc || post.feed != sent.number || post.seq != sent.seq || !post.is_sound() {
            return Err("a feed's entry that contradicts itself");
        }
        // Who wrote it may have been let in by an operation that is not here yet: it comes again.
        if !entry.members.may_post(&id, post.seq) {
            return Ok(false);
        }
        if suspected {
            self.testify(now, doc, id, (sent.envelope.clone(), post.clone()), out);
            if known || full {
                return Ok(false);
            }
        }
        let Some(entry) = self.entries.get_mut(&doc) else { return Ok(false) };
        match entry.feeds.here.entry(id).or_default().insert(name, &post) {
            Step::LeftOut => Ok(false),
            Step::Conflict { place, with } => {
                let hand = (sent.envelope, post);
                self.suspect(now, doc, id, Claim { place, by: None }, Some((hand, with)), out);
                Ok(false)
            }
            Step::Kept { gone } => {
                if let Some(entries) = gone {
                    entry.feeds.forget(doc, id, entries);
                }
                let before = wall.max(entry.feeds.clock.wall());
                let here = post.at.wall() >= self.config.started;
                let late = here && before.since(post.at.wall()) > LATE;
                if post.at <= limit {
                    entry.feeds.clock = entry.feeds.clock.max(post.at);
                }
                let stored = Stored { envelope: sent.envelope.clone(), received: wall, late };
                let posted = posted(stored, post, false);
                entry.gave(peer, id, sent.seq, posted.link());
                entry.feeds.add(Grown { posted, envelope: sent.envelope, from: Some(peer) });
                Ok(true)
            }
        }
    }

    /// After the feeds of a document were read from disk. A removal may be there whose cut is not.
    pub(super) fn feeds_restored(&mut self, doc: DocId) {
        if let Some(entry) = self.entries.get_mut(&doc) {
            entry.feeds.restored();
        }
        if self.entries.get(&doc).is_some_and(|entry| !entry.to_cut().is_empty()) {
            self.set_due(doc, Time::ZERO);
        }
    }

    /// Ends the feeds of the removed; says whether any goes on. What stands at the end is read first: it need not
    /// be what the remover had there.
    pub(super) fn cut_feeds(&mut self, doc: DocId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        for (id, last) in entry.to_cut() {
            let feeds = &mut entry.feeds;
            if feeds.is_full() {
                // The next batch takes it.
                break;
            }
            let crosses = feeds.here.get(&id).is_some_and(|feed| feed.goes_on_behind(last));
            let coming = feeds.coming(id, last).map(|grown| grown.posted.link());
            if !crosses || coming.is_some() {
                entry.cut(doc, id, last, coming, self.me, out);
            } else if feeds.cutting.insert(id) {
                self.persists_made += 1;
                let fetch = FetchId(self.persists_made);
                self.fetches.insert(fetch, (doc, Fetch::End { feed: id, last }));
                let keys = vec![(Table::DocPosts, post_key(&doc, &id, last))];
                out.push(Output::Fetch { id: fetch, keys });
            }
        }
        self.flush_feeds(doc, out);
    }

    fn on_end(
        &mut self,
        now: Time,
        doc: DocId,
        (feed, last): (FeedId, u64),
        end: Option<Envelope>,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        entry.feeds.cutting.remove(&feed);
        let post = end.as_ref().and_then(|it| it.open::<Post>(Domain::DocPost, &self.config.network).ok());
        let link = post.zip(end).map(|(post, envelope)| PostLink {
            at: post.value().at,
            id: PostId::from_bytes(envelope.hash()),
        });
        // A disk that does not read is asked again.
        self.set_due(doc, now.after(REPEAT));
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if link.is_some() && entry.to_cut().contains(&(feed, last)) {
            entry.cut(doc, feed, last, link, self.me, out);
            self.flush_feeds(doc, out);
        }
    }

    /// Where a node's feeds end here, for its removal; also the one that it goes on in unheard, at its
    /// beginning: let in again it would say something else there.
    pub(super) fn feed_ends(&self, doc: DocId, of: &NodeId) -> Vec<FeedEnd> {
        let Some(entry) = self.entries.get(&doc) else { return Vec::new() };
        let tops = entry.feeds.tops(|id| id.author == *of).into_iter();
        let mut ends: Vec<_> =
            tops.map(|top| FeedEnd { feed: top.feed, last: top.last, link: top.link }).collect();
        let own = |number| FeedId { author: *of, number };
        let next = (0..FEEDS_PER_AUTHOR).map(own).find(|feed| !entry.is_over(feed));
        if let Some(feed) = next.filter(|feed| ends.iter().all(|end| end.feed != *feed)) {
            ends.push(FeedEnd { feed, last: 0, link: None });
        }
        ends
    }

    /// Tells callers whose entries will not be written any more.
    pub(super) fn drop_appends(entry: &mut Entry, error: &DocError, out: &mut Outbox<Output>) {
        let feeds = &mut entry.feeds;
        for batch in feeds.flight.take().into_iter().chain(feeds.next.take()) {
            for (request, _) in batch.appends {
                out.push(Output::Reply { request, outcome: Err(error.clone()) });
            }
        }
    }
}

impl Entry {
    /// The feeds that go on behind where a removal ended them, and where that is.
    fn to_cut(&self) -> Vec<(FeedId, u64)> {
        let end = |id: &FeedId| match self.members.feed_ends().get(id) {
            Some(end) => Some(end.last),
            // Who lost its right without having said anything that the remover knew of ends before its first word.
            None => (!self.members.may_write(&id.author)).then_some(0),
        };
        let ends = self.feeds.here.iter().filter_map(|(id, feed)| Some((*id, feed, end(id)?)));
        ends.filter(|(_, feed, last)| feed.is_behind(*last)).map(|(id, _, last)| (id, last)).collect()
    }

    /// Ends a feed; `link` is what it has there.
    fn cut(
        &mut self,
        doc: DocId,
        id: FeedId,
        last: u64,
        link: Option<PostLink>,
        me: NodeId,
        out: &mut Outbox<Output>,
    ) {
        let Some(feed) = self.feeds.here.get_mut(&id) else { return };
        feed.fork.take_if(|fork| fork.seq > last);
        feed.cut(last, link);
        self.feeds.next().removals.push(posts_behind(&doc, &id, last));
        self.feeds.touch(id);
        let why = super::local::not_allowed("writer", self.members.role(&me));
        self.feeds.drop_behind(id, last, &why, out);
    }

    /// Whether its author goes on in another: it forked, or a removal ended it and others may hold entries
    /// behind its end.
    fn is_over(&self, feed: &FeedId) -> bool {
        let forked = self.feeds.here.get(feed).is_some_and(|feed| feed.fork.is_some());
        forked || self.members.feed_ends().contains_key(feed)
    }

    /// Entries that some peer has and this replica lacks. A peer that claims more than it gives is not believed.
    pub(super) fn posts_missing(&self) -> u64 {
        let mut known: BTreeMap<FeedId, u64> = BTreeMap::new();
        for session in self.sessions.values() {
            let believed = session.feeds.values().filter(|top| {
                let (feed, last) = (&top.feed, top.last);
                !session.doubted.contains(feed)
                    && feed.number < FEEDS_PER_AUTHOR
                    && self.members.may_post(feed, last)
            });
            for top in believed {
                let last = known.entry(top.feed).or_default();
                *last = top.last.max(*last);
            }
        }
        let missing = known.into_iter().map(|(feed, last)| {
            let spans = self.feeds.saved.get(&feed).map(|feed| feed.spans.as_slice()).unwrap_or_default();
            let here: u64 = spans.iter().map(|span| span.last - span.first + 1).sum();
            last.saturating_sub(here)
        });
        missing.fold(0, u64::saturating_add)
    }
}

impl Feeds {
    /// Takes out of the next batch what is behind the end of a feed, and tells whoever waits for it.
    pub(super) fn drop_behind(&mut self, feed: FeedId, last: u64, why: &DocError, out: &mut Outbox<Output>) {
        let gone = |grown: &Grown| grown.posted.feed() == feed && grown.posted.post.seq > last;
        let Some(next) = &mut self.next else { return };
        let ids: BTreeSet<PostId> = next.posts.iter().filter(|it| gone(it)).map(|it| it.posted.id).collect();
        next.posts.retain(|grown| !gone(grown));
        for (request, _) in next.appends.extract_if(.., |(_, post)| ids.contains(post)) {
            out.push(Output::Reply { request, outcome: Err(why.clone()) });
        }
    }

    /// Takes a piece of a feed out of the next batch and off the disk. It comes again when the gaps behind it are
    /// closed.
    fn forget(&mut self, doc: DocId, feed: FeedId, (first, last): (u64, u64)) {
        let is_of =
            |grown: &Grown| grown.posted.feed() == feed && (first..=last).contains(&grown.posted.post.seq);
        let next = self.next();
        next.posts.retain(|grown| !is_of(grown));
        next.removals.push(posts_from(&doc, &feed, (first, last)));
    }

    /// An entry that is on its way to the disk.
    pub(super) fn coming(&self, feed: FeedId, seq: u64) -> Option<&Grown> {
        let batches = self.next.iter().chain(&self.flight);
        let mut coming = batches.flat_map(|batch| &batch.posts);
        coming.find(|grown| grown.posted.feed() == feed && grown.posted.post.seq == seq)
    }

    fn add(&mut self, grown: Grown) {
        let (id, next) = (grown.posted.feed(), self.next());
        next.bytes += grown.posted.post.body.len() + POST_OVERHEAD_BYTES;
        next.posts.push(grown);
        self.touch(id);
    }
}

pub(super) fn sent(post: &Post, envelope: &Envelope) -> Sent {
    Sent { number: post.feed, seq: post.seq, envelope: envelope.clone() }
}

/// What of the entries can be read.
fn stored(values: Result<Vec<Option<Vec<u8>>>, String>) -> Vec<Stored> {
    values
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|value| cbor::decode(&value, value.len()).ok())
        .collect()
}
