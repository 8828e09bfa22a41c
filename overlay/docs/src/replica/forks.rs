//! Feeds that fork: their author signed what cannot be one chain. Both sides of it are sought, and are the proof
//! by which the feed ends at the same place everywhere.

use std::collections::{BTreeMap, BTreeSet};

use wattle_types::limits::FEEDS_PER_DOC_MAX;
use wattle_types::{DocId, Domain, Envelope, FeedId, NodeId, Outbox, Post, PostId, Table, Time};

use super::feeds::FEEDS_PER_AUTHOR;
use super::{DocError, Fetch, Output, REPEAT, Replica};
use crate::feed::{contradiction, post_key, posts_behind};
use crate::message::Message;

/// Feeds of one document that are looked into at once. Beyond it the one that was asked about longest ago gives
/// way: if it did fork, where peers stand brings it back.
pub(super) const SUSPECTS_MAX: usize = 64;

/// An entry that was checked.
pub(super) type Checked = (Envelope, Post);

/// That a feed is not one chain from a place on.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) place: u64,
    /// Who says so without proof, and is asked for it. None where entries say it: everybody is asked.
    pub(super) by: Option<NodeId>,
}

/// A feed that may have forked, while the proof is not here.
#[derive(Default)]
pub(super) struct Suspect {
    place: u64,
    by: Option<NodeId>,
    entries: BTreeMap<PostId, Checked>,
    /// The number of an entry that is here and contradicts one that came.
    with: Option<u64>,
    /// Which of the entries is in the feed here, and its number.
    own: Option<(u64, PostId)>,
    /// The number of the entry that is being read.
    reading: Option<u64>,
    /// Nothing could be read: until there is another reason to look.
    failed: bool,
    /// When peers were asked.
    asked: Option<Time>,
}

impl Suspect {
    pub(super) const fn is_at(&self, seq: u64) -> bool {
        self.place == seq
    }
}

fn name(envelope: &Envelope) -> PostId {
    PostId::from_bytes(envelope.hash())
}

impl Replica {
    /// Seeks the proof: `hand` is an entry that came, and the number of the one here that it contradicts.
    pub(super) fn suspect(
        &mut self,
        now: Time,
        doc: DocId,
        feed: FeedId,
        claim: Claim,
        hand: Option<(Checked, u64)>,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let suspects = &mut entry.feeds.suspects;
        if claim.place == 0 {
            return;
        }
        if suspects.len() >= SUSPECTS_MAX && !suspects.contains_key(&feed) {
            let oldest = suspects.iter().min_by_key(|(_, suspect)| suspect.asked).map(|(feed, _)| *feed);
            oldest.and_then(|oldest| suspects.remove(&oldest));
        }
        let suspect = suspects.entry(feed).or_default();
        if suspect.place != claim.place {
            *suspect = Suspect { place: claim.place, by: claim.by, ..Suspect::default() };
        }
        suspect.failed = false;
        if let Some((checked, with)) = hand {
            suspect.with = Some(with);
            suspect.entries.insert(name(&checked.0), checked);
        }
        self.settle(now, doc, feed, out);
    }

