//! Receipts: an entry's place in the log, proved to anybody who has the genesis, with nobody's help.
//!
//! ```text
//! transaction -> batch -> payload root -> header -> (headers behind it) -> the block that a quorum commits
//! genesis -> (proof of each epoch's end) -> the validators of the receipt's epoch -> that quorum
//! ```

use serde::{Deserialize, Serialize};

use crate::block::{Header, Payload};
use crate::certificate::Qc;
use crate::check::{Rejected, Seen};
use crate::committee::Committee;
use crate::epoch::EpochProof;
use crate::ids::{ChainId, Digest, Epoch, Height};
use crate::limits::{EPOCH_LINKS_MAX, EPOCH_PROOFS_MAX};
use crate::merkle::{Path, Tree};

/// The format, so that a reader of another one says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// This one.
    #[serde(rename = "wattle order receipt v1")]
    V1,
}

/// The proof that a transaction stands at a place of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Its format.
    pub format: Format,
    /// The log.
    pub chain: ChainId,
    /// From the genesis to the epoch of the block; none for the first.
    pub epochs: Vec<EpochProof>,
    /// The hash of the transaction.
    pub transaction: Digest,
    /// From the transaction to its batch.
    pub in_batch: Path,
    /// From the batch to the block's payload.
    pub in_block: Path,
    /// The block.
    pub header: Header,
    /// The blocks behind it, up to the one that `commit` names; none if that is the block itself.
    pub links: Vec<Header>,
    /// A quorum commits the block, or one behind it.
    pub commit: Qc,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// In which epoch.
    pub epoch: Epoch,
    /// In which block.
    pub height: Height,
    /// In which of its batches.
    pub batch: u64,
    /// At which place of the batch.
    pub index: u64,
}

/// Why a receipt proves nothing. The fault of who made it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReceipt {
    /// It is of another log.
    #[error("the receipt is of log {got}, and this is {expected}")]
    OtherLog {
        /// The receipt's.
        got: ChainId,
        /// The one that is known.
        expected: ChainId,
    },
    /// A path does not lead to the block.
    #[error("the transaction does not lead to the block")]
    Path,
    /// A header does not stand on the one before, or is of another epoch than the quorum.
    #[error("the block does not lead to the one that is committed")]
    Links,
    /// The quorum commits something else.
    #[error("the certificate does not commit the block")]
    Commit,
    /// A certificate or the proof of an epoch does not hold.
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

impl Receipt {
    /// The receipt of one transaction of a committed block: `transactions` are those of its batch by their hashes,
    /// `links` the headers behind the block up to the one that `commit` names. None if there is no such transaction.
    #[must_use]
    pub fn new(
        chain: ChainId,
        epochs: Vec<EpochProof>,
        (header, payload): (&Header, &Payload),
        (batch, index): (usize, usize),
        transactions: &Tree,
        (links, commit): (Vec<Header>, Qc),
    ) -> Option<Self> {
        Some(Self {
            format: Format::V1,
            chain,
            epochs,
            transaction: transactions.leaf(index)?,
            in_batch: transactions.path(index)?,
            in_block: Tree::of(payload.batches()).path(batch)?,
            header: header.clone(),
            links,
            commit,
        })
    }

    /// Where the transaction stands, if this proves it to those who know how the log began.
    ///
    /// # Errors
    /// [`InvalidReceipt`] with the first thing that does not hold.
    pub fn verify(&self, genesis: &Committee, seen: &mut Seen) -> Result<Position, InvalidReceipt> {
        let expected = genesis.chain();
        if self.chain != expected {
            return Err(InvalidReceipt::OtherLog { got: self.chain, expected });
        }
        let payload = self.in_batch.root(&self.transaction).and_then(|batch| self.in_block.root(&batch));
        if payload != Some(self.header.payload) {
            return Err(InvalidReceipt::Path);
        }
        let too_long = self.epochs.len() > EPOCH_PROOFS_MAX || self.links.len() > EPOCH_LINKS_MAX;
        let mut last = self.header.id();
        for link in &self.links {
            if link.parent != last || link.epoch != self.header.epoch || too_long {
                return Err(InvalidReceipt::Links);
            }
            last = link.id();
        }
        if self.commit.data.commit.is_none_or(|commit| commit.block != last) {
            return Err(InvalidReceipt::Commit);
        }
        let mut committee = genesis.clone();
        for proof in &self.epochs {
            committee = proof.check(&committee, seen)?;
        }
        if self.header.epoch != committee.epoch() || too_long {
            return Err(InvalidReceipt::Links);
        }
        seen.check_qc(&committee, &self.commit)?;
        Ok(Position {
            epoch: self.header.epoch,
            height: self.header.height,
            batch: self.in_block.index,
            index: self.in_batch.index,
        })
    }
}
