//! What validators say to each other, over streams that prove who holds the other end.

use serde::{Deserialize, Serialize};
use wattle_types::cbor;

use crate::block::Proposal;
use crate::certificate::{Qc, Tc, Timeout, Vote};
use crate::epoch::EpochProof;
use crate::evidence::Evidence;
use crate::ids::{BlockId, Height};
use crate::limits::MESSAGE_BYTES_MAX;

/// One message, nothing of it checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A leader's block.
    Proposal(Proposal),
    /// A vote, for the leader of the next round.
    Vote(Vote),
    /// A round took too long.
    Timeout(Timeout),
    /// The certificates that lead into the sender's round.
    Certificates {
        /// The highest of a block.
        qc: Qc,
        /// The highest of a timeout, if it is higher.
        tc: Option<Tc>,
    },
    /// Send me this block, and those before it that are above a height.
    Fetch {
        /// Which block.
        block: BlockId,
        /// What the asker has.
        above: Height,
    },
    /// Blocks that were asked for, each the parent of the next.
    Blocks(Vec<Proposal>),
    /// Somebody broke the protocol.
    Evidence(Evidence),
    /// The epoch that you are in is over; this leads out of it.
    EpochEnded(EpochProof),
    /// I have just started: where are you, and what did you last hear of me?
    Started,
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
