//! How members come, change and are forgotten, and how consumers are told.

use std::sync::Arc;
use std::time::Duration;

use wattle_types::{Outbox, Time};

use super::{Index, Output, Swim};
use crate::claim::{Claim, Incarnation, Signed};
use crate::queue::Urgency;
use crate::suspicion::{quorum, shortest};
use crate::table::Member;
use crate::view::{Event, Reason, State, Why};
use crate::wire::{CERTIFICATE_MAX, Rumor};

/// Between two events about one member that changes often.
const EVENT_EVERY: Duration = Duration::from_millis(2500);

/// So many events of one member are told at once before the others wait.
const EVENTS_AT_ONCE: u32 = 6;

/// A member that is back so soon was not gone.
const WRONG_WITHIN: Duration = Duration::from_secs(60);

/// How long faulty members are tried often after one of them came back: a split has healed.
const BURST: Duration = Duration::from_secs(10);

/// How often is looked for members to forget.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(30);

impl Swim {
    /// Lets a newcomer in.
    pub(crate) fn admit(&mut self, now: Time, record: Arc<Signed>, out: &mut Outbox<Output>) {
        if self.table.len() >= self.config.members_max && !self.make_room(out) {
            self.counts.refused += 1;
            return;
        }
        let member = Member::new(Arc::clone(&record), State::Alive, self.unix(now));
        let (id, incarnation) = (member.id, member.incarnation);
        let Some(index) = self.table.insert(member) else {
            self.counts.refused += 1;
            return;
        };
        self.add_to_order(index);
        self.dirty(now, index);
        out.push(Output::Contact { record: Arc::clone(&record) });
        self.changed_at = now;
        self.version += 1;
        let why = Why { reason: Reason::Joined, accusers: Vec::new(), helpers: Vec::new() };
        out.push(Output::Notify(Event::MemberChanged {
            version: self.version,
            member: id,
            from: None,
            to: State::Alive,
            incarnation,
            why,
        }));
        self.tell(now, Urgency::Record, Rumor::Claim(record));
    }

    /// Forgets the member that was removed, left or failed longest ago.
    fn make_room(&mut self, out: &mut Outbox<Output>) -> bool {
        let kinds = [self.table.removed(), self.table.gone(), self.table.faulty()];
        let gone = kinds.into_iter().find(|kind| !kind.is_empty()).unwrap_or_default();
        let oldest = gone.iter().filter_map(|index| Some((self.table.get(*index)?.at, *index))).min();
        let Some((_, index)) = oldest else { return false };
        self.forget(index, out);
        true
    }

    fn forget(&mut self, index: Index, out: &mut Outbox<Output>) {
        self.end_suspicion(index);
        let pings: Vec<u16> = self.pings_to(index);
        for sequence in pings {
            self.drop_ping(sequence);
        }
        self.held.retain(|(_, other)| *other != index);
        self.urgent.retain(|other| *other != index);
        self.order.retain(|other| *other != index);
        self.order_at = self.order_at.min(self.order.len());
        let Some(member) = self.table.remove(index) else { return };
        self.dirty.insert(member.id);
        self.version += 1;
        out.push(Output::Forget { member: member.id });
        out.push(Output::Notify(Event::Forgotten { version: self.version, member: member.id }));
    }

