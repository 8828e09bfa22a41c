//! Catching up with feeds: what is asked of a peer, the newest first, and what a peer that asks is given.

use std::collections::BTreeSet;
use std::time::Duration;

use wattle_types::limits::FEED_SPANS_MAX;
use wattle_types::{DocId, FeedId, Hlc, NodeId, Outbox, Post, Table, Time};

use super::feeds::{ANSWER_POSTS, sent};
use super::{Entry, Fetch, Output, REPEAT, Replica};
use crate::feed::{Feed, Gap, Stored, Top, post_key};
use crate::message::Message;
use crate::session::Fetching;

/// Bytes of entries in one answer.
const ANSWER_BYTES: usize = 256 * 1024;
/// Questions of one peer for entries that are read at once: the next page, and places that may have forked.
const GIVING_MAX: u8 = 4;
/// Questions for entries that wait for their answers at one peer, and at all of them: each answer may begin a piece of
/// its feed.
const FETCHES_AT_ONCE: usize = 2;
const FETCHES_MAX: usize = FEED_SPANS_MAX / 4;
/// Entries of the end of a feed of which nothing is here, where there are many such feeds.
const END_POSTS: usize = 16;
/// How long nobody else is asked for what one was asked for.
const ASKED_ALONE: Duration = Duration::from_secs(1);
/// How long an author who is here is left to say to everybody itself what it said.
const AUTHOR_SAYS: Duration = Duration::from_secs(1);

impl Replica {
    /// Asks a peer for the newest entries that it has and this replica lacks. While one answer is checked the next is
    /// on its way.
    pub(super) fn fetch_next(&mut self, now: Time, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) {
        let Some(session) = self.entries.get_mut(&doc).and_then(|entry| entry.sessions.get_mut(&peer)) else {
            return;
        };
        for given_up in session.fetching.extract_if(.., |it| it.until <= now) {
            session.doubted.insert(given_up.feed);
        }
        while self.fetch_one(now, doc, peer, out) {}
    }

    /// Asks all that are here for more: one does not give what it was asked for.
    pub(super) fn fetch_from_all(&mut self, now: Time, doc: DocId, out: &mut Outbox<Output>) {
        let peers = self.entries.get(&doc).map(|entry| entry.sessions.keys().copied().collect::<Vec<_>>());
        for peer in peers.into_iter().flatten() {
            self.fetch_next(now, doc, peer, out);
        }
    }

    /// Says whether there was something to ask for, and room for the answer.
    fn fetch_one(&mut self, now: Time, doc: DocId, peer: NodeId, out: &mut Outbox<Output>) -> bool {
        let wall = self.wall(now);
        let Some(entry) = self.entries.get_mut(&doc) else { return false };
        let here: BTreeSet<NodeId> = entry.sessions.keys().copied().collect();
        if entry.sessions.get(&peer).is_none_or(|session| session.fetching.len() >= FETCHES_AT_ONCE) {
            return false;
        }
        if entry.feeds.is_full() {
            entry.feeds.has_room_for.insert(peer);
            return false;
        }
        let open = entry.asked_for(now, peer);
        if open.len() >= FETCHES_MAX {
            return false;
        }
        let Some(session) = entry.sessions.get(&peer) else { return false };
        let (nothing, mut left) = (Feed::default(), false);
        let is_new = |feed: &FeedId| entry.feeds.here.get(feed).is_none_or(Feed::is_empty);
        let gaps = session.feeds.values().filter_map(|top| {
            let feed = entry.feeds.here.get(&top.feed).unwrap_or(&nothing);
            let asked: Vec<&Fetching> = open.iter().filter(|it| it.feed == top.feed).collect();
            if is_new(&top.feed) && !asked.is_empty() {
                return None;
            }
            let before = session.asked_from.get(&top.feed).copied().unwrap_or(u64::MAX);
            let gap = unasked(feed, top, before, &asked)?;
            let (author, may) = (top.feed.author, entry.members.may_post(&top.feed, gap.first));
            // What was said a moment ago its author is just saying to all who are here.
            let fresh = gap.first > feed.last() && wall.since(gap.at.wall()) < AUTHOR_SAYS;
            left |= may && fresh && author != peer && here.contains(&author);
            Some((gap, top.feed)).filter(|_| may && !(fresh && author != peer && here.contains(&author)))
        });
        let next = gaps.max_by_key(|(gap, feed)| (gap.at, *feed));
        // Of a feed of which nothing is here the end comes first, and that of all feeds before the rest of any.
        let new = session.feeds.keys().filter(|feed| is_new(feed)).count();
        let end = (ANSWER_POSTS / new.max(1)).max(END_POSTS);
        let next = next.map(|(Gap { first: all, last, .. }, feed)| {
            let most = if is_new(&feed) { end } else { ANSWER_POSTS };
            let newest = all.max((last + 1).saturating_sub(most as u64));
            // Who did not have what it was asked for may have a hole there: of all that it has the newest come.
            let first = if session.doubted.contains(&feed) { all } else { newest };
            Fetching { until: now.after(REPEAT), feed, first, last }
        });
        if let Some(session) = entry.sessions.get_mut(&peer) {
            session.fetching.extend(next);
        }
        if left {
            self.set_due(doc, now.after(AUTHOR_SAYS));
        }
        let Some(Fetching { feed, first, last, .. }) = next else { return false };
        self.send(&doc, peer, &Message::Fetch { feed, first, last }, out);
        self.set_due(doc, now.after(REPEAT));
        true
    }

