//! What is decided (rule C), what the application made of it, and the end of an epoch.

use std::sync::Arc;

use wattle_types::{NodeId, Outbox, Time};

use super::{Alarm, Core, Held, Output, To, Turn, send};
use crate::block::Proposal;
use crate::certificate::Qc;
use crate::check::Checked;
use crate::collect::{Timeouts, Votes, Witness};
use crate::epoch::EpochProof;
use crate::ids::{BlockId, Digest, Epoch, Height, Round};
use crate::journal::Record;
use crate::limits::{EPOCH_LINKS_MAX, EPOCHS_KEPT_MAX, EXECUTED_MAX, KEPT_BLOCKS_MAX};
use crate::message::Message;
use crate::tree::{Root, Tree, Verdict};

impl Core {
    /// A certificate for a block that is here. Rule C: it commits the parent, if their rounds are consecutive, and all
    /// before it, in ascending order, each once.
    pub(super) fn certified(&mut self, now: Time, qc: &Checked<Qc>, out: &mut Outbox<Output>) {
        self.tree.certify(&qc.data.block);
        let Some(entry) = self.tree.get(&qc.data.block) else { return };
        let (executed, verdict) = (entry.info.executed, entry.verdict);
        if verdict == Some(Verdict::Invalid) {
            self.quarantine(Alarm::VerdictDiffers { block: qc.data.block });
        }
        self.agreed.entry(executed.height).or_insert(executed.root);
        self.compare(executed.height);
        if let Some(blocks) = self.tree.committed_by(&qc.data.block) {
            self.commit(now, blocks, qc, out);
        }
    }

    fn commit(
        &mut self,
        now: Time,
        mut blocks: Vec<Checked<Proposal>>,
        proof: &Checked<Qc>,
        out: &mut Outbox<Output>,
    ) {
        // The block that names the next validators is the last of its epoch, whatever certificate commits it.
        let last = blocks.iter().position(|block| block.block.next.is_some());
        let behind = last.map(|last| blocks.split_off(last + 1)).unwrap_or_default();
        let Some(tip) = blocks.last().cloned() else { return };
        if self.contradicts(&blocks, proof) {
            return;
        }
        self.tree.advance(&tip.id());
        self.counts.commits = self.counts.commits.saturating_add(blocks.len() as u64);
        self.kept.extend(blocks.iter().cloned());
        while self.kept.len() > KEPT_BLOCKS_MAX {
            self.kept.pop_front();
        }
        let told = self.tree.told();
        self.evidence.retain(|key, _| crate::tree::admits(told, key));
        self.suspended.prune(tip.header().height);
        // What a commit went past is not asked for any more: nobody gives it.
        let (suspended, high) = (&self.suspended, self.high_qc.data.block);
        self.wanted.retain(|id| *id == high || suspended.needs(id));
        self.forget_executed(tip.header().executed.height);
        let ids = blocks.iter().map(|block| block.id()).collect();
        if let Some(next) = tip.block.next.clone() {
            let links = behind.iter().map(|block| block.header().clone()).take(EPOCH_LINKS_MAX).collect();
            let (header, commit) = (tip.header().clone(), (**proof).clone());
            let ended = EpochProof { header, next, links, commit };
            self.end_epoch(now, (ids, blocks), ended, proof, out);
            return;
        }
        self.journal.append(Record::Commit {
            blocks: ids,
            height: tip.header().height,
            proof: Box::new((**proof).clone()),
            root: Box::new(self.tree.root()),
        });
        // The application hears of it when it is on disk with its proof, so a receipt never is of something lost.
        let gated = self.journal.gate(Held::Commit(blocks, proof.clone()));
        self.hold(gated);
    }

    /// Whether a certificate committed something else at one of these heights. Then a third or more lie, and going on
    /// would be wrong on either side.
    fn contradicts(&mut self, blocks: &[Checked<Proposal>], proof: &Checked<Qc>) -> bool {
        for block in blocks {
            let Some(known) = self.proven.get(&block.header().height) else { continue };
            if known.data.commit.is_some_and(|commit| commit.block != block.id()) {
                let (one, other) = (Box::new((**known).clone()), Box::new((**proof).clone()));
                self.alarms.push(Alarm::Fork { one, other });
                self.halted = true;
                return true;
            }
        }
        false
    }

    pub(super) fn on_executed(&mut self, now: Time, height: Height, root: Digest, out: &mut Outbox<Output>) {
        self.executed.insert(height, root);
        while self.executed.len() > EXECUTED_MAX {
            self.executed.pop_first();
        }
        self.compare(height);
        self.vote_if_ready();
        self.propose_if_due(now, out);
    }

