//! How entries of feeds get around: from their author to all who are connected to it, and word of them to the rest.
//!
//! In a room whose members are all connected, each entry would come to everybody from everybody if whoever got one
//! gave it on. So only its author gives it; who got it says how far the feed is here, and who lacks it asks. Said
//! often, that is said together: no more often than [`TELL_EVERY`].
//!
//! A change is passed on at once, for who is not connected to its author must not wait. Who gets a copy too late asks
//! its giver to pass on no more by that author, and asks for what is missing should a summary show some: so a tree is
//! left of the connections between members, for each author, as in Plumtree (Leitão, Pereira and Rodrigues, SRDS 2007,
//! section 3).

use std::collections::BTreeSet;
use std::time::Duration;

use wattle_types::limits::FEEDS_PER_DOC_MAX;
use wattle_types::{DocId, Envelope, FeedId, NodeId, Outbox, PostLink, Time};

use super::feeds::{ANSWER_POSTS, Grown, sent};
use super::{Entry, Output, Replica};
use crate::feed::Top;
use crate::message::{AUTHORS_MAX, Message};
use crate::payload::Payload;
use crate::session::Session;

/// How often members are told at most how far feeds of others are here.
const TELL_EVERY: Duration = Duration::from_millis(50);

impl Replica {
    /// What this node said, to who is not known to have it.
    pub(super) fn push_posts(&self, doc: DocId, posts: &[Grown], out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        for (peer, session) in &entry.sessions {
            if entry.members.role(peer).is_none() {
                continue;
            }
            let has = |grown: &Grown| {
                let top = session.feeds.get(&grown.posted.feed());
                grown.from.is_some() || top.is_some_and(|top| top.last >= grown.posted.post.seq)
            };
            let lacks: Vec<&Grown> = posts.iter().filter(|grown| !has(grown)).collect();
            for some in lacks.chunks(ANSWER_POSTS / 8) {
                let posts = some.iter().map(|grown| sent(&grown.posted.post, &grown.envelope)).collect();
                self.send(&doc, *peer, &Message::Posts { posts, asked: None }, out);
            }
        }
    }

    /// Tells members how far feeds are here that grew: each what it is not known to have, and of its own all.
    pub(super) fn tell_grown(&mut self, now: Time, doc: DocId, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if entry.feeds.grown.is_empty() {
            return;
        }
        if let Some(due) = entry.feeds.told_at.map(|at| at.after(TELL_EVERY)).filter(|due| *due > now) {
            return self.set_due(doc, due);
        }
        entry.feeds.told_at = Some(now);
        let grown = std::mem::take(&mut entry.feeds.grown);
        let Some(entry) = self.entries.get(&doc) else { return };
        for (peer, session) in &entry.sessions {
            if entry.members.role(peer).is_none() {
                continue;
            }
            let has = |top: &Top| session.feeds.get(&top.feed).is_some_and(|its| its.last >= top.last);
            let mut tops = entry.feeds.tops(|id| grown.contains(id));
            tops.retain(|top| top.feed.author == *peer || !has(top));
            if !tops.is_empty() {
                self.send(&doc, *peer, &Message::Feeds { tops }, out);
            }
        }
    }
}

impl Replica {
    /// Members to whom something new is given at once; it came from one of them, or from none.
    pub(super) fn who_lacks(&self, doc: DocId, payload: &Payload, from: Option<NodeId>) -> Vec<NodeId> {
        let Some(entry) = self.entries.get(&doc) else { return Vec::new() };
        let authors: BTreeSet<NodeId> = payload.vouches.iter().map(Envelope::author).collect();
        let has_it = |peer: &NodeId, session: &Session| {
            let gets_of = |author| author == peer || session.pruned.contains(author);
            !authors.is_empty() && authors.iter().all(gets_of)
        };
        let lacks = |peer: &NodeId, session: &Session| {
            Some(*peer) != from && entry.members.role(peer).is_some() && !has_it(peer, session)
        };
        let sessions = entry.sessions.iter().filter(|(peer, session)| lacks(peer, session));
        sessions.map(|(peer, _)| *peer).collect()
    }

    /// A peer passed on what was here already: it is asked to pass on no more by those authors.
    pub(super) fn prune_way(&self, doc: DocId, peer: NodeId, payload: &Payload, out: &mut Outbox<Output>) {
        let Some(entry) = self.entries.get(&doc) else { return };
        let authors: BTreeSet<NodeId> = payload.vouches.iter().map(Envelope::author).collect();
        let is_of_others =
            |author: &NodeId| *author != peer && *author != self.me && entry.members.may_write(author);
        let authors = authors.into_iter().filter(is_of_others);
        let authors: Vec<NodeId> = authors.take(AUTHORS_MAX).collect();
        if !authors.is_empty() {
            self.send(&doc, peer, &Message::Prune { authors }, out);
        }
    }
}

impl Entry {
    /// Who gives an entry has what is before it.
    pub(super) fn gave(&mut self, peer: NodeId, feed: FeedId, last: u64, link: PostLink) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let is_news = session.feeds.get(&feed).is_none_or(|top| top.last < last && top.fork.is_none());
        if is_news && (session.feeds.len() < FEEDS_PER_DOC_MAX || session.feeds.contains_key(&feed)) {
            session.feeds.insert(feed, Top { feed, last, link: Some(link), fork: None });
            session.asked_from.remove(&feed);
        }
    }
}
