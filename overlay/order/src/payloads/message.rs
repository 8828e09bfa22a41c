//! What nodes say to each other about payloads, over streams that prove who holds the other end.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_types::cbor;

use crate::ids::Digest;
use crate::limits::MESSAGE_BYTES_MAX;

/// One message, nothing of it checked. It needs no signature: a batch is named by its hash, and the rest concerns the
/// two ends only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Entries for whoever may order them: from a node that is no validator.
    Entries(Vec<ByteBuf>),
    /// A batch of the sender's own.
    Batch(Vec<ByteBuf>),
    /// The sender has this batch on disk.
    Have(Digest),
    /// Send me this batch.
    Fetch(Digest),
    /// A batch that was asked for.
    Fetched(Vec<ByteBuf>),
    /// It was asked for, and is not here.
    Lacks(Digest),
}

impl Message {
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
