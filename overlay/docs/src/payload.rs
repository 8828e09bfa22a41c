//! Changes with who vouches for them: what is written to disk and sent to peers, in one form.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use wattle_types::{DocId, Envelope, cbor};

/// Bytes of one transfer after reassembly, and of a document's changes as stored: 64 MiB of Automerge is some
/// hundred megabytes of text history.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// The newest change of an actor that is vouched for; it covers all that it builds on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Automerge's actor, 16 bytes of ours and at most 64 of other programs.
    pub actor: ByteBuf,
    /// The change's place in its actor's chain, from 1.
    pub seq: u64,
    /// The change's hash.
    pub change: ByteArray<32>,
}

/// A writer's signed word: this change, and all that it builds on, belongs to the document.
///
/// A change names its dependencies by hash and its actor's previous change is one of them, so one signature
/// on an actor's newest change vouches for the whole chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vouch {
    /// Which document.
    pub doc: DocId,
    /// Which change.
    pub root: Root,
    /// The highest epoch its author knew: a reader who knows less asks before it judges.
    pub epoch: u32,
}

/// Changes and who vouches for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// Signed [`Vouch`]es.
    pub vouches: Vec<Envelope>,
    /// Automerge chunks: single changes, or one whole document.
    pub chunks: Vec<ByteBuf>,
}

impl Payload {
    /// Bytes of it, encoded, at most.
    pub(crate) fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.len() + 16).sum();
        let vouches: usize = self.vouches.iter().map(|vouch| cbor::encode(vouch).len() + 16).sum();
        chunks + vouches + 64
    }
}
