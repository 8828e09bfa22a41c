//! What the disk has, and how a node goes on from it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use wattle_types::{Outbox, SecretKey, Time};

use super::{Alarm, Core, Counts, Output, Turn};
use crate::block::Proposal;
use crate::certificate::Qc;
use crate::check::{Checked, Checker, Rejected, Seen, Sound};
use crate::collect::{Timeouts, Votes, Witness};
use crate::committee::Committee;
use crate::config::Config;
use crate::epoch::EpochProof;
use crate::ids::{BlockId, Round};
use crate::journal::{Journal, Record, SafetyRecord};
use crate::limits::{EPOCHS_KEPT_MAX, KEPT_BLOCKS_MAX};
use crate::message::Message;
use crate::safety::Safety;
use crate::tree::{Root, Tree};

/// Why records are no log. Nothing may be signed with them; see the message for what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// A block on this disk does not verify: the disk or the genesis is not the one it was.
    #[error("a block on disk does not verify ({0}): restore the data directory, or join with an empty one")]
    Block(Rejected),
    /// A certificate in the safety record does not.
    #[error(
        "the safety record on disk does not verify ({0}): restore the data directory, or join with an empty one"
    )]
    Safety(Rejected),
    /// The proof of an epoch's end does not.
    #[error(
        "an epoch proof on disk does not verify ({0}): restore the data directory, or join with an empty one"
    )]
    Epoch(Rejected),
}

/// What the disk has of the log.
#[derive(Clone, Debug)]
pub struct Recovered {
    committee: Arc<Committee>,
    safety: Option<SafetyRecord>,
    root: Option<Root>,
    proof: Option<Qc>,
    blocks: BTreeMap<BlockId, Checked<Proposal>>,
    kept: VecDeque<Checked<Proposal>>,
    past_epochs: VecDeque<EpochProof>,
}

