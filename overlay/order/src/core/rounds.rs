//! The pacemaker: which round it is (rule R), and what happens when one takes too long (rule T).
//!
//! Source: *DiemBFT v4*, section 3.3: a round is entered by a certificate for the one before, and by nothing else.

use std::time::Duration;

use wattle_types::{NodeId, Outbox, Time};

use super::{Core, Held, Output, To, send};
use crate::certificate::{Qc, Tc, Timeout};
use crate::check::Checked;
use crate::collect::Witness;
use crate::ids::{Round, Seat};
use crate::limits::{BEHIND_MAX, HELD_MAX, PROVEN_MAX};
use crate::message::Message;

impl Core {
    /// Any certificate, wherever it was seen (R): the lock, the round, and what it commits.
    pub(super) fn on_qc(&mut self, now: Time, qc: &Checked<Qc>, out: &mut Outbox<Output>) {
        if qc.data.epoch != self.committee.epoch() || qc.data.round == Round(0) {
            return;
        }
        self.signed_by(qc.signers.seats(), qc.data.round);
        let news = qc.data.round > self.high_qc.data.round;
        if news {
            // L: monotone.
            self.high_qc = qc.clone();
            self.safety.raise_lock(qc);
            self.votes.prune(qc.data.round);
        }
        self.remember_commit(qc);
        if self.halted {
            return;
        }
        if self.tree.get(&qc.data.block).is_some() {
            self.certified(now, qc, out);
        } else if qc.data.round == self.high_qc.data.round {
            self.want_certified(now, qc, out);
        }
        self.enter(now, out);
    }

    /// A certificate whose block is not here: a block or two are fetched, more are synced.
    fn want_certified(&mut self, now: Time, qc: &Checked<Qc>, out: &mut Outbox<Output>) {
        let here = self.tree.tip().info.height;
        let there = qc.data.commit.map_or(here, |commit| commit.height);
        if there.0 > here.0.saturating_add(BEHIND_MAX) {
            self.sync_to(now, there, out);
        } else if self.syncing.is_none() {
            self.want(now, qc.data.block, qc.signers.seats(), out);
        }
    }

    pub(super) fn on_tc(&mut self, now: Time, tc: &Checked<Tc>, out: &mut Outbox<Output>) {
        if tc.epoch != self.committee.epoch() {
            return;
        }
        self.on_qc(now, &tc.high_qc(), out);
        // What it commits may have ended the epoch, and with it what this certificate is worth (attack 8).
        if tc.epoch != self.committee.epoch() {
            return;
        }
        self.signed_by(tc.claims.iter().map(|claim| claim.author), tc.round);
        if self.high_tc.as_ref().is_some_and(|known| known.round >= tc.round) {
            return;
        }
        self.high_tc = Some(tc.clone());
        self.safety.raise_tc(tc);
        if tc.round >= self.turn.round {
            // T: who forms one, or sees it first, tells it on once.
            send(out, To::All, self.certificates());
        }
        self.enter(now, out);
    }

    /// What leads into this node's round.
    pub(super) fn certificates(&self) -> Message {
        let tc = self.high_tc.as_ref().filter(|tc| tc.round > self.high_qc.data.round);
        Message::Certificates { qc: (*self.high_qc).clone(), tc: tc.map(|tc| (**tc).clone()) }
    }

    /// Rule R: `round = max(high_qc.round, high_tc.round) + 1`, and never by a clock.
    pub(super) fn entered(&self) -> Round {
        let timed_out = self.high_tc.as_ref().map_or(Round(0), |tc| tc.round);
        self.high_qc.data.round.max(timed_out).next()
    }

    fn enter(&mut self, now: Time, out: &mut Outbox<Output>) {
        let round = self.entered();
        if round > self.turn.round {
            self.turn = super::Turn::new(round, now);
            self.timeouts.clear();
            self.witness.prune(round);
            self.vote_if_ready();
        }
        self.propose_if_due(now, out);
    }

    /// Whose turn it is, on the chain that this node would extend; unknown while its last block is not here.
    pub(super) fn leader(&self) -> Option<Seat> {
        let parent = self.tree.get(&self.high_qc.data.block)?;
        Some(parent.schedule.leader(&self.committee, self.turn.round))
    }

    /// Nothing waits for anybody: the log may rest.
    pub(super) fn is_idle(&self) -> bool {
        let quiet = self.tree.get(&self.high_qc.data.block).is_some_and(|entry| entry.quiet);
        quiet && self.turn.round.follows(self.high_qc.data.round) && self.evidence.is_empty()
    }

    pub(super) fn round_timeout(&self) -> Duration {
        let since_commit = self.turn.round.0.saturating_sub(self.tree.tip().info.round.0);
        self.config.round_timeout(since_commit)
    }

