//! The ordered log, as the rest of a node has it: its machines woven together ([`Log`]), and what the keepers of a log
//! say to each other over their streams.
//!
//! Validators keep a stream to each other and say [`Frame`]s. Whoever follows the log asks its keepers, one question
//! at a time, an [`Ask`] with its [`Answer`].

mod log;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wattle_order::limits::MESSAGE_BYTES_MAX;
use wattle_order::{Certified, ChainEnd, ChainId, Digest, Height, Message, Proposal, Qc, catch_up, payloads};
use wattle_types::cbor;

pub use log::{Input, Log, Machines, Output};

/// Blocks in one answer.
pub const ANSWER_BLOCKS_MAX: usize = 64;
/// Bytes of blocks in one answer; with its frame it stays a message.
pub const ANSWER_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 128 * 1024;

/// What a validator says to another over the channel that it keeps open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// Which log this is about; the first frame, and no other is.
    Hello(ChainId),
    /// Of the protocol.
    Message(Box<Message>),
    /// About what is to be ordered.
    Payload(payloads::Message),
}

/// A question of one who follows the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// The committed blocks above a height, as soon as there are any.
    Blocks {
        /// Of which log.
        chain: ChainId,
        /// Above which height.
        above: Height,
        /// How long to wait if there are none yet.
        wait_ms: u64,
    },
    /// A range of committed blocks; several are asked for such at once.
    Range {
        /// Of which log.
        chain: ChainId,
        /// Which.
        range: catch_up::Range,
    },
    /// A batch that a committed block orders.
    Batch {
        /// Of which log.
        chain: ChainId,
        /// Its digest.
        batch: Digest,
    },
    /// Order these entries.
    Submit {
        /// In which log.
        chain: ChainId,
        /// Which.
        entries: Vec<ByteBuf>,
    },
    /// The newest snapshot.
    Snapshot {
        /// Of which log.
        chain: ChainId,
    },
    /// A piece of a snapshot.
    Piece {
        /// Of which log.
        chain: ChainId,
        /// Its digest.
        piece: Digest,
    },
}

impl Ask {
    /// The log that it is about.
    #[must_use]
    pub const fn chain(&self) -> ChainId {
        match self {
            Self::Blocks { chain, .. }
            | Self::Range { chain, .. }
            | Self::Batch { chain, .. }
            | Self::Submit { chain, .. }
            | Self::Snapshot { chain }
            | Self::Piece { chain, .. } => *chain,
        }
    }
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
    /// There are so many that they are better asked of several: this proves it.
    Far(Box<Qc>),
    /// What is here of a range.
    Range(catch_up::Answer),
    /// The batch's entries, if it is here.
    Batch(Option<Vec<ByteBuf>>),
    /// The entries wait there to be ordered, or are ordered already.
    Taken,
    /// No, and why.
    Refused(String),
    /// What was asked for begins before all that is kept there: up to that height there is only a snapshot.
    Compacted(Height),
    /// The newest snapshot there, if there is one.
    Snapshot(Option<Box<Certified>>),
    /// The piece, if it is there.
    Piece(Option<ByteBuf>),
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