    /// Forgets who left or failed long ago.
    pub(crate) fn on_sweep_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        let (unix, tombstone) = (self.unix(now), self.config.timing.tombstone);
        let old = |swim: &Self, index: &Index| {
            swim.table.get(*index).is_some_and(|member| unix.since(member.at) >= tombstone)
        };
        let gone = self.table.removed().iter().chain(self.table.gone()).chain(self.table.faulty());
        let expired: Vec<Index> = gone.copied().filter(|index| old(self, index)).collect();
        for index in &expired {
            self.forget(*index, out);
        }
        if !expired.is_empty() {
            self.flush_soon(now);
        }
        self.due.sweep = Some(now.after(SWEEP_EVERY));
    }

    /// Ends a suspicion, whatever came of it.
    pub(crate) fn end_suspicion(&mut self, index: Index) {
        let Some(member) = self.table.get_mut(index) else { return };
        let Some(suspicion) = member.suspicion.take() else { return };
        self.suspicions.remove(&(suspicion.deadline, index));
        self.words.remove(&(suspicion.word_at, index));
        if let Some(sequence) = suspicion.last_chance {
            self.drop_ping(sequence);
        }
    }

    /// A member showed a higher incarnation: it is alive, whatever it was held to be.
    pub(crate) fn revive(
        &mut self,
        now: Time,
        index: Index,
        incarnation: Incarnation,
        reason: Reason,
        claim: Option<Arc<Signed>>,
        out: &mut Outbox<Output>,
    ) {
        let Some(member) = self.table.get(index) else { return };
        let (from, at, short) = (member.state, member.at, member.short());
        let (unix, key) = (self.unix(now), member.boot_key());
        let accusers = member.suspicion.as_deref().map(|it| it.names()).unwrap_or_default();
        self.end_suspicion(index);
        self.queue.forgive(short);
        if from == State::Suspect
            && let Some(member) = self.table.get_mut(index)
        {
            member.refutes(now, &accusers);
        }
        self.table.change(index, |member| {
            member.incarnation = incarnation;
            member.state = State::Alive;
            member.removal = None;
            if from != State::Suspect && from != State::Alive {
                member.at = unix;
            }
            match claim {
                Some(claim) if matches!(claim.claim(), Claim::Alive { .. }) => {
                    (member.record, member.since) = (claim, None);
                }
                Some(claim) => member.since = Some(claim),
                // What it showed before is still the newest that can be shown.
                None => {}
            }
        });
        self.counts.cleared += u64::from(from == State::Suspect);
        if from == State::Faulty {
            self.counts.false_positives += u64::from(unix.since(at) < WRONG_WITHIN);
            self.burst_until = now.after(BURST);
            self.inquiries = super::sync::INQUIRIES;
            let soon = now.after(self.config.timing.gossip_every);
            self.due.announce = self.due.announce.map(|at| at.min(soon));
        }
        let new = self.table.get(index).and_then(Member::boot_key);
        if (new != key || reason == Reason::Restarted)
            && let Some(member) = self.table.get(index)
        {
            out.push(Output::Contact { record: Arc::clone(&member.record) });
        }
        let why = Why { reason, accusers, helpers: Vec::new() };
        if from == State::Alive && reason != Reason::Restarted {
            self.touched(now, index);
            let renewed = self.table.get(index).is_some_and(|member| member.since.is_none());
            if renewed && reason == Reason::Refuted {
                self.described(now, index, out);
            }
            return;
        }
        self.changed(now, index, why, out);
    }

    /// What a member says of itself is another now.
    pub(crate) fn described(&mut self, now: Time, index: Index, out: &mut Outbox<Output>) {
        self.touched(now, index);
        let Some(member) = self.table.get(index) else { return };
        out.push(Output::Contact { record: Arc::clone(&member.record) });
        let (version, member) = (self.version, member.id);
        out.push(Output::Notify(Event::Described { version, member }));
    }

    /// A suspicion is over: the last chance, or the end.
    pub(crate) fn on_suspicion_over(&mut self, now: Time, index: Index, out: &mut Outbox<Output>) {
        if !self.config.timing.lifeguard.last_chance {
            self.fail(now, index, out);
        } else if !self.begin_last_chance(now, index, out) {
            // Too many at once: it has its chance when some of them have had theirs.
            let deadline = now.after(self.config.timing.period);
            let member = self.table.get_mut(index);
            if let Some(suspicion) = member.and_then(|member| member.suspicion.as_deref_mut()) {
                suspicion.deadline = deadline;
                self.suspicions.insert((deadline, index));
            }
        }
    }

    /// The suspect answered this node at its last chance: not faulty, and suspect until it refutes.
    pub(crate) fn on_chance_taken(&mut self, now: Time, index: Index) {
        let members = self.members();
        let deadline = now.after(shortest(&self.config.timing, members));
        let Some(member) = self.table.get_mut(index) else { return };
        let short = member.short();
        let Some(suspicion) = member.suspicion.as_deref_mut() else { return };
        suspicion.last_chance = None;
        suspicion.certified = false;
        (suspicion.started, suspicion.deadline, suspicion.acquitted_until) = (now, deadline, deadline);
        self.suspicions.insert((deadline, index));
        self.counts.chances_taken += 1;
        self.queue.forgive(short);
    }

    /// The verdict.
    pub(crate) fn fail(&mut self, now: Time, index: Index, out: &mut Outbox<Output>) {
        let (unix, quorum) = (self.unix(now), quorum(self.members()));
        let Some(member) = self.table.get_mut(index) else { return };
        if member.state != State::Suspect {
            return;
        }
        let Some(suspicion) = member.suspicion.as_deref_mut() else { return };
        suspicion.last_chance = None;
        let reason = if suspicion.certified { Reason::Certified } else { Reason::RanOut };
        let why = Why { reason, accusers: suspicion.names(), helpers: suspicion.helpers.clone() };
        let proof = (!suspicion.certified && suspicion.accusers.len() >= quorum).then(|| {
            suspicion.certified = true;
            suspicion.accusers.iter().take(CERTIFICATE_MAX.min(quorum)).map(Arc::clone).collect()
        });
        let at = suspicion.failed_at.map_or(unix, |at| at.min(unix));
        self.table.change(index, |member| (member.state, member.at) = (State::Faulty, at));
        self.counts.failed_members += 1;
        self.failures.push_back(now);
        if self.due.announce.is_none() {
            self.due.announce = Some(now.after(self.config.timing.announce_every));
        }
        self.changed(now, index, why, out);
        if let Some(proof) = proof {
            self.tell(now, Urgency::Certificate, Rumor::Dead(proof));
        }
        self.remove_if_told(now, index, out);
    }

    pub(crate) fn touched(&mut self, now: Time, index: Index) {
        self.version += 1;
        self.changed_at = now;
        self.dirty(now, index);
    }

    /// A member stands elsewhere. Consumers are told now, or later if it changes all the time.
    pub(crate) fn changed(&mut self, now: Time, index: Index, why: Why, out: &mut Outbox<Output>) {
        self.touched(now, index);
        let version = self.version;
        let Some(member) = self.table.get_mut(index) else { return };
        let ahead = member.told_until.since(now);
        if ahead > EVENT_EVERY * (EVENTS_AT_ONCE - 1) {
            self.held.insert((member.told_until, index));
            return;
        }
        member.told_until = member.told_until.max(now).after(EVENT_EVERY);
        let from = std::mem::replace(&mut member.told, member.state);
        let event = Event::MemberChanged {
            version,
            member: member.id,
            from: Some(from),
            to: member.state,
            incarnation: member.incarnation,
            why,
        };
        out.push(Output::Notify(event));
    }

    /// Tells what was held back, if it still differs from what was told.
    pub(crate) fn tell_held(&mut self, now: Time, out: &mut Outbox<Output>) {
        while let Some((at, index)) = self.held.first().copied().filter(|(at, _)| *at <= now) {
            self.held.remove(&(at, index));
            let version = self.version;
            let Some(member) = self.table.get_mut(index) else { continue };
            if member.told == member.state {
                continue;
            }
            let from = std::mem::replace(&mut member.told, member.state);
            member.told_until = now.after(EVENT_EVERY * EVENTS_AT_ONCE);
            let accusers = match member.state {
                State::Removed => member.removed_by(),
                State::Alive | State::Suspect | State::Faulty | State::Left => {
                    member.suspicion.as_deref().map(|it| it.names()).unwrap_or_default()
                }
            };
            let reason = match member.state {
                State::Alive => Reason::Refuted,
                State::Suspect => Reason::Accused,
                State::Faulty => Reason::RanOut,
                State::Left => Reason::Left,
                State::Removed => Reason::Removed,
            };
            let why = Why { reason, accusers, helpers: Vec::new() };
            out.push(Output::Notify(Event::MemberChanged {
                version,
                member: member.id,
                from: Some(from),
                to: member.state,
                incarnation: member.incarnation,
                why,
            }));
        }
    }

    fn pings_to(&self, index: Index) -> Vec<u16> {
        let to = self.pings.iter().filter(|(_, ping)| ping.is_to(index));
        to.map(|(sequence, _)| *sequence).collect()
    }
}
