//! What is believed of what members claim.

use std::sync::Arc;
use std::time::Duration;

use wattle_types::{NodeId, Outbox, Time};

use super::pings::URGENT_MAX;
use super::{Index, Output, Swim};
use crate::claim::{Claim, Incarnation, ShortId, Signed, Stamp};
use crate::queue::Urgency;
use crate::suspicion::{
    QUOTA_WINDOW, Suspicion, Verdict, confirm_after, quorum, quota, repeat_after, shortest, timeout,
};
use crate::view::{Event, Reason, State, Why};
use crate::wire::{Body, CERTIFICATE_MAX, Rumor};

/// Accusers of one member that are kept: a quorum proves, and some more name who sees it.
pub(crate) const ACCUSERS_MAX: usize = 8;

/// How often this node refutes accusers that it has refuted within the window.
pub(crate) const HURRY_EVERY: Duration = Duration::from_secs(1);

/// How many of all who hear of a suspicion probe the suspect next, on average.
const RECRUITS: usize = 5;

/// How often a doubled identity is told of.
const DUPLICATE_EVERY: Duration = Duration::from_secs(10);

/// Members whose doubled identity was told of lately.
const DUPLICATES_MAX: usize = 64;

/// Where a claim came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In a packet of a member.
    Packet(Index),
    /// Over a stream: it may be hours old, so nobody is blamed for how many there are.
    Stream(Index),
    /// The same, of a member that was not known here before: there is no suspicion that it could cut short.
    Introduced(Index),
    /// This node.
    Own,
}

impl Swim {
    pub(crate) fn learn(&mut self, now: Time, claim: Arc<Signed>, source: Source, out: &mut Outbox<Output>) {
        let own = claim.author() == self.me;
        match claim.claim() {
            Claim::Suspect { .. } => self.on_accusation(now, claim, source, out),
            Claim::Remove { subject, .. } if *subject == self.me => self.on_accused(now, &[claim], out),
            Claim::Remove { incarnation, .. } => {
                let incarnation = *incarnation;
                self.on_removal(now, claim, incarnation, source, out);
            }
            Claim::Alive { .. } | Claim::Refute { .. } | Claim::Leave { .. } if own => {
                self.on_own_claim(now, &claim, out);
            }
            Claim::Alive { .. } => self.on_record(now, claim, out),
            Claim::Refute { incarnation } => {
                let incarnation = *incarnation;
                self.on_refutation(now, claim, incarnation, source, out);
            }
            Claim::Leave { incarnation } => {
                let incarnation = *incarnation;
                self.on_left(now, claim, incarnation, out);
            }
        }
    }

    /// SWIM, section 4.2: a higher incarnation overrides everything said of a lower one.
    fn on_record(&mut self, now: Time, claim: Arc<Signed>, out: &mut Outbox<Output>) {
        let Some(index) = self.table.find(&claim.author()) else {
            self.admit(now, claim, out);
            return;
        };
        let Some(member) = self.table.get_mut(index) else { return };
        let incarnation = claim.claim().incarnation();
        let key = claim.description().map(|description| description.boot_key.into_array());
        let held = member.record.claim().incarnation();
        let same_run = incarnation.epoch() == member.incarnation.epoch();
        let other_key = key != member.boot_key();
        let returns = !same_run && other_key && member.key_before.as_deref() == key.as_ref();
        if (same_run && other_key) || (returns && incarnation > member.incarnation) {
            let id = member.id;
            self.on_duplicate(now, id, out);
        }
        let Some(member) = self.table.get_mut(index) else { return };
        if same_run && other_key {
            // Whichever came first stays: the other has to start a run of its own.
            return;
        }
        if incarnation > member.incarnation {
            if !same_run && other_key {
                member.key_before = member.boot_key().map(Box::new);
            }
            let reason = if same_run { Reason::Refuted } else { Reason::Restarted };
            self.revive(now, index, incarnation, reason, Some(Arc::clone(&claim)), out);
        } else if same_run && incarnation > held {
            // Its refutation was quicker than its new record.
            let record = Arc::clone(&claim);
            self.table.change(index, |member| member.record = record);
            self.described(now, index, out);
        } else {
            return;
        }
        self.tell(now, Urgency::Change, Rumor::Claim(claim));
    }

