//! Durable before it leaves, as a type.
//!
//! A signed message is made as a [`Gated`]: its content cannot be had before the disk has everything up to the
//! record that covers it. Records reach the disk in the order of their numbers, so one number says enough.

use serde::{Deserialize, Serialize};

use crate::block::Proposal;
use crate::certificate::{Qc, Tc, Timeout, Vote};
use crate::committee::Committee;
use crate::epoch::EpochProof;
use crate::ids::{BlockId, Epoch, Height, Round, Seq};
use crate::limits::UNPERSISTED_MAX;
use crate::tree::Root;

/// What a validator must never forget. It is written whole, each time before a signature leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafetyRecord {
    /// The epoch that it speaks of.
    pub epoch: Epoch,
    /// The highest round voted or timed out in. No vote in it or below it.
    pub last_round: Round,
    /// The last vote, to be sent again as it is.
    pub last_vote: Option<Vote>,
    /// The last timeout, to be sent again as it is.
    pub last_timeout: Option<Timeout>,
    /// What was proposed last. No proposal in that round or below it.
    pub last_proposal: Option<(Round, BlockId)>,
    /// The lock (rule L): the highest certificate, monotone, never forgotten.
    pub high_qc: Qc,
    /// The highest certificate that a round timed out: with `high_qc` it says the round after a restart (R).
    pub high_tc: Option<Tc>,
    /// The highest round timed out in.
    pub highest_timeout_round: Round,
    /// Rule K: this key signed in that round of the epoch, and nothing here knows of it. It signs nothing more in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renounced: Option<Round>,
}

impl SafetyRecord {
    /// The record of a key that signed nothing in this epoch.
    #[must_use]
    pub fn fresh(committee: &Committee) -> Self {
        Self {
            epoch: committee.epoch(),
            last_round: Round(0),
            last_vote: None,
            last_timeout: None,
            last_proposal: None,
            high_qc: Qc::genesis(committee),
            high_tc: None,
            highest_timeout_round: Round(0),
            renounced: None,
        }
    }
}

/// What goes to disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Replaces the one before.
    Safety(Box<SafetyRecord>),
    /// A block above the committed tip.
    Block(Box<Proposal>),
    /// The tip moved: these are committed, and blocks at or below the height that are not among them are not.
    Commit {
        /// The blocks, ascending.
        blocks: Vec<BlockId>,
        /// The height of the last.
        height: Height,
        /// The certificate that commits it.
        proof: Box<Qc>,
        /// What the tree stands on from here.
        root: Box<Root>,
    },
    /// The epoch ended: its last commit, and the safety record of the next, in one step.
    Epoch {
        /// The blocks that are committed by it, ascending.
        blocks: Vec<BlockId>,
        /// The proof.
        proof: Box<EpochProof>,
        /// The safety record of the new epoch.
        safety: Box<SafetyRecord>,
    },
}

/// Something that may not leave before the disk has the records up to a number.
#[derive(Debug)]
pub(crate) struct Gated<T> {
    value: T,
    seq: Seq,
}

impl<T> Gated<T> {
    /// The same for what is made of it; the gate stays.
    pub(crate) fn map<U>(self, make: impl FnOnce(T) -> U) -> Gated<U> {
        Gated { value: make(self.value), seq: self.seq }
    }

    /// A look at it, for what does not leave this machine.
    pub(crate) const fn peek(&self) -> &T {
        &self.value
    }
}

/// The records on their way to the disk.
#[derive(Debug)]
pub(crate) struct Journal {
    last: Seq,
    durable: Seq,
    failed: bool,
    waiting: Vec<(Seq, Record)>,
}

impl Journal {
    pub(crate) const fn new() -> Self {
        Self { last: Seq(0), durable: Seq(0), failed: false, waiting: Vec::new() }
    }

    /// Appends a record.
    pub(crate) fn append(&mut self, record: Record) {
        self.last = self.last.next();
        self.waiting.push((self.last, record));
    }

    /// Binds a value to everything appended so far.
    pub(crate) const fn gate<T>(&self, value: T) -> Gated<T> {
        Gated { value, seq: self.last }
    }

    /// The disk has everything up to a number; one that was never given is taken for the last.
    pub(crate) fn on_persisted(&mut self, upto: Seq) {
        self.durable = self.durable.max(upto.min(self.last));
    }

    /// The disk failed. Nothing after it is durable, so nothing is released or signed any more.
    pub(crate) const fn on_failed(&mut self) {
        self.failed = true;
    }

    /// Gives out a value whose records are on disk, and keeps any other back.
    pub(crate) fn release<T>(&self, gated: Gated<T>) -> Result<T, Gated<T>> {
        if gated.seq <= self.durable && !self.failed { Ok(gated.value) } else { Err(gated) }
    }

    /// Whether more may be signed: the disk works and is not far behind.
    pub(crate) const fn accepts(&self) -> bool {
        !self.failed && self.last.0 - self.durable.0 < UNPERSISTED_MAX
    }

    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    pub(crate) const fn durable(&self) -> Seq {
        self.durable
    }

    /// The records that were not handed out yet.
    pub(crate) fn take(&mut self) -> Vec<(Seq, Record)> {
        std::mem::take(&mut self.waiting)
    }
}
