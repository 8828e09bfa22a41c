//! Feeds: what one author appended to one document's log, signed and chained.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::limits::{POST_BYTES_MAX, POST_SEEN_MAX};
use crate::{DocId, NodeId, UnixTime};

/// A hybrid logical clock: 48 bits of Unix milliseconds and a counter of 16 (Kulkarni et al. 2014, "Logical
/// Physical Clocks", figure 5). What happened because of something else has the higher time, whatever the
/// wall clocks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(u64);

impl Hlc {
    /// The first time of a millisecond. Beyond the year 10889 it is the last that can be told.
    #[must_use]
    pub const fn at(wall: UnixTime) -> Self {
        let millis = wall.as_millis();
        Self(if millis >= 1 << 48 { u64::MAX } else { millis << 16 })
    }

    /// From its one number: milliseconds times 65536, plus the counter.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its one number.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The wall clock's part.
    #[must_use]
    pub const fn wall(self) -> UnixTime {
        UnixTime::from_millis(self.0 >> 16)
    }

    /// A time for what happens now, behind everything that was seen: the wall clock where it is ahead, else
    /// one tick more.
    #[must_use]
    pub fn tick(self, wall: UnixTime) -> Self {
        Self::at(wall).max(Self(self.0.saturating_add(1)))
    }
}

/// What names an entry: the hash of its envelope.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PostId(ByteArray<32>);

impl PostId {
    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(ByteArray::new(bytes))
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for PostId {
    type Err = InvalidPostId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes().as_chunks::<2>();
        if digits.0.len() != 32 || !digits.1.is_empty() {
            return Err(InvalidPostId);
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(digits.0) {
            let digits = std::str::from_utf8(digits).map_err(|_invalid| InvalidPostId)?;
            // `from_str_radix` takes a sign.
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(InvalidPostId);
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_invalid| InvalidPostId)?;
        }
        Ok(Self::from_bytes(bytes))
    }
}

/// Why a text names no post.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a message: 64 hexadecimal digits")]
pub struct InvalidPostId;

/// Whose feed, and which of its author's: an author whose feed forked goes on in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeedId {
    /// Who signs its entries.
    pub author: NodeId,
    /// 0 for the first.
    pub number: u16,
}

/// An entry that another builds on, with its time: so order can be checked before the other is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PostLink {
    /// Its time.
    pub at: Hlc,
    /// Its name.
    pub id: PostId,
}

/// One entry of a feed, as it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// Which document it belongs to.
    pub doc: DocId,
    /// Which of its author's feeds.
    pub feed: u16,
    /// Its place in the feed, from 1.
    pub seq: u64,
    /// When, by its author's hybrid clock.
    pub at: Hlc,
    /// The entry before it in its feed; none for the first.
    pub prev: Option<PostLink>,
    /// The newest entries of other feeds that its author had seen, in order.
    pub seen: Vec<PostLink>,
    /// What it says; its meaning is the app's.
    pub body: ByteBuf,
}

impl Post {
    /// Whether it is what an honest author makes: its time is behind everything it names, so the order of
    /// times is an order of causes; and it is within the limits.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let behind = |link: &PostLink| link.at < self.at;
        let ordered = self.seen.windows(2).all(|pair| matches!(pair, [one, other] if one < other));
        (1..POST_SEQ_END).contains(&self.seq)
            && self.prev.is_some() == (self.seq > 1)
            && self.prev.iter().chain(&self.seen).all(behind)
            && ordered
            && self.seen.len() <= POST_SEEN_MAX
            && self.body.len() <= POST_BYTES_MAX
    }
}

/// No feed has an entry here: numbers stay far from where sums would overflow.
pub const POST_SEQ_END: u64 = 1 << 48;

