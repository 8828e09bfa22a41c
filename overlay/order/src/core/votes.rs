//! Proposals and votes (rules P and V), as far as they are not the safety rules themselves.

use wattle_types::{Outbox, Time, UnixTime};

use super::{Core, Held, Output, To, send};
use crate::block::{Executed, Payload};
use crate::certificate::Vote;
use crate::check::Checked;
use crate::collect::Witness;
use crate::committee::Validators;
use crate::evidence::Evidence;
use crate::ids::{BlockId, Round};
use crate::limits::{EVIDENCE_PER_BLOCK_MAX, UNCOMMITTED_MAX};
use crate::safety::Draft;
use crate::tree::{Entry, Verdict, admits};

impl Core {
    /// When this node proposes in this round, if it has to.
    pub(super) fn proposes_at(&self) -> Option<Time> {
        let leads = self.safety.seat().is_some_and(|seat| self.leader() == Some(seat));
        let record = self.safety.record();
        let spent = record.last_round >= self.turn.round
            || record.last_proposal.is_some_and(|(round, _)| round >= self.turn.round);
        let parent = self.tree.get(&self.high_qc.data.block)?;
        let valid = parent.verdict == Some(Verdict::Valid);
        if !leads || !valid || spent || self.turn.asked || self.is_unsure() || self.journal.has_failed() {
            return None;
        }
        let rests = self.is_idle() && self.waiting_since.is_none() && self.turn.woken.is_none();
        Some(if rests { self.turn.since.after(self.config.idle) } else { self.turn.since })
    }

