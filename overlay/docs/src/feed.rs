//! One feed, as far as it is here: pieces of a chain of signed entries, and the proof if it forked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_types::limits::FEED_SPANS_MAX;
use wattle_types::{DocId, Envelope, FeedId, Hlc, KeyRange, Post, PostId, PostLink, Posted, UnixTime};

/// Entries that are here without a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub first: u64,
    pub last: u64,
    pub first_at: Hlc,
    /// What the first builds on.
    pub below: Option<PostLink>,
    /// The last.
    pub top: PostLink,
    /// What the last had seen.
    pub seen: Vec<PostLink>,
}

/// Two entries that contradict each other, both signed by the author: two for one place, or one there and
/// one behind it that builds on another. The feed ends before them, everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fork {
    pub seq: u64,
    /// The pair with the lowest ids that is known.
    pub entries: Vec<Envelope>,
}

/// What is here of one feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Feed {
    /// In order, with gaps between them.
    pub spans: Vec<Span>,
    pub fork: Option<Fork>,
}

/// What came of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is new and fits. Where it began one piece too many, the oldest one gave way, but for what is whole from
    /// the beginning; it had these entries.
    Kept { gone: Option<(u64, u64)> },
    /// It is here, or behind a fork, or begins one piece too many before all others.
    LeftOut,
    /// It and an entry that is here cannot both be of an honest author: the feed is not one chain from `place`
    /// on. `with` is the other one's number: the place, or the one behind it, which builds on something else.
    Conflict { place: u64, with: u64 },
}

/// Entries that are not here, from `first` to `last`; the last was written about `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub first: u64,
    pub last: u64,
    pub at: Hlc,
}

impl Feed {
    /// The newest piece.
    pub(crate) fn top(&self) -> Option<&Span> {
        self.spans.last()
    }

    /// The number of the newest entry; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.top().map_or(0, |span| span.last)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.fork.is_none()
    }

    pub(crate) fn covers(&self, seq: u64) -> bool {
        self.spans.iter().any(|span| (span.first..=span.last).contains(&seq))
    }

    fn is_behind_fork(&self, seq: u64) -> bool {
        self.fork.as_ref().is_some_and(|fork| seq >= fork.seq)
    }

    /// Adds an entry that was checked.
    pub(crate) fn insert(&mut self, id: PostId, post: &Post) -> Step {
        let seq = post.seq;
        if self.is_behind_fork(seq) {
            return Step::LeftOut;
        }
        let link = PostLink { at: post.at, id };
        let at = self.spans.partition_point(|span| span.last < seq);
        let above = self.spans.get(at);
        if let Some(span) = above.filter(|span| span.first <= seq) {
            let differs = span.last == seq && span.top != link;
            return if differs { Step::Conflict { place: seq, with: seq } } else { Step::LeftOut };
        }
        let joins_above = above.is_some_and(|span| span.first == seq + 1);
        if joins_above && above.is_some_and(|span| span.below != Some(link)) {
            return Step::Conflict { place: seq, with: seq + 1 };
        }
        let below = at.checked_sub(1).and_then(|at| self.spans.get(at));
        let joins_below = below.is_some_and(|span| span.last + 1 == seq);
        if joins_below && below.is_some_and(|span| post.prev != Some(span.top)) {
            return Step::Conflict { place: seq - 1, with: seq - 1 };
        }
        let mut gone = None;
        let mut at = at;
        let base = usize::from(self.spans.first().is_some_and(|span| span.first == 1));
        if !joins_above && !joins_below && seq > 1 && self.spans.len() - base >= FEED_SPANS_MAX - 1 {
            // What is whole from the beginning and the newest pieces stay, so what is here does not depend on
            // the order in which they came, and nobody who sends pieces makes the whole go.
            if at <= base {
                return Step::LeftOut;
            }
            let oldest = self.spans.remove(base);
            gone = Some((oldest.first, oldest.last));
            at -= 1;
        }
        let mut span = Span {
            first: seq,
            last: seq,
            first_at: post.at,
            below: post.prev,
            top: link,
            seen: post.seen.clone(),
        };
        if joins_above {
            let above = self.spans.remove(at);
            span = Span { first: seq, first_at: post.at, below: post.prev, ..above };
        }
        if joins_below && let Some(below) = self.spans.get_mut(at - 1) {
            (below.last, below.top, below.seen) = (span.last, span.top, span.seen);
        } else {
            self.spans.insert(at, span);
        }
        Step::Kept { gone }
    }

    /// The newest entries before `before` that are not here of a feed whose last is `last`, written `at`.
    pub(crate) fn gap(&self, last: u64, at: Hlc, before: u64) -> Option<Gap> {
        let last = self.fork.as_ref().map_or(last, |fork| last.min(fork.seq - 1));
        if last > self.last() && self.last() + 1 < before {
            return Some(Gap { first: self.last() + 1, last: last.min(before - 1), at });
        }
        let is_gap = |span: &&Span| span.first > 1 && span.first <= before && !self.covers(span.first - 1);
        let above = self.spans.iter().rev().find(is_gap)?;
        let first = self.spans.iter().rev().find(|span| span.last < above.first).map_or(1, |it| it.last + 1);
        Some(Gap { first, last: above.first - 1, at: above.first_at })
    }

    /// Whether anything is behind a place.
    pub(crate) fn is_behind(&self, last: u64) -> bool {
        self.last() > last || self.fork.as_ref().is_some_and(|fork| fork.seq > last)
    }

    /// Whether a place and what follows it are both here.
    pub(crate) fn goes_on_behind(&self, last: u64) -> bool {
        self.spans.iter().any(|span| span.first <= last && last < span.last)
    }

    /// Ends the feed at `last`, whose link is `top`; says whether anything was behind it.
    pub(crate) fn cut(&mut self, last: u64, top: Option<PostLink>) -> bool {
        if self.last() <= last {
            return false;
        }
        self.spans.retain(|span| span.first <= last);
        match (self.spans.last_mut().filter(|span| span.last > last), top) {
            (Some(span), Some(top)) => (span.last, span.top, span.seen) = (last, top, Vec::new()),
            (Some(_), None) => drop(self.spans.pop()),
            (None, _) => {}
        }
        true
    }

    /// Takes a proof as the end of the feed; `prev` is what the entry that was here builds on. Says whether
    /// that is news.
    pub(crate) fn fork(&mut self, seq: u64, entries: Vec<Envelope>, prev: Option<PostLink>) -> bool {
        if self.fork.as_ref().is_some_and(|fork| fork.seq < seq) {
            return false;
        }
        let fork = Fork { seq, entries };
        let news = self.fork.as_ref() != Some(&fork);
        self.fork = Some(fork);
        self.cut(seq - 1, prev);
        news
    }
}

