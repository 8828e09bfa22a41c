//! What two replicas say to each other about one document.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::{DocTag, Envelope, FeedId, NodeId, cbor};

use crate::access::{OpHash, Refusal};
use crate::feed::{Sent, Top};
use crate::payload::Payload;
use crate::repo::{PeerId, SessionId};

/// Bytes of a transfer in one frame: small enough that another document's edit waits a few milliseconds.
pub(crate) const PART_BYTES: usize = 256 * 1024;

/// Bytes of one frame: a part or all operations, and what is around them.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Heads of a document that a message may name. Two replicas that edit at once make one each.
pub(crate) const HEADS_MAX: usize = 1024;

/// Members that a message may name as authors.
pub(crate) const AUTHORS_MAX: usize = 1024;

/// Bytes of something said in passing.
pub const SIGNAL_BYTES_MAX: usize = 1024;
/// Bytes that a program may say in one message of presence: a name, a colour and a few cursors.
pub const PRESENCE_BYTES_MAX: usize = 1024;

/// A random number used once.
pub(crate) type Nonce = ByteArray<16>;

/// One message about the document with the tag in front of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// 1. I would talk about this document, if you know it.
    Hello { nonce: Nonce },
    /// 2. Answered for every tag, known or not: the proof of who does not hold the secret is as random.
    Challenge { nonce: Nonce, asked: Nonce, proof: ByteArray<32> },
    /// 3. I hold the read secret too; and, coming with a ticket, this lets me in.
    Prove { asked: Nonce, proof: ByteArray<32>, redeem: Option<Envelope> },
    /// You hold the secret, and yet.
    Refused { why: Refusal },
    /// The operations I have; answer with your list if I lack some.
    Operations { hashes: Vec<OpHash> },
    /// Operations you lack.
    Learn { operations: Vec<Envelope> },
    /// Where my replica stands. Equal to yours: done.
    Summary { control: ByteArray<32>, heads: Vec<ByteArray<32>>, feeds: ByteArray<32> },
    /// Send what I lack: I have these heads, and of each actor the changes up to a number.
    Want { heads: Vec<ByteArray<32>>, clock: Vec<(ByteBuf, u64)> },
    /// One part of a transfer.
    Part { transfer: u32, part: u32, parts: u32, bytes: ByteBuf },
    /// Send the next part.
    More { transfer: u32, part: u32 },
    /// What these members write comes to me on a shorter way: pass none of it on unasked, until I ask for something.
    Prune { authors: Vec<NodeId> },
    /// How far these feeds are here, on disk.
    Feeds { tops: Vec<Top> },
    /// Send what you have of these entries, the newest first.
    Fetch { feed: FeedId, first: u64, last: u64 },
    /// Entries, new or asked for.
    Posts { posts: Vec<Sent>, asked: Option<FeedId> },
    /// Something in passing, from who holds the other end of the channel.
    Signal { bytes: ByteBuf },
    /// Two entries for one place: their author's feed ends there.
    Forked { entries: Vec<Envelope> },
    /// What a program says to all who have the document open: passed on once, never stored.
    Ephemeral { sender: PeerId, session: SessionId, count: u64, data: ByteBuf },
}

/// A frame as it crosses the channel: the tag, then the message.
pub(crate) fn frame(tag: &DocTag, message: &Message) -> Vec<u8> {
    let mut bytes = tag.as_bytes().to_vec();
    bytes.extend(cbor::encode(message));
    bytes
}

/// The tag and the undecoded message of a frame.
pub(crate) fn split(frame: &[u8]) -> Option<(DocTag, &[u8])> {
    let (tag, message) = frame.split_first_chunk::<16>()?;
    Some((DocTag::from_bytes(*tag), message))
}

/// Whether an undecoded message is no part of a transfer, by the name that it begins with: a map of one pair, whose key
/// is a short text. Of one that is written in another way it is not known.
pub(crate) fn holds_no_changes(message: &[u8]) -> bool {
    let Some((&[0xa1, name @ 0x61..=0x77], rest)) = message.split_first_chunk() else { return false };
    rest.get(..usize::from(name - 0x60)).is_some_and(|name| name != b"Part")
}

/// The changes that an undecoded message holds, where it is all of a transfer.
pub(crate) fn all_changes(message: &[u8]) -> Option<Payload> {
    match cbor::decode(message, FRAME_BYTES_MAX) {
        Ok(Message::Part { parts: 1, bytes, .. }) => cbor::decode(&bytes, FRAME_BYTES_MAX).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