impl Recovered {
    /// Reads records in the order in which they were written; a torn one at the end is left out before, since nothing
    /// it covers has left.
    ///
    /// # Errors
    /// [`Corrupt`] when a record is not what was written.
    pub fn read(
        genesis: Arc<Committee>,
        seen: &mut Seen,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, Corrupt> {
        let mut read = Self::none(genesis);
        for record in records {
            match record {
                Record::Safety(safety) => {
                    let lock = seen.check_qc(&read.committee, &safety.high_qc);
                    let tc = safety.high_tc.iter().try_for_each(|tc| seen.check_tc(&read.committee, tc));
                    lock.and(tc).map_err(Corrupt::Safety)?;
                    read.safety = Some(*safety);
                }
                Record::Block(block) => read.read_block(seen, *block)?,
                Record::Commit { blocks, height, proof, root } => {
                    read.keep(&blocks);
                    read.blocks.retain(|_, block| block.header().height > height);
                    read.root = Some(*root);
                    read.proof = Some(*proof);
                }
                Record::Epoch { blocks, proof, safety } => {
                    read.keep(&blocks);
                    let next = proof.check(&read.committee, seen).map_err(Corrupt::Epoch)?;
                    read.past_epochs.push_back(*proof);
                    let extra = read.past_epochs.len().saturating_sub(EPOCHS_KEPT_MAX);
                    read.past_epochs.drain(..extra);
                    (read.committee, read.safety) = (Arc::new(next), Some(*safety));
                    (read.root, read.proof) = (None, None);
                    read.blocks.clear();
                }
            }
        }
        Ok(read)
    }

    fn keep(&mut self, committed: &[BlockId]) {
        self.kept.extend(committed.iter().filter_map(|id| self.blocks.remove(id)));
        let extra = self.kept.len().saturating_sub(KEPT_BLOCKS_MAX);
        self.kept.drain(..extra);
    }

    /// Nothing: the log begins.
    #[must_use]
    pub fn none(genesis: Arc<Committee>) -> Self {
        Self {
            committee: genesis,
            safety: None,
            root: None,
            proof: None,
            blocks: BTreeMap::new(),
            kept: VecDeque::new(),
            past_epochs: VecDeque::new(),
        }
    }

    /// The same in an epoch that these proofs lead to: others are led out of theirs by them.
    #[must_use]
    pub fn after(mut self, proofs: Vec<EpochProof>) -> Self {
        let extra = proofs.len().saturating_sub(EPOCHS_KEPT_MAX);
        self.past_epochs = proofs.into_iter().skip(extra).collect();
        self
    }

    /// The epoch that the disk is in.
    #[must_use]
    pub const fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    fn read_block(&mut self, seen: &mut Seen, block: Proposal) -> Result<(), Corrupt> {
        let checker = Checker::new(Arc::clone(&self.committee));
        let checked = checker.check(seen, Message::Proposal(block)).map_err(Corrupt::Block)?;
        if let Sound::Proposal(block) = checked {
            self.blocks.insert(block.id(), block);
        }
        Ok(())
    }
}

pub(super) fn begin(config: Config, key: SecretKey, recovered: Recovered) -> Core {
    let Recovered { committee, safety, root, proof, blocks, kept, past_epochs } = recovered;
    let me = key.node_id();
    // The first record of a log is a safety record, so blocks without one mean that it is lost; and who does not
    // know what it signed must not sign (the persist-before-send table's last line).
    let lost = safety.is_none() && (root.is_some() || !blocks.is_empty());
    let safety = Safety::new(key, &committee, safety, !lost);
    let root = root.unwrap_or_else(|| Root::of_epoch(&committee));
    let mut core = Core {
        config: config.clamped(),
        me,
        tree: Tree::new(&committee, root),
        high_qc: Checked::made_of_checked(safety.record().high_qc.clone()),
        high_tc: safety.record().high_tc.clone().map(Checked::made_of_checked),
        safety,
        journal: Journal::new(),
        held: VecDeque::new(),
        turn: Turn::new(Round(1), Time::ZERO),
        votes: Votes::default(),
        timeouts: Timeouts::default(),
        witness: Witness::default(),
        suspended: super::Suspended::default(),
        wanted: super::Wanted::default(),
        kept,
        syncing: None,
        waiting_since: None,
        evidence: BTreeMap::new(),
        executed: BTreeMap::new(),
        agreed: BTreeMap::new(),
        proven: BTreeMap::new(),
        ending: None,
        past_epochs,
        quarantined: false,
        halted: false,
        started: false,
        guard: super::Guard::default(),
        alarms: Vec::new(),
        counts: Counts::default(),
        committee,
    };
    if lost && core.committee.seat(&me).is_some() {
        core.alarms.push(Alarm::RecordLost);
    }
    core.alarms.extend(core.safety.record().renounced.map(|round| Alarm::RecordOld { round }));
    core.attach_recovered(blocks, proof);
    core.turn.round = core.entered();
    core
}

impl Core {
    /// Builds the tree and the lock again. The lock of the record is the floor: certificates in blocks may be higher.
    fn attach_recovered(&mut self, blocks: BTreeMap<BlockId, Checked<Proposal>>, proof: Option<Qc>) {
        let mut blocks: Vec<_> = blocks.into_values().collect();
        blocks.sort_by_key(|block| (block.header().height, block.header().round));
        let mut certificates: Vec<Checked<Qc>> = proof.into_iter().map(Checked::made_of_checked).collect();
        for block in &blocks {
            // Those that a commit went past do not fit any more.
            if self.tree.attach(&self.committee, block, true).is_ok() {
                certificates.push(block.qc());
            }
        }
        for qc in certificates {
            if qc.data.round > self.high_qc.data.round {
                self.safety.raise_lock(&qc);
                self.high_qc = qc;
            }
        }
    }

    /// The first wake: what was said in this round is said again, because it may not have left.
    pub(super) fn start(&mut self, now: Time, out: &mut Outbox<Output>) {
        self.started = true;
        self.turn.since = now;
        self.greet(now, out);
        if self.safety.seat().is_some() {
            self.journal.append(Record::Safety(Box::new(self.safety.record().clone())));
        }
        let mut entries: Vec<_> = self.tree.entries().filter_map(|entry| entry.proposal.clone()).collect();
        entries.sort_by_key(|block| block.header().height);
        for block in &entries {
            out.push(Output::Validate { block: block.clone() });
        }
        // A commit whose record was lost follows from the blocks again.
        for block in &entries {
            self.certified(now, &block.qc(), out);
        }
        let high = self.high_qc.clone();
        self.on_qc(now, &high, out);
        self.own_message_again();
        if self.tree.of_round(self.turn.round).next().is_some() {
            self.turn.woken = Some(now);
        }
        if self.safety.record().highest_timeout_round == self.turn.round {
            self.turn.expired = Some(now);
            self.turn.retry_at = now;
            self.expire_if_due(now, out);
        }
        self.vote_if_ready();
        self.propose_if_due(now, out);
    }
}
