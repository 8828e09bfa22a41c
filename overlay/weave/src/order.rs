//! The ordered log, as the rest of a node has it: what an entry is, which payloads may be voted for, and what the
//! keepers of a log say to each other beside the votes.
//!
//! An **entry** is what somebody submits: for which app, until when, with what bytes. The log orders its encoding, so
//! its hash names it: the same entry submitted twice, here or elsewhere, is ordered once. After its time it never is,
//! so nobody is left in doubt about it for long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_order::limits::{INLINE_BYTES_MAX, INLINE_COUNT_MAX, MESSAGE_BYTES_MAX};
use wattle_order::{
    BlockId, ChainEnd, ChainId, Digest, Height, Message, Payload, Proposal, Verdict, transaction_hash,
};
use wattle_types::{UnixTime, cbor};

/// Bytes of one entry: two fit into a block that carries its entries itself.
pub const ENTRY_BYTES_MAX: usize = INLINE_BYTES_MAX / 2;
/// Bytes of the name of an entry's app.
pub const ENTRY_APP_BYTES_MAX: usize = 32;
/// Blocks in one answer.
pub const ANSWER_BLOCKS_MAX: usize = 64;
/// Bytes of blocks in one answer; with its frame it stays a message.
pub const ANSWER_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 128 * 1024;
/// Entries in one frame.
pub const ENTRIES_MAX: usize = 64;

/// How far ahead the time may lie until which an entry may be ordered.
pub const ENTRY_LIFE_MAX: Duration = Duration::from_secs(120);

/// What somebody submits to the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// For which app: `register/1`.
    pub app: String,
    /// In the app's own form.
    pub data: ByteBuf,
    /// In no block whose time is later.
    pub until: UnixTime,
    /// Tells apart two entries that say the same; who submits one again keeps it.
    pub salt: u64,
}

/// Why bytes are no entry, or one that is not taken. The fault of who sent them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntry {
    /// Too many.
    #[error("an entry of {got} bytes; at most {ENTRY_BYTES_MAX} are ordered at once")]
    TooLarge {
        /// How many.
        got: usize,
    },
    /// It says nothing.
    #[error("an entry without data")]
    Empty,
    /// The app's name is none.
    #[error("`{0}` is no app's name: small letters, digits and hyphens, and a version, as in `register/1`")]
    App(String),
    /// Not an entry at all.
    #[error("not an entry: {0}")]
    Malformed(#[from] cbor::DecodeError),
}

fn is_app_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let Some((name, version)) = name.split_once('/') else { return false };
    let numbered = (1..=4).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_digit());
    (1..=ENTRY_APP_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) && numbered
}

impl Entry {
    /// As it is ordered.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// From what is ordered.
    ///
    /// # Errors
    /// [`InvalidEntry`].
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidEntry> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(InvalidEntry::TooLarge { got: bytes.len() });
        }
        let entry: Self = cbor::decode(bytes, ENTRY_BYTES_MAX)?;
        if entry.data.is_empty() {
            return Err(InvalidEntry::Empty);
        }
        if is_app_name(&entry.app) { Ok(entry) } else { Err(InvalidEntry::App(entry.app)) }
    }

    /// Whether it may stand in a block of this time.
    #[must_use]
    pub fn lives_at(&self, time: UnixTime) -> bool {
        self.until >= time && self.until <= time.after(ENTRY_LIFE_MAX)
    }
}

/// What a validator says to another over the channel that it keeps open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// Which log this is about; the first frame, and no other is.
    Hello(ChainId),
    /// Of the protocol.
    Message(Box<Message>),
    /// Entries that were submitted to the sender, so that whoever leads next may order them.
    Entries(Vec<ByteBuf>),
}

/// A question of one who follows the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// The committed blocks above a height.
    Blocks {
        /// Of which log.
        chain: ChainId,
        /// Above which height.
        above: Height,
        /// How long to wait if there are none yet.
        wait_ms: u64,
    },
    /// Order these entries.
    Submit {
        /// In which log.
        chain: ChainId,
        /// Which.
        entries: Vec<ByteBuf>,
    },
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Blocks, each the parent of the next; none when there were none in time.
    Blocks {
        /// The blocks.
        blocks: Vec<Proposal>,
        /// What proves the last of them.
        end: Option<Box<ChainEnd>>,
        /// How far the answerer is.
        height: Height,
    },
    /// The entries wait there to be ordered, or are ordered already.
    Taken,
    /// No, and why.
    Refused(String),
}

macro_rules! travels {
    ($($name:ident)*) => {$(
        impl $name {
            /// As it travels.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                cbor::encode(self)
            }

            /// From what came.
            ///
            /// # Errors
            /// [`cbor::DecodeError`]: the sender's fault.
            pub fn decode(bytes: &[u8]) -> Result<Self, cbor::DecodeError> {
                cbor::decode(bytes, MESSAGE_BYTES_MAX)
            }
        }
    )*};
}

travels! { Frame Ask Answer }

/// The entries that a block carries itself.
#[must_use]
pub fn entries(payload: &Payload) -> &[ByteBuf] {
    match payload {
        Payload::Inline(entries) => entries,
        Payload::Batches(_) => &[],
    }
}

/// The entries of blocks that are not committed yet, to order none twice. As many blocks as the machine keeps.
#[derive(Debug, Default)]
pub struct Open {
    blocks: BTreeMap<BlockId, OpenBlock>,
}

#[derive(Debug)]
struct OpenBlock {
    parent: BlockId,
    height: Height,
    time: UnixTime,
    hashes: Vec<Digest>,
}

impl Open {
    /// Takes note of a block.
    pub fn note(&mut self, block: &Proposal) {
        let header = block.header();
        self.blocks.entry(header.id()).or_insert_with(|| OpenBlock {
            parent: header.parent,
            height: header.height,
            time: header.time,
            hashes: entries(&block.block.payload).iter().map(|entry| transaction_hash(entry)).collect(),
        });
    }

