//! The safety rules: the only holder of the key, and the only way to a vote, a timeout or a proposal.
//!
//! Sources: Gelashvili et al., *Jolteon and Ditto*, FC 2022 (arXiv 2106.10362), section 3; *DiemBFT v4*, section 3.4.
//! Two facts carry the proof. The lock is on disk before the vote that it comes from leaves (L); and there is no vote
//! in a round that this validator timed out, or voted in (V3).

use wattle_types::SecretKey;

use crate::block::{Block, BlockInfo, Header, Payload, Proposal, evidence_digest};
use crate::certificate::{Qc, Tc, Timeout, TimeoutData, Vote};
use crate::check::Checked;
use crate::committee::{Committee, Validators};
use crate::evidence::Evidence;
use crate::ids::{Round, Seat};
use crate::journal::{Gated, Journal, Record, SafetyRecord};
use crate::tree::Ready;
use wattle_types::UnixTime;

/// Why nothing is signed. Not a fault of anybody; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// This node does not vote in this epoch, or does not know what it signed before.
    #[error("this node has no vote in this epoch")]
    NoSeat,
    /// The disk failed or is far behind.
    #[error("the disk is behind or failed")]
    Disk,
    /// V1: of another epoch.
    #[error("another epoch")]
    Epoch,
    /// V3: voted or timed out in this round or a later one.
    #[error("voted or timed out in this round")]
    Round,
    /// V4: neither the certificate of the round before, nor a timeout certificate with one that is high enough.
    #[error("does not extend what may be committed")]
    Extends,
    /// P: proposed in this round already.
    #[error("proposed in this round")]
    Proposed,
    /// T: the lock would be told lower than before.
    #[error("the certificate is lower than the lock")]
    Lock,
}

/// What a leader puts in its block.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) round: Round,
    pub(crate) qc: Checked<Qc>,
    pub(crate) tc: Option<Checked<Tc>>,
    pub(crate) parent: BlockInfo,
    pub(crate) payload: Payload,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) next: Option<Validators>,
    pub(crate) executed: crate::block::Executed,
    pub(crate) time: UnixTime,
}

/// The key, and what must never be forgotten about its use.
#[derive(Debug)]
pub(crate) struct Safety {
    key: SecretKey,
    seat: Option<Seat>,
    record: SafetyRecord,
    /// The last round that was signed in before this life, and the first in it.
    before: Round,
    first: Option<Round>,
}

impl Safety {
    /// With what the disk has. Without a record nothing was ever signed, if the log is empty too; if it is not, the
    /// record is lost, and a validator that does not know what it signed must not sign (`trusted` is false).
    pub(crate) fn new(
        key: SecretKey,
        committee: &Committee,
        record: Option<SafetyRecord>,
        trusted: bool,
    ) -> Self {
        let record = record.filter(|record| record.epoch == committee.epoch());
        let record = record.unwrap_or_else(|| SafetyRecord::fresh(committee));
        let seat = committee.seat(&key.node_id()).filter(|_| trusted && record.renounced.is_none());
        let mut safety = Self { key, seat, before: Round(0), first: None, record };
        safety.before = safety.last();
        safety
    }

    /// Where this node sits, if it may sign.
    pub(crate) const fn seat(&self) -> Option<Seat> {
        self.seat
    }

    pub(crate) const fn record(&self) -> &SafetyRecord {
        &self.record
    }

    /// A new epoch: what was signed in the old one does not count in it.
    pub(crate) fn enter(&mut self, committee: &Committee) {
        self.seat = committee.seat(&self.key.node_id());
        self.record = SafetyRecord::fresh(committee);
        (self.before, self.first) = (Round(0), None);
    }

    /// Rule K: whether this node never signed in a round of this epoch, as far as it knows. If somebody shows that its
    /// key did, its record is not the last one.
    pub(crate) fn denies(&self, round: Round) -> bool {
        let between = self.first.is_none_or(|first| round < first);
        round > self.last() || (round > self.before && between)
    }

    /// The last round in which anything was signed.
    pub(crate) fn last(&self) -> Round {
        let proposed = self.record.last_proposal.map_or(Round(0), |(round, _)| round);
        self.record.last_round.max(proposed)
    }

    /// Signs nothing any more in this epoch, whenever it is started again: the key signed in that round, and this
    /// record does not know what.
    pub(crate) fn renounce(&mut self, round: Round, journal: &mut Journal) {
        self.seat = None;
        self.record.renounced = Some(round);
        journal.append(Record::Safety(Box::new(self.record.clone())));
    }

    fn signs_in(&mut self, round: Round) {
        self.record.last_round = self.record.last_round.max(round);
        self.first.get_or_insert(round);
    }

    fn signer(&self, journal: &Journal) -> Result<Seat, Refusal> {
        if journal.accepts() { self.seat.ok_or(Refusal::NoSeat) } else { Err(Refusal::Disk) }
    }

    /// The lock only grows (L), whether or not anything is signed.
    pub(crate) fn raise_lock(&mut self, qc: &Qc) {
        if qc.data.epoch == self.record.epoch && qc.data.round > self.record.high_qc.data.round {
            self.record.high_qc = qc.clone();
        }
    }

    /// As the lock, so that the round after a restart is what it was (R).
    pub(crate) fn raise_tc(&mut self, tc: &Tc) {
        let known = self.record.high_tc.as_ref().map_or(Round(0), |tc| tc.round);
        if tc.epoch == self.record.epoch && tc.round > known {
            self.record.high_tc = Some(tc.clone());
        }
    }