    pub(super) fn propose_if_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        let Some(at) = self.proposes_at().filter(|_| self.started) else { return };
        if at <= now {
            self.turn.asked = true;
            out.push(Output::Build { round: self.turn.round, parent: self.high_qc.data.block });
        } else if !self.turn.told {
            // While the log rests the certificate goes ahead of the proposal: the others enter the round, learn what it
            // commits, and do not take the rest for a failure.
            self.turn.told = true;
            send(out, To::All, self.certificates());
        }
    }

    /// Rule P: the block extends the highest certificate, and is its author's vote too.
    pub(super) fn on_built(
        &mut self,
        now: Time,
        round: Round,
        payload: Payload,
        time: UnixTime,
        next: Option<Validators>,
        out: &mut Outbox<Output>,
    ) {
        let leads = self.safety.seat().is_some_and(|seat| self.leader() == Some(seat));
        let Some(parent) = self.tree.get(&self.high_qc.data.block) else { return };
        if !self.turn.asked || round != self.turn.round || !leads || self.is_unsure() {
            return;
        }
        let empty = parent.ends || !payload.is_within_limits();
        // What may not be ordered before more is committed waits; the end of the epoch does not.
        let deep = parent.info.height.next().0.saturating_sub(parent.commits.0) > UNCOMMITTED_MAX;
        let bare = empty || deep;
        let draft = Draft {
            round,
            qc: self.high_qc.clone(),
            tc: self.high_tc.clone(),
            parent: parent.info,
            payload: if bare { Payload::empty() } else { payload },
            evidence: if bare { Vec::new() } else { self.evidence_on(&parent.info.id) },
            next: next.filter(|_| !empty),
            executed: self.executed_on(parent),
            time: time.max(parent.info.time),
        };
        match self.safety.propose(&self.committee, draft, &mut self.journal) {
            Ok(gated) => {
                // Its own vote is on disk before the proposal leaves, so it waits for that record too.
                let proposal = gated.peek().clone();
                self.add_own(now, &proposal, out);
                let gated = self.journal.gate(Held::Proposal(proposal));
                self.hold(gated);
            }
            Err(why) => self.refused(why),
        }
    }

    /// The latest execution that a block on top of `parent` may vouch for.
    fn executed_on(&self, parent: &Entry) -> Executed {
        let height = parent.info.height.next().0.checked_sub(self.committee.rules().lag);
        let latest = height.map(|height| parent.commits.min(crate::ids::Height(height)));
        let known = latest.and_then(|latest| self.executed.range(..=latest).next_back());
        let known = known.map(|(height, root)| Executed { height: *height, root: *root });
        known.filter(|known| known.height > parent.info.executed.height).unwrap_or(parent.info.executed)
    }

    fn evidence_on(&self, parent: &BlockId) -> Vec<Evidence> {
        let mut told = self.tree.told_at(parent);
        let mut chosen = Vec::new();
        for (key, evidence) in &self.evidence {
            if chosen.len() < EVIDENCE_PER_BLOCK_MAX && admits(&told, key) {
                told.insert(*key);
                chosen.push((**evidence).clone());
            }
        }
        chosen
    }

    /// Rule V2: a block of this round is voted for as soon as all of V holds.
    pub(super) fn vote_if_ready(&mut self) {
        let round = self.turn.round;
        if self.is_unsure() || self.safety.record().last_round >= round {
            return;
        }
        let blocks: Vec<BlockId> = self.tree.of_round(round).map(|entry| entry.info.id).collect();
        let ready = blocks.iter().find_map(|id| self.tree.ready(id).filter(|_| self.vouches(id)));
        let Some(ready) = ready else { return };
        match self.safety.vote(&self.committee, &ready, &mut self.journal) {
            Ok(gated) => {
                self.counts.votes = self.counts.votes.saturating_add(1);
                let to = self.collector(&ready.proposal().id());
                self.hold(gated.map(|vote| Held::Vote(to, vote)));
            }
            Err(why) => self.refused(why),
        }
    }

    /// Whether this node computed what the block vouches for. If it did not come so far yet it waits: execution holds
    /// the log back a few blocks later, and never lets a wrong state pass.
    fn vouches(&self, id: &BlockId) -> bool {
        let Some(entry) = self.tree.get(id) else { return false };
        let inherited = self.tree.get(&entry.parent).map(|parent| parent.info.executed);
        let executed = entry.info.executed;
        inherited == Some(executed) || self.executed.get(&executed.height) == Some(&executed.root)
    }

    /// Who collects the votes for a block: the leader of the next round, on top of it.
    fn collector(&self, block: &BlockId) -> To {
        let next = self.turn.round.next();
        let seat = self.tree.get(block).map(|entry| entry.schedule.leader(&self.committee, next));
        seat.and_then(|seat| self.committee.id(seat)).map_or(To::All, To::One)
    }

    pub(super) fn on_vote(&mut self, now: Time, vote: Checked<Vote>, out: &mut Outbox<Output>) {
        if vote.data.epoch != self.committee.epoch() {
            return;
        }
        self.signed_by([vote.voter].into_iter(), vote.data.round);
        if Witness::covers(self.turn.round, vote.data.round) {
            let evidence = self.witness.note_vote(&vote);
            self.note(evidence, out);
        }
        let (high, current) = (self.high_qc.data.round, self.turn.round);
        let Some(qc) = self.votes.add(&self.committee, high, current, vote) else { return };
        self.on_qc(now, &qc, out);
        // Votes in timeouts make certificates anywhere; it is the next leader who needs them.
        let leader = self.leader().and_then(|seat| self.committee.id(seat)).filter(|id| *id != self.me);
        if let Some(leader) = leader.filter(|_| self.high_qc.data.round == qc.data.round) {
            send(out, To::One(leader), self.certificates());
        }
    }

    /// The same block came again: the vote for it may have been lost (V, idempotent).
    pub(super) fn vote_again(&mut self, block: &BlockId) {
        let Some(last) = self.safety.last_vote(&self.journal) else { return };
        if last.peek().data.block == *block && last.peek().data.round == self.turn.round {
            let to = self.collector(block);
            self.hold(last.map(|vote| Held::Vote(to, vote)));
        }
    }

    /// After a restart: what this node said in this round may not have left. It says the same again, nothing else
    /// (attacks 4 and 5).
    pub(super) fn own_message_again(&mut self) {
        let round = self.turn.round;
        let own = self.safety.record().last_proposal.filter(|(last, _)| *last == round);
        let proposal = own.and_then(|(_, id)| self.tree.get(&id)).and_then(|entry| entry.proposal.clone());
        if let Some(proposal) = proposal {
            let gated = self.journal.gate(Held::Proposal(proposal));
            self.hold(gated);
        }
        if let Some(last) = self.safety.last_vote(&self.journal)
            && last.peek().data.round == round
        {
            let to = self.collector(&last.peek().data.block);
            self.hold(last.map(|vote| Held::Vote(to, vote)));
        }
    }
}
