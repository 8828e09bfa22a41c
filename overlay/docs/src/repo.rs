//! The protocol that automerge-repo speaks to its server over a WebSocket, version 1: one message a frame.
//!
//! # What it does
//!
//! Reads what a JavaScript client sends and writes what it accepts. Local programs and browser pages come in
//! by this protocol; between nodes another one is spoken.
//!
//! # Source
//!
//! automerge-repo 2.5.6: `packages/automerge-repo/src/network/messages.ts`,
//! `packages/automerge-repo-network-websocket/src/messages.ts` and `README.md` there.
//!
//! # Protocol
//!
//! 1. The client sends `join` with its id and the versions it speaks; the server answers `peer` with the
//!    version it chose, or `error` and closes.
//! 2. From then on either sends `request` (a first `sync`, from one who lacks the document), `sync`,
//!    `doc-unavailable` and `ephemeral` at any time, each for one document.
//! 3. `ephemeral` is passed on to others with the first sender's id, count and session; a receiver drops what
//!    is not newer than the last count of a session.
//! 4. `remote-subscription-change` and `remote-heads-changed` gossip about third replicas. Who ignores them
//!    loses nothing but the gossip.
//!
//! # Deviations
//!
//! * What a message says twice is refused; cbor-x takes the last.
//! * An empty `data` is read; automerge-repo throws when it is to send one, so write none.
//!
//! # Bounds
//!
//! A frame has at most [`FRAME_BYTES_MAX`]; nothing that is read is held in more memory than it has bytes,
//! but for the few texts with a cap of their own. Nesting is capped by [`CBOR_DEPTH_MAX`].
//!
//! # Not here
//!
//! Who may say what: that the sender of a frame is the one who joined is for the session to check. What is
//! inside `data`: [`crate::chunk::inspect_sync`] bounds it.
//!
//! [`CBOR_DEPTH_MAX`]: wattle_types::limits::CBOR_DEPTH_MAX

mod ids;
#[cfg(test)]
mod tests;
mod wire;

pub use ids::{DocumentId, InvalidText, PeerId, ProtocolVersion, SessionId, StorageId};

/// Largest frame, in bytes: a document of that size is sent whole, in one sync message.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of an id. automerge-repo makes ids of 12 to 36; programs may choose their peer's.
pub const ID_BYTES_MAX: usize = 256;

/// Bytes of the reason in an `error`: it is for people.
pub const REASON_BYTES_MAX: usize = 4096;

/// Versions that a `join` may name. There is one.
pub const VERSIONS_MAX: usize = 16;

/// What a peer says of itself when it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMetadata {
    /// Where it stores documents; peers of one store are one replica.
    pub storage: Option<StorageId>,
    /// It stores nothing for long: what was synced with it need not be remembered.
    pub ephemeral: bool,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The client's first: who it is.
    Join {
        /// The client.
        sender: PeerId,
        /// What it says of itself.
        metadata: PeerMetadata,
        /// Versions it speaks; [`ProtocolVersion::ONE`] alone when it names none.
        versions: Vec<ProtocolVersion>,
    },
    /// The server's answer to `join`.
    Peer {
        /// The server.
        sender: PeerId,
        /// The client.
        target: PeerId,
        /// What the server says of itself.
        metadata: PeerMetadata,
        /// The version both speak now.
        version: ProtocolVersion,
    },
    /// The sender goes; the connection closes.
    Leave {
        /// Who goes.
        sender: PeerId,
    },
    /// Something is wrong; the sender closes the connection.
    Error {
        /// Who refuses.
        sender: PeerId,
        /// Who is refused.
        target: PeerId,
        /// Why, for people.
        reason: String,
    },
    /// A first sync message of one who lacks the document.
    Request(Sync),
    /// A sync message of automerge.
    Sync(Sync),
    /// The sender lacks the document, and so do those it could ask.
    Unavailable {
        /// Who lacks it.
        sender: PeerId,
        /// Who asked.
        target: PeerId,
        /// The document.
        document: DocumentId,
    },
    /// Presence and the like: passed on, never stored.
    Ephemeral(Ephemeral),
    /// The sender wants to hear of other stores' heads, or no longer. Which ones is not read.
    RemoteSubscriptionChange {
        /// Who wants to hear.
        sender: PeerId,
        /// Of whom it is asked.
        target: PeerId,
    },
    /// Another store's heads changed. Which ones is not read.
    RemoteHeadsChanged {
        /// Who tells.
        sender: PeerId,
        /// Who is told.
        target: PeerId,
        /// The document.
        document: DocumentId,
    },
    /// A well-formed message of a type that this version does not know; to be ignored.
    Unknown {
        /// Its type, cut to [`ID_BYTES_MAX`].
        kind: String,
    },
}

/// A sync message of automerge for one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Who syncs.
    pub sender: PeerId,
    /// With whom.
    pub target: PeerId,
    /// The document.
    pub document: DocumentId,
    /// The message of `automerge::sync`, unchecked.
    pub data: Vec<u8>,
}

/// Bytes of an application for all who have a document open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ephemeral {
    /// Who said it first: not who passed it on.
    pub sender: PeerId,
    /// For whom this copy is.
    pub target: PeerId,
    /// The document.
    pub document: DocumentId,
    /// Grows with every message of a session.
    pub count: u64,
    /// One run of the sender.
    pub session: SessionId,
    /// What the application says: CBOR as cbor-x writes it, unchecked.
    pub data: Vec<u8>,
}

/// Why a frame is no message. The sender's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Refused before anything was read or allocated.
    #[error("a frame of {got} bytes is over the {max} allowed")]
    TooLarge {
        /// Bytes received.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not CBOR, nested too deeply, or a field has the wrong type or is there twice.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A message of a known type lacks a field.
    #[error("{kind} without {field}")]
    Missing {
        /// The type of the message.
        kind: &'static str,
        /// The field it lacks.
        field: &'static str,
    },
    /// A whole message, then more bytes.
    #[error("{0} bytes after the message")]
    Trailing(usize),
}

impl Message {
    /// Reads one frame.
    ///
    /// # Errors
    /// [`DecodeError`] when it is no message. A type that is not known is no error: [`Message::Unknown`].
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(DecodeError::TooLarge { got: frame.len(), max: FRAME_BYTES_MAX });
        }
        wire::decode(frame)
    }

    /// The frame that a JavaScript peer reads as this message. What was not read of the gossip about third
    /// replicas, or of an unknown message, is not written either.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }
}
