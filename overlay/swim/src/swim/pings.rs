//! Pings: the periodic probe, those made for others, last chances, and what is asked for callers.

use std::time::Duration;

use wattle_types::{NodeId, Outbox, Time};

use super::{Index, Output, RequestId, Swim};
use crate::claim::ShortId;
use crate::coordinate::ROUND_TRIP_MAX;
use crate::suspicion::Suspicion;
use crate::table::Member;
use crate::view::State;
use crate::wire::{Body, More, Rumor};

/// Pings that are out at once. Half of them at the most are for others: beyond it a request to ping is not taken,
/// and its sender has other helpers. Last chances that find no place come a period later.
pub(crate) const PINGS_MAX: usize = 256;

/// Pings that are out for one other member. It probes one member a period, and need not have more.
const RELAYS_MAX: usize = 4;

/// Members that wait to be probed before their turn.
pub(crate) const URGENT_MAX: usize = 8;

/// The longest that a helper waits before its nack, whatever it was asked.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// How long a caller's question may take.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// The score from which on a node is longer about a last chance than was planned.
const BADLY: u32 = 3;

/// Members from which on one probe a period is enough. Of fewer one is probed twice a period while all answer: by four
/// others once a period each, one that died would in one case of twenty not be probed for three periods.
const MANY: usize = 8;

/// Every so many probes, one a period, the ack is to tell more than that it is one.
const MORE_EVERY: u64 = 8;

/// What a ping is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// This period's probe.
    Probe {
        /// Whether the direct timeout has passed.
        indirect: bool,
        /// Whether the connection answered.
        connected: bool,
    },
    /// Another's probe.
    Relay {
        /// Whose.
        origin: NodeId,
        /// Its number there.
        sequence: u16,
        /// Whether it was told that there is no answer so far.
        nacked: bool,
    },
    /// Before a member is faulty.
    LastChance,
    /// A caller's question.
    Confirm(RequestId),
    /// A faulty member is tried again.
    Announce,
}

/// One ping that is out.
#[derive(Debug)]
pub(crate) struct Ping {
    target: Index,
    short: ShortId,
    sent: Time,
    expires: Time,
    pub(crate) purpose: Purpose,
    /// Who was asked to ping in this node's place, and whether it said that there is no answer.
    helpers: Vec<(NodeId, bool)>,
    /// Whether the ping over a connection failed.
    fallback_failed: bool,
}

impl Ping {
    pub(crate) const fn is_to(&self, index: Index) -> bool {
        self.target == index
    }
}

/// How an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Indirect,
    Connection,
}

impl Swim {
    /// How long a member has to answer: three times its slowest answer, or everybody's, within bounds.
    pub(crate) fn direct_timeout(&self, index: Index) -> Duration {
        let timing = &self.config.timing;
        let of_one = self.table.get(index).and_then(|member| member.round_trips.as_deref()?.slowest());
        let slowest = of_one.or_else(|| self.trips.slowest());
        let timeout = slowest.map_or(timing.direct_timeout, |slowest| slowest.saturating_mul(3));
        timeout.clamp(timing.direct_timeout_min, timing.period / 2).saturating_mul(self.pace())
    }

    /// What periods and timeouts are multiplied by.
    pub(crate) const fn pace(&self) -> u32 {
        if self.config.timing.lifeguard.probe { self.health.multiplier() } else { 1 }
    }

    fn start_ping(&mut self, now: Time, target: Index, expires: Time, purpose: Purpose) -> Option<u16> {
        let short = self.table.get(target)?.short();
        if self.pings.len() >= PINGS_MAX {
            return None;
        }
        while self.pings.contains_key(&self.sequence) {
            self.sequence = self.sequence.wrapping_add(1);
        }
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let (helpers, fallback_failed) = (Vec::new(), false);
        let ping = Ping { target, short, sent: now, expires, purpose, helpers, fallback_failed };
        self.pings.insert(sequence, ping);
        self.expiries.insert((expires, sequence));
        Some(sequence)
    }