    fn on_refutation(
        &mut self,
        now: Time,
        claim: Arc<Signed>,
        incarnation: Incarnation,
        source: Source,
        out: &mut Outbox<Output>,
    ) {
        let Some(index) = self.table.find(&claim.author()) else { return };
        let Some(member) = self.table.get_mut(index) else { return };
        if incarnation.epoch() > member.incarnation.epoch() {
            // Of a run whose record is not here: without its key no packet could be read.
            let short = member.short();
            self.ask(now, index, short, source, out);
            return;
        }
        if incarnation.epoch() != member.incarnation.epoch() {
            return;
        }
        if incarnation <= member.incarnation {
            // What it said in passing may be higher than all that it ever signed: then all keep the highest of that.
            if member.proven() < incarnation {
                let proof = Arc::clone(&claim);
                self.table.change(index, |member| member.since = Some(proof));
                self.touched(now, index);
                self.tell(now, Urgency::Refute, Rumor::Claim(claim));
            }
            return;
        }
        self.revive(now, index, incarnation, Reason::Refuted, Some(Arc::clone(&claim)), out);
        self.tell(now, Urgency::Refute, Rumor::Claim(claim));
    }

    fn on_left(&mut self, now: Time, claim: Arc<Signed>, incarnation: Incarnation, out: &mut Outbox<Output>) {
        let Some(index) = self.table.find(&claim.author()) else { return };
        let Some(member) = self.table.get(index) else { return };
        let same_run = incarnation.epoch() == member.incarnation.epoch();
        let is_over = match member.state {
            State::Left => true,
            State::Removed => incarnation == member.incarnation,
            State::Alive | State::Suspect | State::Faulty => false,
        };
        if is_over || !same_run || incarnation < member.incarnation {
            return;
        }
        self.end_suspicion(index);
        let at = self.unix(now);
        self.table.change(index, |member| {
            member.state = State::Left;
            member.incarnation = incarnation;
            member.since = Some(Arc::clone(&claim));
            member.removal = None;
            member.at = at;
        });
        let why = Why { reason: Reason::Left, accusers: Vec::new(), helpers: Vec::new() };
        self.changed(now, index, why, out);
        self.tell(now, Urgency::Leave, Rumor::Claim(claim));
    }

    /// A packet is its sender's own word for its incarnation, though nobody else can be shown it.
    pub(crate) fn on_spoke(&mut self, now: Time, index: Index, stamp: Stamp, out: &mut Outbox<Output>) {
        let Some(member) = self.table.get_mut(index) else { return };
        member.spared_until = Time::ZERO;
        let nearest = member.incarnation.nearest(stamp).filter(|nearest| *nearest > member.incarnation);
        let Some(incarnation) = nearest.filter(|_| member.state != State::Left) else { return };
        let short = member.short();
        self.revive(now, index, incarnation, Reason::Spoke, None, out);
        self.ask(now, index, short, Source::Packet(index), out);
    }

    /// Asks who spoke of something newer for what proves it: at most once a second for each member.
    fn ask(&mut self, now: Time, about: Index, short: ShortId, source: Source, out: &mut Outbox<Output>) {
        let Source::Packet(from) = source else { return };
        let Some(member) = self.table.get_mut(about) else { return };
        if now.since(member.spoken_at) < Duration::from_secs(1) {
            return;
        }
        member.spoken_at = now;
        self.send(from, Body::Gossip, vec![Rumor::Ask(short)], out);
    }

    fn on_accusation(&mut self, now: Time, claim: Arc<Signed>, source: Source, out: &mut Outbox<Output>) {
        let (subject, incarnation) = (claim.subject(), claim.claim().incarnation());
        if subject == self.me {
            self.on_accused(now, &[claim], out);
            return;
        }
        let Some(index) = self.accusable(now, &subject, incarnation, source, out) else { return };
        let Some(member) = self.table.get(index) else { return };
        let accused = member.suspicion.as_deref();
        let known = accused.is_some_and(|suspicion| suspicion.accused_by(&claim.author()));
        if !known && self.does_count(now, index, &claim, source, out) {
            self.accused(now, index, claim, source, out);
        }
    }