    /// Rule V. V5 and V6 are in [`Ready`], V2 is the pacemaker's.
    pub(crate) fn vote(
        &mut self,
        committee: &Committee,
        ready: &Ready,
        journal: &mut Journal,
    ) -> Result<Gated<Checked<Vote>>, Refusal> {
        let seat = self.signer(journal)?;
        let block = &ready.proposal().block;
        let round = block.header.round;
        // V1.
        if block.header.epoch != self.record.epoch || committee.epoch() != self.record.epoch {
            return Err(Refusal::Epoch);
        }
        // V3: once in a round, and never in one that was timed out.
        if round <= self.record.last_round {
            return Err(Refusal::Round);
        }
        // V4.
        if !block.extends_justly() {
            return Err(Refusal::Extends);
        }
        let vote = Vote::sign(&self.key, committee, seat, ready.proposal().vote_data(ready.parent()));
        self.signs_in(round);
        self.record.last_vote = Some(vote.clone());
        // L: the lock is in the record that must be on disk before the vote leaves.
        self.raise_lock(&block.qc);
        Ok(self.persisted_first(journal, Checked::made_of_checked(vote)))
    }

    /// Rule T. From here on there is no vote in this round or below.
    pub(crate) fn timeout(
        &mut self,
        committee: &Committee,
        round: Round,
        high_qc: &Qc,
        tc: Option<&Tc>,
        journal: &mut Journal,
    ) -> Result<Gated<Checked<Timeout>>, Refusal> {
        let author = self.signer(journal)?;
        if committee.epoch() != self.record.epoch || high_qc.data.epoch != self.record.epoch {
            return Err(Refusal::Epoch);
        }
        if round < self.record.last_round || round <= self.record.highest_timeout_round {
            return Err(Refusal::Round);
        }
        // L: the lock is told truthfully.
        if high_qc.data.round < self.record.high_qc.data.round || high_qc.data.round >= round {
            return Err(Refusal::Lock);
        }
        let data = TimeoutData { epoch: committee.epoch(), round, high_qc_round: high_qc.data.round };
        let vote = self.record.last_vote.clone().filter(|vote| vote.data.round == round);
        // Why it is in this round, exactly if the certificate of a block does not say so.
        let tc = tc.filter(|_| !round.follows(high_qc.data.round)).cloned();
        let signature = Timeout::sign(&self.key, committee, &data);
        let timeout = Timeout { data, author, signature, high_qc: high_qc.clone(), tc, vote, tick: 0 };
        self.signs_in(round);
        self.record.highest_timeout_round = round;
        self.record.last_timeout = Some(timeout.clone());
        self.raise_lock(high_qc);
        Ok(self.persisted_first(journal, Checked::made_of_checked(timeout)))
    }

    /// Rule P: at most once in a round, and signed. The vote for it is asked for as for any other block.
    pub(crate) fn propose(
        &mut self,
        committee: &Committee,
        draft: Draft,
        journal: &mut Journal,
    ) -> Result<Gated<Checked<Proposal>>, Refusal> {
        let author = self.signer(journal)?;
        let Draft { round, qc, tc, parent, payload, evidence, next, executed, time } = draft;
        if committee.epoch() != self.record.epoch {
            return Err(Refusal::Epoch);
        }
        if self.record.last_proposal.is_some_and(|(last, _)| round <= last) {
            return Err(Refusal::Proposed);
        }
        if round <= self.record.last_round {
            return Err(Refusal::Round);
        }
        if qc.data.round < self.record.high_qc.data.round {
            return Err(Refusal::Lock);
        }
        let tc = tc.filter(|_| !round.follows(qc.data.round));
        let header = Header {
            epoch: committee.epoch(),
            round,
            height: parent.height.next(),
            author,
            parent: parent.id,
            qc: qc.digest(),
            tc: tc.as_ref().map(|tc| tc.digest()),
            payload: payload.root(),
            stored: payload.stored(),
            evidence: evidence_digest(&evidence),
            next: next.as_ref().map(Validators::digest),
            executed,
            time,
        };
        let tc = tc.map(|tc| (*tc).clone());
        let block = Block { header, qc: (*qc).clone(), tc, payload, evidence, next };
        if !block.is_consistent() {
            return Err(Refusal::Extends);
        }
        let proposal = Checked::made_of_checked(Proposal::sign(&self.key, committee, block));
        self.first.get_or_insert(round);
        self.record.last_proposal = Some((round, proposal.id()));
        self.raise_lock(&qc);
        journal.append(Record::Block(Box::new((*proposal).clone())));
        Ok(self.persisted_first(journal, proposal))
    }

    /// The record goes to the disk, and what was signed waits for it.
    fn persisted_first<T>(&self, journal: &mut Journal, signed: T) -> Gated<T> {
        journal.append(Record::Safety(Box::new(self.record.clone())));
        journal.gate(signed)
    }

    /// What was signed last, out of the record: it is on disk, so it may leave again.
    pub(crate) fn last_vote(&self, journal: &Journal) -> Option<Gated<Checked<Vote>>> {
        self.seat?;
        self.record.last_vote.clone().map(|vote| journal.gate(Checked::made_of_checked(vote)))
    }

    /// As [`Self::last_vote`].
    pub(crate) fn last_timeout(&self, journal: &Journal) -> Option<Gated<Checked<Timeout>>> {
        self.seat?;
        self.record.last_timeout.clone().map(|timeout| journal.gate(Checked::made_of_checked(timeout)))
    }
}

#[cfg(test)]
mod model;