/// Of some entries of one feed the two with the lowest ids that prove it forked at a place.
pub(crate) fn contradiction(
    place: u64,
    entries: &BTreeMap<PostId, (Envelope, Post)>,
) -> Option<Vec<Envelope>> {
    let contradict = |one: (&PostId, &Post), other: (&PostId, &Post)| {
        let link = Some(PostLink { at: one.1.at, id: *one.0 });
        one.1.seq == place && (other.1.seq == place || (other.1.seq == place + 1 && other.1.prev != link))
    };
    let pairs = entries
        .iter()
        .enumerate()
        .flat_map(|(at, one)| entries.iter().skip(at + 1).map(move |other| (one, other)));
    let mut proofs = pairs.filter(|((one, (_, a)), (other, (_, b)))| {
        contradict((one, a), (other, b)) || contradict((other, b), (one, a))
    });
    proofs.next().map(|((_, one), (_, other))| vec![one.0.clone(), other.0.clone()])
}

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub envelope: Envelope,
    pub received: UnixTime,
    pub late: bool,
}

/// The key of a feed's row: all of a document's rows begin with its id.
pub(crate) fn feed_key(doc: &DocId, feed: &FeedId) -> Vec<u8> {
    [doc.as_bytes().as_slice(), feed.author.public_key(), &feed.number.to_be_bytes()].concat()
}

/// Which document and feed a row's key names.
pub(crate) fn read_feed_key(key: &[u8]) -> Option<(DocId, FeedId)> {
    let (doc, rest) = key.split_first_chunk::<16>()?;
    let (author, number) = rest.split_first_chunk::<32>()?;
    let number = u16::from_be_bytes(number.try_into().ok()?);
    let author = wattle_types::NodeId::from_public_key(*author);
    Some((DocId::from_bytes(*doc), FeedId { author, number }))
}

/// The key of an entry.
pub(crate) fn post_key(doc: &DocId, feed: &FeedId, seq: u64) -> Vec<u8> {
    [feed_key(doc, feed).as_slice(), &seq.to_be_bytes()].concat()
}

/// The keys of the entries behind one.
pub(crate) fn posts_behind(doc: &DocId, feed: &FeedId, last: u64) -> KeyRange {
    let mut end = feed_key(doc, feed);
    end.extend([0xff; 9]);
    KeyRange::between(&post_key(doc, feed, last + 1), &end)
}

/// The keys of the entries from one to another.
pub(crate) fn posts_from(doc: &DocId, feed: &FeedId, (first, last): (u64, u64)) -> KeyRange {
    KeyRange::between(&post_key(doc, feed, first), &post_key(doc, feed, last + 1))
}

/// Opens an entry whose signature was checked before it was stored.
pub(crate) fn posted(stored: Stored, post: Post, forked: bool) -> Posted {
    Posted {
        id: PostId::from_bytes(stored.envelope.hash()),
        author: stored.envelope.author(),
        post,
        received: stored.received,
        late: stored.late,
        forked,
    }
}

/// An entry as it travels: the place is said before it, so that who has it need not check the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub number: u16,
    pub seq: u64,
    pub envelope: Envelope,
}

/// How far a feed is somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Top {
    pub feed: FeedId,
    pub last: u64,
    pub link: Option<PostLink>,
    /// Where it forked, and the two ids.
    pub fork: Option<(u64, Vec<PostId>)>,
}

impl Top {
    /// Whether it is no longer than an honest one.
    pub(crate) fn is_within_limits(&self) -> bool {
        self.fork.as_ref().is_none_or(|(_, ids)| ids.len() <= 2)
    }

    pub(crate) fn of(id: FeedId, feed: &Feed) -> Self {
        let ids = |fork: &Fork| fork.entries.iter().map(|it| PostId::from_bytes(it.hash())).collect();
        Self {
            feed: id,
            last: feed.last(),
            link: feed.top().map(|span| span.top),
            fork: feed.fork.as_ref().map(|fork| (fork.seq, ids(fork))),
        }
    }
}

/// Where a removed author's feed ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeedEnd {
    pub feed: FeedId,
    pub last: u64,
    pub link: Option<PostLink>,
}

/// What a feed's place in the fingerprint of a document's feeds is made of: equal where the same is here.
pub(crate) fn print_parts(id: &FeedId, feed: &Feed) -> ByteBuf {
    let spans: Vec<(u64, u64)> = feed.spans.iter().map(|span| (span.first, span.last)).collect();
    ByteBuf::from(wattle_types::cbor::encode(&(Top::of(*id, feed), spans)))
}