    /// Whether an accusation counts: it did before, or its author is trusted and has the credit.
    fn does_count(
        &mut self,
        now: Time,
        index: Index,
        claim: &Signed,
        source: Source,
        out: &mut Outbox<Output>,
    ) -> bool {
        let accused = self.table.get(index).and_then(|member| member.suspicion.as_deref());
        if accused.is_some_and(|suspicion| suspicion.accused_by(&claim.author())) {
            return true;
        }
        // It refuted this accuser lately, and does not again so soon; however the word came.
        if self.table.get(index).is_some_and(|member| member.has_refuted(now, &claim.author())) {
            self.counts.repeated += 1;
            return false;
        }
        // What comes over a stream may be hours old, and who said it may be gone itself since.
        let counts = match source {
            Source::Stream(_) | Source::Introduced(_) => {
                self.table.find(&claim.author()).is_some() || claim.author() == self.me
            }
            Source::Packet(_) | Source::Own => self.is_trusted(&claim.author()),
        };
        if !counts {
            self.counts.untrusted += 1;
            return false;
        }
        self.spend(now, claim, source, out)
    }

    /// The member that can be accused as this incarnation now.
    fn accusable(
        &mut self,
        now: Time,
        subject: &NodeId,
        incarnation: Incarnation,
        source: Source,
        out: &mut Outbox<Output>,
    ) -> Option<Index> {
        let index = self.table.find(subject)?;
        if !self.is_current(now, index, incarnation, source, out) {
            return None;
        }
        let member = self.table.get(index)?;
        (!matches!(member.state, State::Left | State::Removed)).then_some(index)
    }

    /// Whether what is said of a member is said of the incarnation that is known here.
    pub(crate) fn is_current(
        &mut self,
        now: Time,
        index: Index,
        incarnation: Incarnation,
        source: Source,
        out: &mut Outbox<Output>,
    ) -> bool {
        let Some(member) = self.table.get(index) else { return false };
        if incarnation < member.incarnation {
            self.counts.stale += 1;
            return false;
        }
        if incarnation > member.incarnation {
            // Only its own word raises an incarnation: whoever has that is asked for it.
            self.counts.unproven += 1;
            let short = member.short();
            self.ask(now, index, short, source, out);
            return false;
        }
        true
    }

    /// An accuser must be alive here beyond doubt.
    pub(crate) fn is_trusted(&self, accuser: &NodeId) -> bool {
        let known = self.table.find(accuser).and_then(|index| self.table.get(index));
        *accuser == self.me || known.is_some_and(|member| member.state == State::Alive)
    }

    /// Counts an accusation against its author's quota. False if it does not count. What comes over a stream
    /// may be hours old: its authors had the credit then.
    fn spend(&mut self, now: Time, claim: &Signed, source: Source, out: &mut Outbox<Output>) -> bool {
        if matches!(source, Source::Stream(_) | Source::Introduced(_)) {
            return true;
        }
        let quota = quota(self.members());
        let (accuser, subject) = (claim.author(), ShortId::of(&claim.subject()));
        let Some(index) = self.table.find(&accuser) else { return true };
        let Some(member) = self.table.get_mut(index) else { return true };
        match member.credit.get_or_insert_default().spend(now, subject, quota) {
            Verdict::Counts => return true,
            Verdict::Repeated => self.counts.repeated += 1,
            Verdict::OverQuota => self.counts.over_quota += 1,
            Verdict::Flood => {
                self.counts.over_quota += 1;
                out.push(Output::Misbehaved { peer: accuser, why: "accuses more members than may be" });
            }
        }
        false
    }