    /// When this round has taken too long. While the log rests the leader has longer, until it has proposed, something
    /// waits here, or does elsewhere: then the round has as long as ever from that moment.
    pub(super) fn expires_at(&self) -> Time {
        let timeout = self.round_timeout();
        if !self.is_idle() {
            return self.turn.since.after(timeout);
        }
        let rested = self.turn.since.after(self.config.idle).after(timeout);
        let waits = self.waiting_since.map(|since| since.max(self.turn.since));
        let woken = waits.into_iter().chain(self.turn.woken).min();
        woken.map_or(rested, |woken| woken.after(timeout).min(rested))
    }

    pub(super) fn expire_if_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.turn.expired.is_some() && now >= self.turn.retry_at {
            self.tell_timeout(now);
        } else if self.turn.expired.is_none() && now >= self.expires_at() {
            self.expire(now, out);
        }
    }

    /// The round takes too long here, or f + 1 others say so.
    fn expire(&mut self, now: Time, out: &mut Outbox<Output>) {
        self.turn.expired = Some(now);
        self.counts.timeouts = self.counts.timeouts.saturating_add(1);
        self.tell_timeout(now);
        // A higher certificate may have come with a vote of this node's own.
        self.propose_if_due(now, out);
    }

    /// Rule T: told again, with the next tick, for as long as the round lasts: whoever lost it needs it.
    fn tell_timeout(&mut self, now: Time) {
        self.turn.retry_at = now.after(self.config.retry);
        if self.held.len() >= HELD_MAX {
            return;
        }
        let round = self.turn.round;
        let signed = match self.safety.last_timeout(&self.journal) {
            Some(last) if last.peek().data.round == round => Ok(last),
            _ if self.is_wary() => return,
            _ => {
                let tc = self.high_tc.as_deref();
                self.safety.timeout(&self.committee, round, &self.high_qc, tc, &mut self.journal)
            }
        };
        match signed {
            Ok(gated) => {
                let tick = self.turn.tick;
                self.turn.tick = tick.saturating_add(1);
                self.hold(gated.map(|timeout| Held::Timeout(timeout, tick)));
            }
            Err(why) => self.refused(why),
        }
    }

    pub(super) fn on_timeout(
        &mut self,
        now: Time,
        from: NodeId,
        timeout: Checked<Timeout>,
        out: &mut Outbox<Output>,
    ) {
        // R: certificates before what carries them. They lead into the timeout's round, so it is never ahead.
        self.on_qc(now, &timeout.high_qc(), out);
        if let Some(tc) = timeout.tc() {
            self.on_tc(now, &tc, out);
        }
        if timeout.data.epoch != self.committee.epoch() {
            return;
        }
        self.signed_by([timeout.author].into_iter(), timeout.data.round);
        if Witness::covers(self.turn.round, timeout.data.round) {
            let evidence = self.witness.note_timeout(&timeout);
            self.note(evidence, out);
        }
        if let Some(vote) = timeout.vote() {
            self.on_vote(now, vote, out);
        }
        if timeout.data.epoch != self.committee.epoch() {
            // The vote in it completed the certificate that ended the epoch.
            return;
        }
        if timeout.data.round < self.turn.round {
            // It is behind: what leads here helps it.
            if from != self.me {
                send(out, To::One(from), self.certificates());
            }
        } else if timeout.data.round == self.turn.round {
            self.timeouts.add(timeout);
            // It has something to order that nobody else has heard of, or the block that was lost to all others.
            self.end_rest(now, out);
            self.count_timeouts(now, out);
        }
    }

    /// Another one says that this is no time to rest. Sooner than a round takes anyhow nobody ends a rest.
    pub(super) fn end_rest(&mut self, now: Time, out: &mut Outbox<Output>) {
        if now >= self.turn.since.after(self.round_timeout()) {
            self.turn.woken.get_or_insert(now);
            self.propose_if_due(now, out);
        }
    }

    fn count_timeouts(&mut self, now: Time, out: &mut Outbox<Output>) {
        if let Some(tc) = self.timeouts.certificate(&self.committee) {
            self.on_tc(now, &tc, out);
        } else if self.turn.expired.is_none() && self.committee.has_honest(self.timeouts.authors()) {
            // T, f + 1: one of them is honest, so the round is over for it; none is left alone with that.
            self.expire(now, out);
        }
    }

    pub(super) fn on_waiting(&mut self, now: Time, waits: bool, out: &mut Outbox<Output>) {
        self.waiting_since = if waits { self.waiting_since.or(Some(now)) } else { None };
        self.propose_if_due(now, out);
    }

    /// What certificates commit, to notice two that contradict each other.
    fn remember_commit(&mut self, qc: &Checked<Qc>) {
        let Some(commit) = qc.data.commit else { return };
        let known = self.proven.entry(commit.height).or_insert_with(|| qc.clone());
        let differs = known.data.commit.is_some_and(|known| known.block != commit.block);
        if differs {
            let (one, other) = (Box::new((**known).clone()), Box::new((**qc).clone()));
            self.halted = true;
            self.alarms.push(super::Alarm::Fork { one, other });
        }
        while self.proven.len() > PROVEN_MAX {
            self.proven.pop_first();
        }
    }
}
