//! When this node itself is at fault: it was woken late, or everybody seems to fail.

use std::time::Duration;

use wattle_types::{Outbox, Time};

use super::{Output, Swim};
use crate::suspicion::{QUOTA_WINDOW, longest};
use crate::view::Event;

/// The score from which on a node doubts itself.
const DOUBT: u32 = 6;

impl Swim {
    /// This node was not there for a while, and packets were not read: nobody is to be blamed for that time.
    pub(crate) fn on_stall(&mut self, now: Time, late: Duration) {
        self.counts.stalls += 1;
        self.health.worse(1);
        if let Some(sequence) = self.probe {
            self.drop_ping(sequence);
        }
        let pings: Vec<(Time, u16)> = std::mem::take(&mut self.expiries).into_iter().collect();
        for (at, sequence) in pings {
            self.expiries.insert((at.after(late), sequence));
            self.shift_ping(sequence, late);
        }
        let suspicions: Vec<(Time, usize)> = std::mem::take(&mut self.suspicions).into_iter().collect();
        for (at, index) in suspicions {
            let deadline = at.after(late);
            self.suspicions.insert((deadline, index));
            let member = self.table.get_mut(index);
            if let Some(suspicion) = member.and_then(|member| member.suspicion.as_deref_mut()) {
                (suspicion.started, suspicion.deadline) = (suspicion.started.after(late), deadline);
            }
        }
        self.due.probe = Some(now.after(self.config.timing.gossip_every));
    }

    /// Whether this node is likelier to be at fault than those it holds faulty.
    pub(crate) fn judge_self(&mut self, now: Time, out: &mut Outbox<Output>) {
        // Those that are left accuse no faster than their quotas allow.
        let window = longest(&self.config.timing, self.members()).saturating_add(QUOTA_WINDOW);
        while self.failures.front().is_some_and(|at| now.since(*at) > window) {
            self.failures.pop_front();
        }
        let failed = self.failures.len();
        let most = failed > 1 && failed > self.table.live().len();
        let doubts = most || self.health.score() >= DOUBT;
        if doubts != self.self_suspect {
            self.self_suspect = doubts;
            if doubts {
                // Whom everybody has forgotten, or whose key runs elsewhere, learns it from a table that is another.
                self.agreed_at = Time::ZERO;
                self.due.sync = self.due.sync.map(|at| at.min(now));
            }
            out.push(Output::Notify(Event::SelfSuspect { begins: doubts }));
        }
    }
}