    /// An accusation that counts.
    fn accused(
        &mut self,
        now: Time,
        index: Index,
        claim: Arc<Signed>,
        source: Source,
        out: &mut Outbox<Output>,
    ) {
        let members = self.members();
        let timing = self.config.timing.clone();
        // The last chance is the end of the suspicion, not more time after it.
        let chance = self.chance(index).min(shortest(&timing, members) / 4);
        let chance = if timing.lifeguard.last_chance { chance } else { Duration::ZERO };
        let Some(member) = self.table.get_mut(index) else { return };
        let (from, incarnation) = (member.state, member.incarnation);
        if let Some(suspicion) = member.suspicion.as_deref_mut() {
            if suspicion.accusers.len() >= ACCUSERS_MAX {
                return;
            }
            suspicion.accusers.push(Arc::clone(&claim));
            let accusers = suspicion.accusers.len();
            // Beyond a quorum an accusation tells nobody anything.
            let goes_on = accusers <= quorum(members);
            if from == State::Suspect && suspicion.last_chance.is_none() {
                let before = suspicion.deadline;
                let wait = timeout(&timing, members, accusers).saturating_sub(chance);
                suspicion.deadline = suspicion.started.after(wait).max(now);
                suspicion.chance = chance;
                let after = suspicion.deadline;
                self.suspicions.remove(&(before, index));
                self.suspicions.insert((after, index));
            }
            let told = now >= suspicion.confirm_at;
            if goes_on && told && from == State::Suspect {
                self.tell(now, Urgency::Accusation, Rumor::Claim(claim));
            }
            return;
        }
        let deadline = now.after(timeout(&timing, members, 1).saturating_sub(chance));
        let confirm_at = now.after(confirm_after(&timing, members));
        let word_at = now.after(repeat_after(&timing, members));
        let suspicion = Suspicion {
            incarnation,
            accusers: vec![Arc::clone(&claim)],
            started: now,
            deadline,
            chance,
            confirm_at,
            word_at,
            failed_at: None,
            acquitted_until: Time::ZERO,
            last_chance: None,
            certified: false,
            helpers: Vec::new(),
        };
        self.table.change(index, |member| {
            member.state = State::Suspect;
            member.suspicion = Some(Box::new(suspicion));
        });
        self.suspicions.insert((deadline, index));
        self.words.insert((word_at, index));
        self.counts.suspected += 1;
        if source != Source::Own {
            self.look_for_myself(index, members);
            let why = Why { reason: Reason::Accused, accusers: vec![claim.author()], helpers: Vec::new() };
            self.changed(now, index, why, out);
        }
        self.tell(now, Urgency::Suspicion, Rumor::Claim(claim));
    }

    /// A few of those who hear of a suspicion probe the suspect next: the quorum, or the refutation, does not
    /// have to wait for its turn.
    fn look_for_myself(&mut self, index: Index, members: usize) {
        if self.random.below(members.max(1)) < RECRUITS && self.urgent.len() < URGENT_MAX {
            self.urgent.push_back(index);
        }
    }

    /// The suspicion goes on: halfway its first word is told once more, and later those who accuse too are told of.
    pub(crate) fn on_word_due(&mut self, now: Time, index: Index) {
        let quorum = quorum(self.members());
        let suspected = self.table.get_mut(index).filter(|member| member.state == State::Suspect);
        let Some(suspicion) = suspected.and_then(|member| member.suspicion.as_deref_mut()) else { return };
        if now < suspicion.confirm_at {
            suspicion.word_at = suspicion.confirm_at;
            self.words.insert((suspicion.word_at, index));
            if let Some(first) = suspicion.accusers.first().map(Arc::clone) {
                self.tell(now, Urgency::Suspicion, Rumor::Claim(first));
            }
            return;
        }
        let accusers = &suspicion.accusers;
        let further: Vec<Arc<Signed>> = accusers.iter().take(quorum).skip(1).map(Arc::clone).collect();
        // Nobody else does: perhaps nobody believed this node, which was deaf itself. The next ping tells the suspect,
        // whose refutation comes back with the answer; else that would take as long as the longest suspicion.
        let is_alone = matches!(&accusers[..], [claim] if claim.author() == self.me);
        if is_alone && self.config.timing.lifeguard.buddy && self.urgent.len() < URGENT_MAX {
            self.urgent.push_back(index);
        }
        for claim in further {
            self.tell(now, Urgency::Accusation, Rumor::Claim(claim));
        }
    }