    /// The hashes of a block's entries, in order; none if it is not known.
    #[must_use]
    pub fn hashes(&self, block: &BlockId) -> Option<&[Digest]> {
        self.blocks.get(block).map(|open| open.hashes.as_slice())
    }

    /// The time of a block, if it is known.
    #[must_use]
    pub fn time(&self, block: &BlockId) -> Option<UnixTime> {
        self.blocks.get(block).map(|open| open.time)
    }

    /// What is ordered from a block down to the committed tip.
    #[must_use]
    pub fn taken(&self, from: &BlockId) -> BTreeSet<Digest> {
        let chain = std::iter::successors(self.blocks.get(from), |open| self.blocks.get(&open.parent));
        chain.flat_map(|open| open.hashes.iter().copied()).collect()
    }

    /// Forgets blocks up to a height, and says which they were.
    pub fn prune(&mut self, tip: Height) -> Vec<(Height, BlockId)> {
        let gone = self.blocks.iter().filter(|(_, open)| open.height <= tip);
        let gone: Vec<_> = gone.map(|(id, open)| (open.height, *id)).collect();
        gone.iter().for_each(|(_, id)| drop(self.blocks.remove(id)));
        gone
    }
}

/// Whether a block's payload may be voted for (rule V6): entries, and none of them twice on one chain. `is_ordered`
/// says which are committed. A block that names other validators is refused: nobody may change them yet.
#[must_use]
pub fn judge(
    block: &Proposal,
    taken: &BTreeSet<Digest>,
    mut is_ordered: impl FnMut(&Digest) -> bool,
) -> Verdict {
    let Payload::Inline(entries) = &block.block.payload else {
        return if block.block.payload.is_empty() && block.block.next.is_none() {
            Verdict::Valid
        } else {
            Verdict::Invalid
        };
    };
    let mut seen = BTreeSet::new();
    let good = |entry: &ByteBuf| {
        let hash = transaction_hash(entry);
        let new = !taken.contains(&hash) && !is_ordered(&hash) && seen.insert(hash);
        new && Entry::decode(entry).is_ok_and(|entry| entry.lives_at(block.header().time))
    };
    let valid = block.block.next.is_none() && entries.iter().all(good);
    if valid { Verdict::Valid } else { Verdict::Invalid }
}

/// As many of the entries, in their order, as one block carries itself.
#[must_use]
pub fn fill<'a>(
    waiting: impl IntoIterator<Item = (&'a Digest, &'a ByteBuf)>,
    taken: &BTreeSet<Digest>,
) -> Payload {
    let (mut chosen, mut bytes) = (Vec::new(), 0);
    for (hash, entry) in waiting {
        if taken.contains(hash) {
            continue;
        }
        if chosen.len() >= INLINE_COUNT_MAX || bytes + entry.len() > INLINE_BYTES_MAX {
            break;
        }
        bytes += entry.len();
        chosen.push(entry.clone());
    }
    if chosen.is_empty() { Payload::empty() } else { Payload::Inline(chosen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(salt: u64, data: &[u8]) -> Entry {
        let until = UnixTime::from_millis(1000);
        Entry { app: "note/1".to_owned(), data: ByteBuf::from(data), until, salt }
    }

    #[test]
    fn an_entry_has_one_encoding_a_size_and_an_app_with_a_version() {
        let good = entry(1, b"put a");
        let bytes = good.encode();
        assert_eq!(Entry::decode(&bytes), Ok(good.clone()));
        assert!(Entry::decode(&[bytes, vec![0]].concat()).is_err());
        for app in ["", "note", "Note/1", "note/", "note/x", "a b/1"] {
            let shouts = Entry { app: app.to_owned(), ..good.clone() };
            assert!(matches!(Entry::decode(&shouts.encode()), Err(InvalidEntry::App(_))), "{app}");
        }
        assert_eq!(Entry::decode(&entry(1, b"").encode()), Err(InvalidEntry::Empty));
        let large = entry(1, &[0; ENTRY_BYTES_MAX]).encode();
        assert!(matches!(Entry::decode(&large), Err(InvalidEntry::TooLarge { .. })));
        assert!(Entry::decode(&entry(1, &[0; ENTRY_BYTES_MAX - 64]).encode()).is_ok());
    }

    #[test]
    fn an_entry_lives_up_to_its_time_and_not_from_too_far_before() {
        let at = |millis| entry(1, b"x").lives_at(UnixTime::from_millis(millis));
        assert!(at(0) && at(1000) && !at(1001));
        let far = Entry { until: UnixTime::from_millis(120_001), ..entry(1, b"x") };
        assert!(!far.lives_at(UnixTime::from_millis(0)) && far.lives_at(UnixTime::from_millis(1)));
    }

    #[test]
    fn a_block_is_filled_in_order_up_to_its_bytes_and_without_what_is_taken() {
        let encoded = |salt: u64, size: usize| ByteBuf::from(entry(salt, &vec![0; size]).encode());
        let waiting: Vec<(Digest, ByteBuf)> =
            (0..9).map(|id| encoded(id, 10_000)).map(|bytes| (transaction_hash(&bytes), bytes)).collect();
        let taken = BTreeSet::from([waiting[0].0]);
        let payload = fill(waiting.iter().map(|(hash, entry)| (hash, entry)), &taken);
        let expected: Vec<ByteBuf> = waiting[1..4].iter().map(|(_, entry)| entry.clone()).collect();
        assert_eq!(payload, Payload::Inline(expected));
        assert!(payload.is_within_limits());
        assert_eq!(fill([], &taken), Payload::empty());
    }
}