/// An entry whose signature and right were checked, as apps see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its name.
    pub id: PostId,
    /// Who signed it.
    pub author: NodeId,
    /// What was signed.
    pub post: Post,
    /// When it came here, by this node's clock.
    pub received: UnixTime,
    /// It came long after it was written although this node was up.
    pub late: bool,
    /// Its author signed another entry for the same place: proof of misbehaviour.
    pub forked: bool,
}

impl Posted {
    /// What others name it by.
    #[must_use]
    pub const fn link(&self) -> PostLink {
        PostLink { at: self.post.at, id: self.id }
    }

    /// Which feed it is in.
    #[must_use]
    pub const fn feed(&self) -> FeedId {
        FeedId { author: self.author, number: self.post.feed }
    }
}

/// Of some entries those that no other names: what a new one links to, the newest [`POST_SEEN_MAX`].
#[must_use]
pub fn frontier<'a>(tops: impl Iterator<Item = (&'a PostLink, &'a [PostLink])> + Clone) -> Vec<PostLink> {
    let named: BTreeSet<&PostLink> = tops.clone().flat_map(|(_, seen)| seen).collect();
    let free: BTreeSet<PostLink> =
        tops.map(|(top, _)| top).filter(|top| !named.contains(top)).copied().collect();
    let mut newest: Vec<PostLink> = free.into_iter().rev().take(POST_SEEN_MAX).collect();
    newest.reverse();
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(at: u64, id: u8) -> PostLink {
        PostLink { at: Hlc::from_bits(at), id: PostId::from_bytes([id; 32]) }
    }

    #[test]
    fn a_clock_that_is_behind_still_tells_what_came_after_what() {
        let wall = UnixTime::from_millis(1000);
        let ahead = Hlc::at(UnixTime::from_millis(61_000));
        assert!(ahead.tick(wall) > ahead);
        assert_eq!(ahead.tick(wall).wall().as_millis(), 61_000);
        assert_eq!(Hlc::at(wall).tick(UnixTime::from_millis(1001)).wall().as_millis(), 1001);
        assert_eq!(Hlc::at(UnixTime::from_millis(u64::MAX)).tick(wall), Hlc::from_bits(u64::MAX));
    }

    #[test]
    fn a_post_earlier_than_what_it_names_is_unsound() {
        let post = |at, prev, seen: &[PostLink]| Post {
            doc: DocId::from_bytes([0; 16]),
            feed: 0,
            seq: 2,
            at: Hlc::from_bits(at),
            prev,
            seen: seen.to_vec(),
            body: ByteBuf::new(),
        };
        assert!(post(9, Some(link(8, 1)), &[link(1, 2), link(2, 1)]).is_sound());
        assert!(!post(9, Some(link(9, 1)), &[]).is_sound(), "not behind the one before it");
        assert!(!post(9, Some(link(8, 1)), &[link(9, 2)]).is_sound(), "not behind what it saw");
        assert!(!post(9, Some(link(8, 1)), &[link(2, 1), link(1, 2)]).is_sound(), "out of order");
        assert!(!post(9, None, &[]).is_sound(), "a second entry without a first");
        let mut first = post(9, None, &[]);
        first.seq = 1;
        assert!(first.is_sound());
        first.seq = POST_SEQ_END;
        assert!(!first.is_sound());
    }

    #[test]
    fn the_frontier_is_what_nobody_has_seen() {
        let (a, b, c) = (link(1, 1), link(2, 2), link(3, 3));
        let seen_a = [a];
        let tops = [(&a, &[][..]), (&b, &seen_a[..]), (&c, &[][..])];
        assert_eq!(frontier(tops.into_iter()), [b, c]);
    }

    #[test]
    fn a_post_id_reads_as_it_is_written() {
        let id = PostId::from_bytes([0xa5; 32]);
        assert_eq!(id.to_string().parse::<PostId>().unwrap(), id);
        for wrong in ["", "a5", &"+5".repeat(32), &"g0".repeat(32)] {
            assert!(wrong.parse::<PostId>().is_err(), "{wrong}");
        }
    }
}