    /// This node's own probe found no answer.
    pub(crate) fn accuse(
        &mut self,
        now: Time,
        index: Index,
        short: ShortId,
        helpers: Vec<NodeId>,
        out: &mut Outbox<Output>,
    ) {
        let quota = quota(self.members());
        let Some(member) = self.table.get(index) else { return };
        if member.short() != short || !member.is_live() || now < member.spared_until {
            return;
        }
        let suspicion = member.suspicion.as_deref();
        if suspicion.is_some_and(|suspicion| suspicion.accused_by(&self.me)) {
            return;
        }
        let told = shortest(&self.config.timing, self.members());
        if !self.credit.allows(now, short, quota, told) {
            self.counts.withheld += 1;
            return;
        }
        let claim = Claim::Suspect { subject: member.id, incarnation: member.incarnation };
        let Some(claim) = Signed::seal(&self.config.key, &self.config.network, &claim) else { return };
        self.credit.note(now, short);
        self.counts.accused += 1;
        let from = member.state;
        self.accused(now, index, Arc::new(claim), Source::Own, out);
        let member = self.table.get_mut(index);
        if let Some(suspicion) = member.and_then(|member| member.suspicion.as_deref_mut()) {
            suspicion.helpers.clone_from(&helpers);
        }
        if from == State::Alive {
            let why = Why { reason: Reason::NoAnswer, accusers: vec![self.me], helpers };
            self.changed(now, index, why, out);
        }
    }

    /// Enough accusations at once. It shortens the suspicion to nothing, and still the member has its last
    /// chance: liars with keys of their own can make a certificate, and cannot answer for another.
    pub(crate) fn on_certificate(
        &mut self,
        now: Time,
        claims: Vec<Arc<Signed>>,
        source: Source,
        out: &mut Outbox<Output>,
    ) {
        let Some(first) = claims.first() else { return };
        let (subject, incarnation) = (first.subject(), first.claim().incarnation());
        if subject == self.me {
            self.on_accused(now, &claims, out);
            return;
        }
        let Some(index) = self.accusable(now, &subject, incarnation, source, out) else { return };
        let mut valid: Vec<Arc<Signed>> = Vec::new();
        for claim in claims {
            let accuses = matches!(claim.claim(), Claim::Suspect { .. }) && claim.subject() == subject;
            let same = accuses && claim.claim().incarnation() == incarnation;
            let doubled = valid.iter().any(|other| other.author() == claim.author());
            if same && !doubled && self.does_count(now, index, &claim, source, out) {
                valid.push(claim);
            }
        }
        if valid.len() < quorum(self.members()) {
            self.counts.thin_certificates += 1;
            for claim in valid {
                let member = self.table.get(index);
                let accused = member.and_then(|member| member.suspicion.as_deref());
                if !accused.is_some_and(|suspicion| suspicion.accused_by(&claim.author())) {
                    self.accused(now, index, claim, source, out);
                }
            }
            return;
        }
        self.certified(now, index, valid, source, out);
    }

    fn certified(
        &mut self,
        now: Time,
        index: Index,
        claims: Vec<Arc<Signed>>,
        source: Source,
        out: &mut Outbox<Output>,
    ) {
        let is_new = source == Source::Introduced(index);
        let Some(member) = self.table.get(index) else { return };
        // It circulates until it is refuted; who has just answered is not asked again for it.
        let known = |suspicion: &Suspicion| suspicion.certified || now < suspicion.acquitted_until;
        if member.suspicion.as_deref().is_some_and(known) {
            return;
        }
        for claim in &claims {
            let member = self.table.get(index);
            let accused = member.and_then(|member| member.suspicion.as_deref());
            if !accused.is_some_and(|suspicion| suspicion.accused_by(&claim.author())) {
                self.accused(now, index, Arc::clone(claim), source, out);
            }
        }
        // Where there is a true one the suspicion has lasted long, here as well. Whoever makes one up in a moment gives
        // the accused the time to refute all the same.
        let (timing, members) = (&self.config.timing, self.members());
        let least = shortest(timing, members).saturating_sub(timing.period);
        let Some(member) = self.table.get_mut(index) else { return };
        let state = member.state;
        let Some(suspicion) = member.suspicion.as_deref_mut() else { return };
        suspicion.certified = true;
        if state == State::Suspect && suspicion.last_chance.is_none() {
            let least = least.saturating_sub(suspicion.chance);
            let earliest = if is_new { now } else { suspicion.started.after(least).max(now) };
            let deadline = earliest.min(suspicion.deadline);
            let before = std::mem::replace(&mut suspicion.deadline, deadline);
            self.suspicions.remove(&(before, index));
            if deadline <= now {
                self.on_suspicion_over(now, index, out);
            } else {
                self.suspicions.insert((deadline, index));
            }
        }
        self.tell(now, Urgency::Certificate, Rumor::Dead(claims));
    }