    /// An entry came for a place that is suspected.
    pub(super) fn testify(
        &mut self,
        now: Time,
        doc: DocId,
        feed: FeedId,
        checked: Checked,
        out: &mut Outbox<Output>,
    ) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(suspect) = entry.feeds.suspects.get_mut(&feed) else { return };
        suspect.entries.insert(name(&checked.0), checked);
        self.settle(now, doc, feed, out);
    }

    /// An entry here was read.
    pub(super) fn on_own(
        &mut self,
        now: Time,
        doc: DocId,
        (feed, seq): (FeedId, u64),
        own: Option<Envelope>,
        out: &mut Outbox<Output>,
    ) {
        let network = self.config.network.clone();
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let Some(suspect) = entry.feeds.suspects.get_mut(&feed).filter(|it| it.reading == Some(seq)) else {
            return;
        };
        suspect.reading = None;
        let opened = own.and_then(|own| Some((own.open::<Post>(Domain::DocPost, &network).ok()?, own)));
        suspect.failed = opened.is_none();
        if let Some((post, own)) = opened {
            suspect.own = Some((seq, name(&own)));
            suspect.entries.insert(name(&own), (own, post.into_value()));
        }
        self.settle(now, doc, feed, out);
    }

    /// Has what is here of a suspected feed at its place, reading it if need be; says whether it has.
    fn has_own(&mut self, doc: DocId, feed: FeedId, out: &mut Outbox<Output>) -> bool {
        let Some(feeds) = self.entries.get_mut(&doc).map(|entry| &mut entry.feeds) else { return false };
        let Some(suspect) = feeds.suspects.get(&feed).filter(|it| it.reading.is_none()) else { return false };
        let covers = |seq: &u64| feeds.here.get(&feed).is_some_and(|feed| feed.covers(*seq));
        let seq = Some(suspect.place).into_iter().chain(suspect.with).find(covers);
        let Some(seq) = seq.filter(|seq| suspect.own.is_none_or(|(of, _)| of != *seq)) else { return true };
        let coming = feeds.coming(feed, seq);
        let coming = coming.map(|it| (it.posted.id, (it.envelope.clone(), it.posted.post.clone())));
        let Some(suspect) = feeds.suspects.get_mut(&feed).filter(|suspect| !suspect.failed) else {
            return false;
        };
        let Some((id, checked)) = coming else {
            suspect.reading = Some(seq);
            let keys = vec![(Table::DocPosts, post_key(&doc, &feed, seq))];
            self.fetch(doc, Fetch::Own { feed, seq }, keys, out);
            return false;
        };
        suspect.own = Some((seq, id));
        suspect.entries.insert(id, checked);
        true
    }

    /// Takes a proof as what it is, or asks for what is missing of it.
    fn settle(&mut self, now: Time, doc: DocId, feed: FeedId, out: &mut Outbox<Output>) {
        if !self.has_own(doc, feed, out) {
            return;
        }
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let feeds = &mut entry.feeds;
        let Some(suspect) = feeds.suspects.get_mut(&feed) else { return };
        let place = suspect.place;
        if contradiction(place, &suspect.entries).is_none() {
            if suspect.asked.is_some_and(|asked| now.since(asked) < REPEAT) {
                return;
            }
            suspect.asked = Some(now);
            let by = suspect.by;
            let asked = entry.sessions.keys().copied().filter(|peer| by.is_none_or(|by| by == *peer));
            for peer in asked.collect::<Vec<_>>() {
                self.send(&doc, peer, &Message::Fetch { feed, first: place, last: place }, out);
            }
            return;
        }
        // Without room for it, it is seen again.
        if feeds.is_full() {
            return;
        }
        let Some(mut suspect) = feeds.suspects.remove(&feed) else { return };
        let own = suspect.own.filter(|(seq, _)| *seq == place).and_then(|(_, id)| suspect.entries.get(&id));
        let prev = own.and_then(|(_, post)| post.prev);
        let here = feeds.here.entry(feed).or_default();
        for envelope in here.fork.iter().filter(|fork| fork.seq == place).flat_map(|fork| &fork.entries) {
            if let Ok(post) = envelope.open::<Post>(Domain::DocPost, &self.config.network) {
                suspect.entries.insert(name(envelope), (envelope.clone(), post.into_value()));
            }
        }
        let at_place = suspect.entries.values().filter(|(_, post)| post.seq == place);
        let prevs: BTreeSet<_> = at_place.map(|(_, post)| post.prev).collect();
        let proof = contradiction(place, &suspect.entries).unwrap_or_default();
        if here.fork(place, proof, prev) {
            feeds.next().removals.push(posts_behind(&doc, &feed, place - 1));
            feeds.next().forked.insert(feed);
            feeds.touch(feed);
            let why = DocError::Refused("this node's feed forked: say it again".to_owned());
            feeds.drop_behind(feed, place - 1, &why, out);
        }
        if prevs.len() > 1 {
            self.suspect(now, doc, feed, Claim { place: place - 1, by: None }, None, out);
        }
        self.flush_feeds(doc, out);
    }

    /// Takes a peer's proof that a feed forked.
    pub(super) fn on_forked(
        &mut self,
        now: Time,
        doc: DocId,
        peer: NodeId,
        entries: Vec<Envelope>,
        out: &mut Outbox<Output>,
    ) {
        let open = |envelope: &Envelope| envelope.open::<Post>(Domain::DocPost, &self.config.network).ok();
        let opened: Option<Vec<_>> = entries.iter().map(open).collect();
        let opened = opened.unwrap_or_default();
        let feeds: BTreeSet<(DocId, FeedId)> = opened
            .iter()
            .map(|it| (it.value().doc, FeedId { author: it.author(), number: it.value().feed }))
            .collect();
        let sound = opened.iter().all(|post| post.value().is_sound());
        let place = opened.iter().map(|post| post.value().seq).min().unwrap_or_default();
        let checked = entries.iter().cloned().zip(opened.into_iter().map(|post| post.into_value()));
        let checked: BTreeMap<PostId, Checked> = checked.map(|it| (name(&it.0), it)).collect();
        let (Some((of, feed)), 1, true) = (feeds.first().copied(), feeds.len(), sound) else {
            return out.push(Output::Misbehaved { peer, why: "a proof of a fork that proves nothing" });
        };
        if of != doc || checked.len() != 2 || contradiction(place, &checked).is_none() {
            return out.push(Output::Misbehaved { peer, why: "a proof of a fork that proves nothing" });
        }
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        let fork = entry.feeds.here.get(&feed).and_then(|feed| feed.fork.as_ref());
        // Who signed it may have been let in by an operation that is not here yet: it comes again.
        if feed.number >= FEEDS_PER_AUTHOR
            || !entry.members.may_post(&feed, place)
            || fork.is_some_and(|fork| fork.seq < place || (fork.seq == place && fork.entries == entries))
            || (entry.feeds.here.len() >= FEEDS_PER_DOC_MAX && !entry.feeds.here.contains_key(&feed))
            || entry.feeds.is_full()
        {
            return;
        }
        let suspect = Suspect { place, entries: checked, ..Suspect::default() };
        entry.feeds.suspects.insert(feed, suspect);
        self.suspect(now, doc, feed, Claim { place, by: None }, None, out);
    }
}