    /// Attack 17: a replica that computed something else than a quorum vouches for stops voting, and says so.
    fn compare(&mut self, height: Height) {
        if let (Some(agreed), Some(ours)) = (self.agreed.get(&height), self.executed.get(&height))
            && agreed != ours
        {
            let (agreed, ours) = (*agreed, *ours);
            self.quarantine(Alarm::StateDiffers { height, agreed, ours });
        }
    }

    /// What lies below a height that committed blocks vouch for is compared or was never computed here.
    fn forget_executed(&mut self, agreed: Height) {
        self.executed = self.executed.split_off(&agreed);
        self.agreed = self.agreed.split_off(&agreed);
        while self.agreed.len() > EXECUTED_MAX {
            self.agreed.pop_first();
        }
    }

    pub(super) fn quarantine(&mut self, alarm: Alarm) {
        if !self.quarantined {
            self.quarantined = true;
            self.alarms.push(alarm);
        }
    }

    pub(super) fn on_epoch_ended(&mut self, now: Time, proof: Checked<EpochProof>, out: &mut Outbox<Output>) {
        if proof.epoch() != self.committee.epoch() {
            return;
        }
        let (last, height) = (proof.header.id(), proof.header.height);
        self.ending = Some(proof);
        if self.tree.get(&last).is_some() {
            self.finish_epoch(now, out);
        } else {
            // Those who left the epoch have its last blocks on disk only.
            self.sync_to(now, height, out);
        }
    }

    /// The last block of the epoch is here, and others proved that it is committed.
    pub(super) fn finish_epoch(&mut self, now: Time, out: &mut Outbox<Output>) {
        let Some(proof) = self.ending.clone() else { return };
        if let Some(blocks) = self.tree.path_up_to(&proof.header.id()) {
            let qc = Checked::made_of_checked(proof.commit.clone());
            self.commit(now, blocks, &qc, out);
        }
    }

    /// Everything of the old epoch is left behind: its last commit, its proof and the new safety record are one record,
    /// so that a crash finds either epoch whole.
    fn end_epoch(
        &mut self,
        now: Time,
        (ids, blocks): (Vec<BlockId>, Vec<Checked<Proposal>>),
        proof: EpochProof,
        commit: &Checked<Qc>,
        out: &mut Outbox<Output>,
    ) {
        // What another's proof led here by is the proof: the blocks that link it are not here.
        let proof = self.ending.take().map_or(proof, |known| (*known).clone());
        let committee = Arc::new(self.committee.succeeded(proof.next.clone(), proof.anchor()));
        // The last word to the others of the old epoch, signed by a quorum of them: who leaves has no channels to them
        // from now on, and without it they may be too few to find out alone.
        send(out, To::All, Message::EpochEnded(proof.clone()));
        self.safety.enter(&committee);
        let safety = Box::new(self.safety.record().clone());
        self.journal.append(Record::Epoch { blocks: ids, proof: Box::new(proof.clone()), safety });
        let gated = self.journal.gate(Held::Commit(blocks, commit.clone()));
        self.hold(gated);
        let gated = self.journal.gate(Held::Epoch(Box::new(proof.clone()), Arc::clone(&committee)));
        self.hold(gated);
        self.past_epochs.push_back(proof);
        while self.past_epochs.len() > EPOCHS_KEPT_MAX {
            self.past_epochs.pop_front();
        }
        self.tree = Tree::new(&committee, Root::of_epoch(&committee));
        self.high_qc = Checked::made_of_checked(Qc::genesis(&committee));
        self.high_tc = None;
        self.turn = Turn::new(Round(1), now);
        self.votes = Votes::default();
        self.timeouts = Timeouts::default();
        self.witness = Witness::default();
        self.suspended = super::Suspended::default();
        self.wanted = super::Wanted::default();
        self.evidence.clear();
        self.proven.clear();
        self.syncing = None;
        self.guard = super::Guard::default();
        self.committee = committee;
        self.propose_if_due(now, out);
    }

    /// Whoever is in an older epoch gets the proof that leads out of it; from one that is ahead this node asks for
    /// it, by telling where it is.
    pub(super) fn on_other_epoch(&self, from: NodeId, epoch: Epoch, out: &mut Outbox<Output>) {
        let message = if epoch > self.committee.epoch() {
            Some(self.certificates())
        } else {
            let proof = self.past_epochs.iter().find(|proof| proof.epoch() == epoch);
            proof.cloned().map(Message::EpochEnded)
        };
        message.into_iter().for_each(|message| send(out, To::One(from), message));
    }
}