    /// The first accusations of a member, for itself to refute.
    pub(crate) fn accusation_of(&self, index: Index) -> Vec<Rumor<Arc<Signed>>> {
        let suspicion = self.table.get(index).and_then(|member| member.suspicion.as_deref());
        let claims = suspicion.into_iter().flat_map(|suspicion| suspicion.accusers.iter().take(2));
        claims.map(|claim| Rumor::Claim(Arc::clone(claim))).collect()
    }

    /// Everything here that proves where a member stands.
    pub(crate) fn known_of(&self, short: ShortId) -> Vec<Rumor<Arc<Signed>>> {
        if short == ShortId::of(&self.me) {
            let own = self.record.iter().chain(&self.refutation);
            return own.map(|claim| Rumor::Claim(Arc::clone(claim))).collect();
        }
        let member = self.table.by_short(short).and_then(|index| self.table.get(index));
        let Some(member) = member else { return Vec::new() };
        let suspicion = member.suspicion.as_deref();
        let accusers = suspicion.into_iter().flat_map(|it| it.accusers.iter().take(CERTIFICATE_MAX));
        let claims = member.since.iter().chain([&member.record]).chain(accusers).chain(&member.removal);
        claims.map(|claim| Rumor::Claim(Arc::clone(claim))).collect()
    }

    /// Two runs with one key.
    pub(crate) fn on_duplicate(&mut self, now: Time, id: NodeId, out: &mut Outbox<Output>) {
        let told = self.duplicates.get(&id).copied();
        if told.is_some_and(|at| now.since(at) < DUPLICATE_EVERY) {
            return;
        }
        if self.duplicates.len() >= DUPLICATES_MAX {
            self.duplicates.pop_first();
        }
        self.duplicates.insert(id, now);
        out.push(Output::Notify(Event::DuplicateIdentity { member: id }));
    }

    /// This node is accused, by one or several.
    fn on_accused(&mut self, now: Time, claims: &[Arc<Signed>], out: &mut Outbox<Output>) {
        if !self.is_running() {
            return;
        }
        while self.refuted.front().is_some_and(|(at, _)| now.since(*at) >= QUOTA_WINDOW) {
            self.refuted.pop_front();
        }
        let (mut accusers, mut new) = (std::mem::take(&mut self.accusers), Vec::new());
        for claim in claims.iter().take(ACCUSERS_MAX) {
            let about_me = claim.subject() == self.me && claim.claim().incarnation() == self.incarnation;
            // The others do not count a stranger's word either.
            if !about_me || self.table.find(&claim.author()).is_none() {
                continue;
            }
            let accuser = ShortId::of(&claim.author());
            if accusers.len() < ACCUSERS_MAX {
                accusers.insert(accuser);
            }
            // Nor do they count the same accuser twice within the window.
            if !self.refuted.iter().any(|(_, refuted)| *refuted == accuser) {
                new.push((now, accuser));
            }
        }
        // Unless they have not heard of the first time. One accuser is waited for longer than the window; so many are
        // perhaps not.
        let soon = timeout(&self.config.timing, self.members(), accusers.len()) < QUOTA_WINDOW;
        let refutes = !new.is_empty() || (soon && !accusers.is_empty() && self.hurried.allows(now));
        self.accusers = accusers;
        self.refuted.extend(new);
        if refutes {
            self.refute(now, out);
        }
    }
}