    /// Reads entries for a peer, the newest first.
    pub(super) fn on_fetch(
        &mut self,
        doc: DocId,
        peer: NodeId,
        (feed, first, last): (FeedId, u64, u64),
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(session) = entry.sessions.get_mut(&peer).filter(|it| it.giving < GIVING_MAX) else {
            return;
        };
        let spans = entry.feeds.saved().get(&feed).map(|feed| feed.spans.as_slice()).unwrap_or_default();
        let within = spans.iter().rev().flat_map(|span| (first.max(span.first)..=last.min(span.last)).rev());
        let keys: Vec<_> =
            within.take(ANSWER_POSTS).map(|seq| (Table::DocPosts, post_key(&doc, &feed, seq))).collect();
        session.giving += 1;
        self.fetch(doc, Fetch::Give { peer, feed }, keys, out);
    }

    pub(super) fn give_posts(
        &mut self,
        doc: DocId,
        peer: NodeId,
        feed: FeedId,
        stored: Vec<Stored>,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(session) = entry.sessions.get_mut(&peer) else { return };
        session.giving = session.giving.saturating_sub(1);
        if entry.members.role(&peer).is_none() {
            return;
        }
        let mut posts = Vec::new();
        let mut bytes = 0;
        for Stored { envelope, .. } in stored {
            let Ok(post) = envelope.reread::<Post>() else { continue };
            posts.push(sent(&post, &envelope));
            bytes += post.body.len() + 256;
            if bytes > ANSWER_BYTES {
                break;
            }
        }
        self.send(&doc, peer, &Message::Posts { posts, asked: Some(feed) }, out);
    }
}

impl Entry {
    /// What was asked for and is still to come: all of one peer, and of the others what they were asked for a moment
    /// ago and need not be doubted about.
    fn asked_for(&self, now: Time, peer: NodeId) -> Vec<Fetching> {
        let asked = self.sessions.iter().flat_map(|(who, session)| {
            let counts = move |it: &&Fetching| {
                *who == peer
                    || (it.until > now.after(REPEAT - ASKED_ALONE) && !session.doubted.contains(&it.feed))
            };
            session.fetching.iter().filter(counts)
        });
        asked.copied().collect()
    }
}

/// The newest entries before `before` that a peer has, that are not here and that nobody was asked for.
fn unasked(feed: &Feed, top: &Top, mut before: u64, asked: &[&Fetching]) -> Option<Gap> {
    let at = top.link.map_or(Hlc::default(), |link| link.at);
    loop {
        let mut gap = feed.gap(top.last, at, before)?;
        loop {
            let crosses = |it: &&&Fetching| it.first <= gap.last && it.last >= gap.first;
            match asked.iter().filter(crosses).max_by_key(|it| it.last) {
                None => return Some(gap),
                Some(it) if it.last < gap.last => return Some(Gap { first: it.last + 1, ..gap }),
                Some(it) if it.first > gap.first => gap.last = it.first - 1,
                Some(_) => break,
            }
        }
        before = gap.first;
    }
}