    /// Sends a ping by packet, or to one that packets do not reach by the connections of its anchors.
    fn send_ping(&mut self, target: Index, sequence: u16, more: bool, out: &mut Outbox<Output>) {
        let Some(member) = self.table.get(target) else { return };
        if !member.is_anchored() {
            let buddy =
                if self.config.timing.lifeguard.buddy { self.accusation_of(target) } else { Vec::new() };
            self.send(target, Body::Ping { sequence, more }, buddy, out);
            return;
        }
        let (short, peer) = (member.short(), member.id);
        let anchors = member.description().map(|description| description.anchors.clone());
        let patience = self.direct_timeout(target);
        for anchor in anchors.unwrap_or_default() {
            if let Some(index) = self.table.find(&anchor) {
                self.request_ping(index, sequence, short, patience, out);
            }
        }
        out.push(Output::FallbackPing { peer, sequence });
    }

    fn request_ping(
        &mut self,
        helper: Index,
        sequence: u16,
        target: ShortId,
        patience: Duration,
        out: &mut Outbox<Output>,
    ) {
        let Some(id) = self.table.get(helper).map(|member| member.id) else { return };
        let patience_ms = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX);
        self.send(helper, Body::PingRequest { sequence, target, patience_ms }, Vec::new(), out);
        if let Some(ping) = self.pings.get_mut(&sequence) {
            ping.helpers.push((id, false));
        }
    }

    fn reschedule(&mut self, sequence: u16, expires: Time) {
        if let Some(ping) = self.pings.get_mut(&sequence) {
            self.expiries.remove(&(ping.expires, sequence));
            ping.expires = expires;
            self.expiries.insert((expires, sequence));
        }
    }

    /// A ping has so much longer: this node was not there. Its place among the expiries is the caller's.
    pub(crate) fn shift_ping(&mut self, sequence: u16, by: Duration) {
        if let Some(ping) = self.pings.get_mut(&sequence) {
            ping.expires = ping.expires.after(by);
        }
    }

    pub(crate) fn drop_ping(&mut self, sequence: u16) -> Option<Ping> {
        let ping = self.pings.remove(&sequence)?;
        self.expiries.remove(&(ping.expires, sequence));
        if self.probe == Some(sequence) {
            self.probe = None;
        }
        Some(ping)
    }

    /// SWIM, section 4.3: members in an order that is drawn anew each round.
    fn next_target(&mut self) -> Option<Index> {
        while let Some(index) = self.urgent.pop_front() {
            let Some(member) = self.table.get(index).filter(|member| member.is_live()) else { continue };
            let suspicion = member.suspicion.as_deref();
            let needs_no_more = |it: &Suspicion| it.accused_by(&self.me) && it.accusers.len() > 1;
            if !suspicion.is_some_and(needs_no_more) {
                return Some(index);
            }
        }
        for round in 0..2 {
            while let Some(index) = self.order.get(self.order_at).copied() {
                self.order_at += 1;
                if self.table.get(index).is_some_and(Member::is_live) {
                    return Some(index);
                }
            }
            if round == 0 {
                self.order = self.table.live().to_vec();
                self.random.shuffle(&mut self.order);
                self.order_at = 0;
            }
        }
        None
    }

    /// A newcomer is probed some time in this round, not always in the next.
    pub(crate) fn add_to_order(&mut self, index: Index) {
        let at = self.random.below(self.order.len() + 1);
        self.order.insert(at, index);
        if at < self.order_at {
            self.order_at += 1;
        }
    }

    /// A closed connection is no evidence, and a good reason to look.
    pub(crate) fn on_doubt(&mut self, now: Time, peer: &NodeId) {
        let live = self.table.find(peer).filter(|index| self.table.get(*index).is_some_and(Member::is_live));
        let Some(index) = live.filter(|index| self.is_running() && !self.urgent.contains(index)) else {
            return;
        };
        if self.urgent.len() >= URGENT_MAX {
            return;
        }
        self.urgent.push_back(index);
        self.hurry(now);
    }

    /// Whoever waits to be probed before its turn is probed when the probe before it is over; and where members are
    /// few the next one half a period after it.
    fn hurry(&mut self, now: Time) {
        if self.probe.is_some() {
            return;
        }
        let timing = &self.config.timing;
        let spacing = if !self.urgent.is_empty() {
            timing.gossip_every
        } else if self.members() < MANY {
            timing.period / 2
        } else {
            return;
        };
        self.due.probe = Some(now.max(self.probed_at.after(spacing))).min(self.due.probe);
    }

    pub(crate) fn on_probe_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        if let Some(sequence) = self.probe {
            self.conclude(now, sequence, out);
        }
        let period = self.config.timing.period.saturating_mul(self.pace());
        self.due.probe = Some(now.after(period));
        self.probed_at = now;
        let Some(target) = self.next_target() else { return };
        let expires = now.after(self.direct_timeout(target));
        let purpose = Purpose::Probe { indirect: false, connected: false };
        let Some(sequence) = self.start_ping(now, target, expires, purpose) else { return };
        self.probe = Some(sequence);
        // As often in time while this node does badly and probes seldom: it is then that it may have missed something.
        let more = self.counts.probes.is_multiple_of((MORE_EVERY / u64::from(self.pace())).max(1));
        self.counts.probes += 1;
        self.send_ping(target, sequence, more, out);
    }

    pub(crate) fn expire_pings(&mut self, now: Time, out: &mut Outbox<Output>) {
        while let Some((_, sequence)) = self.expiries.first().copied().filter(|(at, _)| *at <= now) {
            let Some(ping) = self.pings.get_mut(&sequence) else { break };
            let target = ping.target;
            match &mut ping.purpose {
                Purpose::Probe { indirect: false, .. } => self.go_indirect(now, sequence, target, out),
                Purpose::Probe { indirect: true, .. } => self.conclude(now, sequence, out),
                Purpose::Relay { origin, sequence: theirs, nacked } if !*nacked => {
                    *nacked = true;
                    let (origin, theirs, sent) = (*origin, *theirs, ping.sent);
                    // An answer may still come, and is still passed on.
                    self.reschedule(sequence, now.after(now.since(sent).max(Duration::from_millis(1))));
                    if let Some(origin) = self.table.find(&origin) {
                        self.send(origin, Body::Nack { sequence: theirs }, Vec::new(), out);
                    }
                }
                Purpose::LastChance => {
                    self.drop_ping(sequence);
                    self.fail(now, target, out);
                }
                Purpose::Confirm(request) => {
                    let request = *request;
                    self.drop_ping(sequence);
                    out.push(Output::Reply { request, answered: false });
                }
                Purpose::Relay { .. } | Purpose::Announce => drop(self.drop_ping(sequence)),
            }
        }
    }

    /// SWIM, section 3.1: no answer, so some others are asked to ping; and the connection, if there is one.
    fn go_indirect(&mut self, now: Time, sequence: u16, target: Index, out: &mut Outbox<Output>) {
        let timing = &self.config.timing;
        let patience = self.direct_timeout(target);
        let (count, pace) = (timing.helpers, self.pace());
        let round_ends = self.due.probe.unwrap_or(now);
        let waits = patience.saturating_mul(2).max(timing.fallback_timeout.saturating_mul(pace));
        let ends = if timing.lifeguard.fallback { now.after(waits).min(round_ends) } else { round_ends };
        let fallback = timing.lifeguard.fallback;
        self.reschedule(sequence, ends.max(now.after(Duration::from_micros(1))));
        // Whoever helps must have said that it hears nothing before this round is over: silence is taken for this
        // node's own deafness. An answer that comes after that is still passed on.
        let patience = patience.min(ends.since(now).saturating_mul(3) / 5);
        if let Some(Ping { purpose: Purpose::Probe { indirect, .. }, .. }) = self.pings.get_mut(&sequence) {
            *indirect = true;
        }
        let Some((short, peer)) = self.table.get(target).map(|member| (member.short(), member.id)) else {
            return;
        };
        // Who is anchored was asked for by its anchors and its connection already.
        if self.table.get(target).is_some_and(Member::is_anchored) {
            return;
        }
        for helper in self.some_alive(count, target) {
            self.request_ping(helper, sequence, short, patience, out);
        }
        // One more costs nothing while all is well, and a lost packet is likelier than a lost member.
        self.send_ping(target, sequence, false, out);
        if fallback {
            out.push(Output::FallbackPing { peer, sequence });
        }
    }

    /// Members that are alive beyond doubt: one that is suspect itself says little by its silence.
    fn some_alive(&mut self, count: usize, without: Index) -> Vec<Index> {
        let mut chosen = self.some_live(count + 3, &[without]);
        chosen.retain(|index| self.table.get(*index).is_some_and(|member| member.state == State::Alive));
        chosen.truncate(count);
        chosen
    }

    /// The probe's round is over.
    fn conclude(&mut self, now: Time, sequence: u16, out: &mut Outbox<Output>) {
        let Some(ping) = self.drop_ping(sequence) else { return };
        let Purpose::Probe { connected, .. } = ping.purpose else { return };
        let silent = ping.helpers.iter().filter(|(_, nacked)| !nacked).count();
        // Lifeguard, section IV-A: a helper that is silent is likelier to be our own deafness.
        let blame = if ping.helpers.is_empty() { usize::from(!connected) } else { silent };
        self.health.worse(u32::try_from(blame).unwrap_or(u32::MAX));
        if connected {
            self.counts.fallback += 1;
            self.losses.note(true);
            return;
        }
        self.counts.failed += 1;
        if self.begin_again(now, &ping) {
            return;
        }
        let helpers = ping.helpers.into_iter().map(|(helper, _)| helper).collect();
        self.accuse(now, ping.target, ping.short, helpers, out);
    }

    /// Where many packets get lost a few probes in a thousand fail every way, and each accusation and refutation is
    /// told to all: those bytes grow with the group. So there it takes two in a row. Says whether this begins again.
    fn begin_again(&mut self, now: Time, ping: &Ping) -> bool {
        let is_second = self.again.take() == Some(ping.short);
        let lossy = self.config.timing.lifeguard.probe && self.losses.are_many();
        if is_second || !lossy {
            return false;
        }
        self.again = Some(ping.short);
        self.urgent.push_front(ping.target);
        self.hurry(now);
        true
    }

    /// A ping was answered.
    fn answered(&mut self, now: Time, sequence: u16, way: Way, out: &mut Outbox<Output>) {
        let Some(ping) = self.pings.get_mut(&sequence) else { return };
        if let (Purpose::Probe { connected, .. }, Way::Connection) = (&mut ping.purpose, way) {
            // The round goes on: what the helpers say, or do not, tells how this node does.
            *connected = true;
            return;
        }
        let Some(ping) = self.drop_ping(sequence) else { return };
        match ping.purpose {
            Purpose::Probe { indirect, .. } if way == Way::Direct => {
                self.counts.answered += 1;
                self.losses.note(indirect);
                self.health.better();
                self.hurry(now);
            }
            Purpose::Probe { .. } => {
                self.counts.indirect += 1;
                self.losses.note(true);
            }
            Purpose::Relay { origin, sequence, .. } => {
                if let Some(origin) = self.table.find(&origin) {
                    self.send(origin, Body::Ack { sequence, more: None }, Vec::new(), out);
                }
            }
            Purpose::LastChance => self.on_chance_taken(now, ping.target),
            Purpose::Confirm(request) => out.push(Output::Reply { request, answered: true }),
            Purpose::Announce => {}
        }
    }

    pub(crate) fn on_ack(
        &mut self,
        now: Time,
        from: Index,
        sequence: u16,
        more: Option<More>,
        out: &mut Outbox<Output>,
    ) {
        let Some(id) = self.table.get(from).map(|member| member.id) else { return };
        let Some(ping) = self.pings.get(&sequence) else { return };
        if ping.target == from && ping.short == ShortId::of(&id) {
            // Karn's rule: an answer to one of two pings measures neither.
            let resent = matches!(ping.purpose, Purpose::Probe { indirect: true, .. });
            let round_trip = if resent { Duration::MAX } else { now.since(ping.sent) };
            self.on_round_trip(now, from, round_trip, more, out);
            self.answered(now, sequence, Way::Direct, out);
        } else if ping.helpers.iter().any(|(helper, _)| *helper == id) {
            self.answered(now, sequence, Way::Indirect, out);
        }
    }

    fn on_round_trip(
        &mut self,
        now: Time,
        from: Index,
        round_trip: Duration,
        more: Option<More>,
        out: &mut Outbox<Output>,
    ) {
        if round_trip > ROUND_TRIP_MAX {
            return;
        }
        self.trips.add(round_trip);
        let draw = self.random.next();
        let Some(member) = self.table.get_mut(from) else { return };
        member.round_trips.get_or_insert_default().add(round_trip);
        let Some(more) = more else { return };
        if self.place.learn(more.coordinate, round_trip, draw) {
            member.coordinate = Some(Box::new(more.coordinate));
        }
        self.on_root(now, from, more.root, out);
    }

    pub(crate) fn on_nack(&mut self, now: Time, from: &NodeId, sequence: u16, out: &mut Outbox<Output>) {
        let Some(ping) = self.pings.get_mut(&sequence) else { return };
        if let Some((_, nacked)) = ping.helpers.iter_mut().find(|(helper, _)| helper == from) {
            *nacked = true;
        }
        self.conclude_early(now, sequence, out);
    }

    pub(crate) fn on_fallback(
        &mut self,
        now: Time,
        peer: &NodeId,
        sequence: u16,
        answered: bool,
        out: &mut Outbox<Output>,
    ) {
        let Some(ping) = self.pings.get_mut(&sequence) else { return };
        if ping.short != ShortId::of(peer) {
            return;
        }
        if answered {
            self.answered(now, sequence, Way::Connection, out);
        } else {
            ping.fallback_failed = true;
        }
        self.conclude_early(now, sequence, out);
    }

    /// When every way has said no, or only the connection yes, nothing more is waited for.
    fn conclude_early(&mut self, now: Time, sequence: u16, out: &mut Outbox<Output>) {
        let Some(ping) = self.pings.get(&sequence) else { return };
        let Purpose::Probe { indirect: true, connected } = ping.purpose else { return };
        if (connected || ping.fallback_failed) && ping.helpers.iter().all(|(_, nacked)| *nacked) {
            self.conclude(now, sequence, out);
        }
    }

    pub(crate) fn on_ping(
        &mut self,
        now: Time,
        from: Index,
        sequence: u16,
        more: bool,
        out: &mut Outbox<Output>,
    ) {
        let Some(member) = self.table.get(from) else { return };
        // Whoever was removed and was not gone learns it with the answer, and refutes.
        if member.state == State::Left || (member.state == State::Removed && member.has_left()) {
            return;
        }
        let more = more.then(|| More { coordinate: self.place.coordinate(), root: self.table.root() });
        // Who is accused here learns it with the answer, and refutes.
        let first = self.accusation_to_tell(now, from);
        self.send(from, Body::Ack { sequence, more }, first, out);
    }

    pub(crate) fn on_ping_request(
        &mut self,
        now: Time,
        from: Index,
        sequence: u16,
        target: ShortId,
        patience: Duration,
        out: &mut Outbox<Output>,
    ) {
        let Some(origin) = self.table.get(from).map(|member| member.id) else { return };
        let patience = patience.clamp(Duration::from_millis(1), PATIENCE_MAX);
        let target = self.table.by_short(target);
        let is_gone = |member: &Member| matches!(member.state, State::Left | State::Removed);
        let live = target.filter(|target| self.table.get(*target).is_some_and(|member| !is_gone(member)));
        let Some(target) = live else {
            self.send(from, Body::Nack { sequence }, Vec::new(), out);
            return;
        };
        let of_origin =
            |ping: &&Ping| matches!(ping.purpose, Purpose::Relay { origin: other, .. } if other == origin);
        let relays = self.pings.values().filter(of_origin).count();
        if relays >= RELAYS_MAX || self.pings.len() >= PINGS_MAX / 2 {
            return;
        }
        let purpose = Purpose::Relay { origin, sequence, nacked: false };
        let Some(number) = self.start_ping(now, target, now.after(patience), purpose) else { return };
        match self.table.get(target) {
            Some(member) if member.is_anchored() => {
                out.push(Output::FallbackPing { peer: member.id, sequence: number });
            }
            _ => self.send_ping(target, number, false, out),
        }
    }

    /// How long a last chance lasts.
    pub(crate) fn chance(&self, index: Index) -> Duration {
        let timing = &self.config.timing;
        let (least, most) = (timing.direct_timeout_min.saturating_mul(4), timing.fallback_timeout);
        let wait = self.direct_timeout(index).saturating_mul(2).min(most.saturating_mul(self.pace()));
        wait.max(least)
    }

    /// A last try before a member is faulty: by packet and over the connection. It ends when the suspicion is to, the
    /// same moment for all, unless this node does so badly that it needs more time.
    pub(crate) fn begin_last_chance(&mut self, now: Time, index: Index, out: &mut Outbox<Output>) -> bool {
        let planned = self.table.get(index).and_then(|member| Some(member.suspicion.as_deref()?.chance));
        let planned = planned.unwrap_or_default().max(self.config.timing.direct_timeout_min);
        let wait = if self.health.score() >= BADLY { planned.max(self.chance(index)) } else { planned };
        let Some(sequence) = self.start_ping(now, index, now.after(wait), Purpose::LastChance) else {
            return false;
        };
        let member = self.table.get_mut(index);
        if let Some(suspicion) = member.and_then(|member| member.suspicion.as_deref_mut()) {
            suspicion.last_chance = Some(sequence);
        }
        self.send_ping(index, sequence, false, out);
        if let Some(member) = self.table.get(index).filter(|member| !member.is_anchored()) {
            out.push(Output::FallbackPing { peer: member.id, sequence });
        }
        true
    }

    pub(crate) fn on_confirm(
        &mut self,
        now: Time,
        request: RequestId,
        peer: &NodeId,
        out: &mut Outbox<Output>,
    ) {
        let index = self.table.find(peer).filter(|_| self.is_running());
        let expires = now.after(CONFIRM_WITHIN);
        let sequence = index.and_then(|at| self.start_ping(now, at, expires, Purpose::Confirm(request)));
        let (Some(index), Some(sequence)) = (index, sequence) else {
            out.push(Output::Reply { request, answered: false });
            return;
        };
        self.send_ping(index, sequence, false, out);
        if self.table.get(index).is_some_and(|member| !member.is_anchored()) {
            out.push(Output::FallbackPing { peer: *peer, sequence });
        }
    }

    /// A faulty member is tried again: it may be back, or never have been away.
    pub(crate) fn on_announce_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        let timing = &self.config.timing;
        let (every, soon) = (timing.announce_every, timing.gossip_every);
        let faulty = self.table.faulty();
        if faulty.is_empty() {
            self.due.announce = None;
            return;
        }
        let at = self.random.below(self.table.faulty().len());
        let Some(index) = self.table.faulty().get(at).copied() else { return };
        self.announced += 1;
        if self.announced.is_multiple_of(4) {
            // It may have started again with another key: only a stream reaches it then.
            self.say_hello(now, index, out);
        }
        let expires = now.after(self.config.timing.period.saturating_mul(2));
        if let Some(sequence) = self.start_ping(now, index, expires, Purpose::Announce) {
            self.send_ping(index, sequence, false, out);
        }
        self.due.announce = Some(now.after(if now < self.burst_until { soon } else { every }));
    }

    /// What a member is to be told of being accused: at most once a second.
    fn accusation_to_tell(&mut self, now: Time, index: Index) -> Vec<Rumor<std::sync::Arc<crate::Signed>>> {
        let accusations = self.accusation_of(index);
        let Some(member) = self.table.get_mut(index) else { return Vec::new() };
        if accusations.is_empty() || now.since(member.spoken_at) < Duration::from_secs(1) {
            return Vec::new();
        }
        member.spoken_at = now;
        accusations
    }
}
