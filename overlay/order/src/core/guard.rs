//! One key, one record (rule K): what this key signed is known here, or nothing more is signed with it.

use std::collections::BTreeSet;

use wattle_types::{NodeId, Outbox, Time};

use super::{Alarm, Core, Output, To, send};
use crate::ids::{Round, Seat};
use crate::message::Message;

/// A log in its first rounds: who signed nothing in it may have just begun with it.
const BEGINNING: Round = Round(2);

/// What a validator that started waits for before it signs.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Who told where it is, while they are no quorum yet.
    heard: Option<BTreeSet<Seat>>,
    /// The round that is to be certified first.
    wary: Option<Round>,
    /// When it is told again that this node started.
    at: Time,
}

impl Core {
    /// A validator that starts asks where the others are. That costs nothing: with fewer than a quorum nothing is
    /// decided anyway.
    pub(super) fn greet(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.config.guards_key && self.safety.seat().is_some() {
            self.guard = Guard { heard: Some(BTreeSet::new()), wary: None, at: now };
            self.greet_again(now, out);
        }
    }

    /// It is told again and again until this node may sign: others do not rest meanwhile.
    pub(super) fn greet_again(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.greets_at().is_some_and(|at| at <= now) {
            self.guard.at = now.after(self.config.retry);
            send(out, To::All, Message::Started);
        }
    }

    pub(super) fn greets_at(&self) -> Option<Time> {
        self.is_wary().then_some(self.guard.at)
    }

    /// Another one has started: it is told what it said last, as far as that was heard here, and where this node is.
    pub(super) fn on_started(&mut self, now: Time, from: NodeId, out: &mut Outbox<Output>) {
        let seat = self.committee.seat(&from);
        if let Some(seat) = seat {
            let vote = self.witness.last_vote(seat).map(|vote| Message::Vote((**vote).clone()));
            let timeout = self.timeouts.of(seat).map(|timeout| Message::Timeout((**timeout).clone()));
            vote.into_iter().chain(timeout).for_each(|said| send(out, To::One(from), said));
        }
        send(out, To::One(from), self.certificates());
        let leader = self.leader();
        if seat.is_some() && (leader == seat || leader == self.safety.seat()) {
            // It may have to wait for rounds that end, and until then nobody else may fail. That the leader ends its
            // rest the others hear by its block, and do not take it for dead that it did not hear of this.
            self.end_rest(now, out);
        }
    }

    /// Somebody told where it is.
    pub(super) fn on_greeted(&mut self, now: Time, from: NodeId, out: &mut Outbox<Output>) {
        let (Some(me), Some(seat)) = (self.safety.seat(), self.committee.seat(&from)) else { return };
        let Some(heard) = self.guard.heard.as_mut() else { return };
        heard.insert(seat);
        if !self.committee.is_quorum(heard.iter().copied().chain([me])) {
            return;
        }
        self.guard.heard = None;
        let round = self.entered();
        if self.safety.last() == Round(0) && round > BEGINNING {
            // Nothing is known here of what this key signed, and the log is under way: its record may be lost, and
            // not only never written. It signed in no round that a quorum of others had not come to, as the certificate
            // for the round before needs one, and of that quorum one is among those who were heard: this round or the
            // next.
            self.guard.wary = Some(round.next());
        }
        self.vote_if_ready();
        self.propose_if_due(now, out);
    }

    /// Whether this node may not sign anything new yet.
    pub(super) fn is_wary(&self) -> bool {
        self.guard.heard.is_some() || self.guard.wary.is_some_and(|round| self.high_qc.data.round < round)
    }

    /// Somebody shows that these signed in a round. If this node's key did, and its record does not say so, then the
    /// record is an older one, or the key is used elsewhere too.
    pub(super) fn signed_by(&mut self, mut seats: impl Iterator<Item = Seat>, round: Round) {
        let Some(me) = self.safety.seat().filter(|_| self.config.guards_key) else { return };
        if self.safety.denies(round) && seats.any(|seat| seat == me) {
            self.safety.renounce(round, &mut self.journal);
            self.guard = Guard::default();
            self.alarms.push(Alarm::RecordOld { round });
        }
    }
}
