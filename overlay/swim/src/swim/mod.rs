//! The machine.

mod claims;
mod health;
mod members;
mod pings;
mod reading;
mod removal;
mod start;
mod sync;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wattle_types::{Machine, NodeId, Outbox, Time, UnixTime, Write};

use crate::claim::{Description, Incarnation, ShortId, Signed};
use crate::config::Config;
use crate::coordinate::Place;
use crate::health::{Health, Losses};
use crate::pace::Pace;
use crate::queue::{Queue, Urgency};
use crate::random::Random;
use crate::rtt::AllRoundTrips;
use crate::stream::Message;
use crate::suspicion::{Credit, copies};
use crate::table::{Index, Table};
use crate::view::{Counts, Event, MemberView, State, Status, View};
use crate::wire::{Body, PACKET_BYTES_MAX, Packet, Rumor, certificate_bytes, claim_bytes, head_bytes};
use pings::Ping;
pub use removal::RemoveError;
pub use start::{Corrupt, Memory, own_row_key};
use start::{Flushing, Phase};

/// Members that a configuration, or a caller, names to be asked at once.
pub const SEEDS_MAX: usize = 64;

/// A caller's question, answered by one [`Output::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A batch of writes, answered by [`Input::Persisted`] or [`Input::NotPersisted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A packet came, its seal and every signature in it checked.
    Packet {
        /// Whose key sealed it.
        from: NodeId,
        /// What it says.
        packet: Packet<Arc<Signed>>,
    },
    /// A packet came that is sealed for another run of this node or by another run of its sender.
    Unreadable {
        /// Who its head says it is from; nothing proves that.
        sender: ShortId,
    },
    /// A message came over a stream, every signature in it checked.
    Message {
        /// Who holds the other end.
        from: NodeId,
        /// What it says.
        message: Message<Arc<Signed>>,
    },
    /// What became of an [`Output::FallbackPing`]. Without a connection it failed at once.
    FallbackAnswered {
        /// Who was pinged.
        peer: NodeId,
        /// The number of the question.
        sequence: u16,
        /// Whether it answered.
        answered: bool,
    },
    /// A batch is on disk.
    Persisted {
        /// Which.
        id: PersistId,
    },
    /// A batch could not be written; nothing of it is on disk.
    NotPersisted {
        /// Which.
        id: PersistId,
        /// What the disk said.
        why: String,
    },
    /// What this node says of itself changed. It was held to [`Description::check`]; one that is over a limit
    /// is not taken.
    Describe {
        /// What it says now; its key stays that of the run.
        description: Description,
    },
    /// Ask these for their tables: three at once, the others while they stay unknown; at most [`SEEDS_MAX`] are taken.
    Join {
        /// Whom.
        peers: Vec<NodeId>,
    },
    /// A peer that is no member here has connected, and will ask by itself. It is asked if it stays unknown.
    Meet {
        /// Who.
        peer: NodeId,
    },
    /// This node goes. [`Event::Left`] says when it may.
    Leave,
    /// Something makes the edge doubt a member: its connection closed. It is probed next; that is all.
    Doubt {
        /// Whom.
        peer: NodeId,
    },
    /// Find out within a second whether a member answers.
    Confirm {
        /// Who asks.
        request: RequestId,
        /// About whom.
        peer: NodeId,
    },
    /// The operator says that a member is gone for good.
    Remove {
        /// Who asks.
        request: RequestId,
        /// Whom.
        peer: NodeId,
    },
    /// The deadline has come. Everything that came before it has been given to the machine: packets go before
    /// timers.
    Wake,
}

/// What must happen now.
#[derive(Clone, Debug)]
pub enum Output {
    /// Seal this for a member and send it as one datagram. If it cannot be sent it is lost.
    Packet {
        /// To whom.
        to: NodeId,
        /// At most [`PACKET_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// Send this over a stream, and connect if need be. If it cannot be sent it is lost.
    Message {
        /// To whom.
        to: NodeId,
        /// At most [`crate::STREAM_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// Ping a member over a connection that is there; do not dial. [`Input::FallbackAnswered`] says what came
    /// of it, without a connection at once.
    FallbackPing {
        /// Whom.
        peer: NodeId,
        /// The number of the question.
        sequence: u16,
    },
    /// Write this batch, whole or not at all.
    Persist {
        /// Which.
        id: PersistId,
        /// At most 1 MiB.
        writes: Vec<Write>,
    },
    /// Packets to and from a member are sealed for the key in this record from now on, and go to its
    /// addresses.
    Contact {
        /// Its record.
        record: Arc<Signed>,
    },
    /// A member was forgotten: no packets to or from it.
    Forget {
        /// Who.
        member: NodeId,
    },
    /// Tell the consumers.
    Notify(Event),
    /// The answer to [`Input::Confirm`].
    Reply {
        /// Who asked.
        request: RequestId,
        /// Whether the member answered.
        answered: bool,
    },
    /// The answer to [`Input::Remove`]: that it was done, once that is on disk.
    Removed {
        /// Who asked.
        request: RequestId,
        /// What came of it.
        outcome: Result<(), RemoveError>,
    },
    /// A peer broke the protocol: its score goes down.
    Misbehaved {
        /// Who.
        peer: NodeId,
        /// How.
        why: &'static str,
    },
}

/// When what is due.
#[derive(Debug, Default)]
struct Due {
    start: Option<Time>,
    probe: Option<Time>,
    gossip: Option<Time>,
    announce: Option<Time>,
    sync: Option<Time>,
    join: Option<Time>,
    flush: Option<Time>,
    sweep: Option<Time>,
    epoch: Option<Time>,
    leave: Option<Time>,
}

/// Membership as one node sees it.
#[derive(Debug)]
pub struct Swim {
    config: Config,
    me: NodeId,
    random: Random,
    phase: Phase,
    incarnation: Incarnation,
    record: Option<Arc<Signed>>,
    refutation: Option<Arc<Signed>>,
    table: Table,
    queue: Queue,
    health: Health,
    trips: AllRoundTrips,
    place: Place,
    due: Due,
    version: u64,
    counts: Counts,
    /// Pings that are out, by their number, and when each is given up.
    pings: BTreeMap<u16, Ping>,
    expiries: BTreeSet<(Time, u16)>,
    sequence: u16,
    probe: Option<u16>,
    order: Vec<Index>,
    order_at: usize,
    suspicions: BTreeSet<(Time, Index)>,
    credit: Credit,
    /// Whose accusations this node refuted lately.
    refuted: VecDeque<(Time, ShortId)>,
    /// Who accuses this node as what it is now.
    accusers: BTreeSet<ShortId>,
    hurried: Pace,
    /// When members became faulty lately.
    failures: VecDeque<Time>,
    self_suspect: bool,
    /// Members whose changes wait to be told.
    held: BTreeSet<(Time, Index)>,
    /// Members whose row on disk is not what they are.
    dirty: BTreeSet<NodeId>,
    flushing: Option<Flushing>,
    /// Who asked for a removal that is in no batch yet, and of whom: at most one for each member.
    removing: Vec<(RequestId, NodeId)>,
    next_persist: u64,
    /// An epoch that is being written because another run has a higher one.
    next_epoch: Option<(Option<PersistId>, u32)>,
    epoch_at: Option<Time>,
    duplicates: BTreeMap<NodeId, Time>,
    /// More times to ask members for their tables.
    joining: u32,
    /// Whom the edge named and nobody has asked yet.
    unasked: VecDeque<NodeId>,
    asks: Pace,
    /// More members to ask what became of those that have left.
    inquiries: u32,
    gossiped_at: Time,
    answers: Pace,
    unreadable: Pace,
    probed_at: Time,
    /// Members to probe before the others are: suspect, or doubted by the edge.
    urgent: VecDeque<Index>,
    losses: Losses,
    /// Whose probe failed, and is made once more before that counts.
    again: Option<ShortId>,
    /// Suspicions of which more is to be told then.
    words: BTreeSet<(Time, Index)>,
    changed_at: Time,
    agreed_at: Time,
    synced_at: Time,
    /// Whose table differed while something was under way: compared with when it is calm.
    differing: Option<NodeId>,
    burst_until: Time,
    announced: u64,
}

impl Machine for Swim {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Wake => self.on_wake(now, out),
            Input::Packet { from, packet } => self.on_packet(now, from, packet, out),
            Input::Message { from, message } => self.on_message(now, from, message, out),
            Input::Unreadable { sender } => self.on_unreadable(now, sender, out),
            Input::FallbackAnswered { peer, sequence, answered } => {
                self.on_fallback(now, &peer, sequence, answered, out);
            }
            Input::Persisted { id } => self.on_persisted(now, id, out),
            Input::NotPersisted { id, why } => self.on_not_persisted(now, id, why, out),
            Input::Describe { description } => self.on_describe(now, description, out),
            Input::Join { peers } => self.on_join(now, &peers, out),
            Input::Meet { peer } => self.ask_later(now, peer),
            Input::Leave => self.on_leave(now, out),
            Input::Doubt { peer } => self.on_doubt(now, &peer),
            Input::Confirm { request, peer } => self.on_confirm(now, request, &peer, out),
            Input::Remove { request, peer } => self.on_remove(now, request, &peer, out),
        }
        if cfg!(debug_assertions) && self.table.len() <= 64 {
            self.check_invariants();
        }
    }

    fn deadline(&self) -> Option<Time> {
        let due = &self.due;
        let timers = [
            due.start,
            due.probe,
            due.gossip,
            due.announce,
            due.sync,
            due.join,
            due.flush,
            due.sweep,
            due.epoch,
            due.leave,
            self.expiries.first().map(|(at, _)| *at),
            self.suspicions.first().map(|(at, _)| *at),
            self.held.first().map(|(at, _)| *at),
            self.words.first().map(|(at, _)| *at),
        ];
        timers.into_iter().flatten().min()
    }
}

impl Swim {
    /// All members at this moment.
    #[must_use]
    pub fn view(&self) -> View {
        let here = self.place.coordinate();
        let listed = self.table.iter().filter(|(_, member)| member.state != State::Removed);
        let members = listed.map(|(_, member)| MemberView {
            id: member.id,
            record: Arc::clone(&member.record),
            state: member.state,
            since: member.at,
            incarnation: member.incarnation,
            rtt: member.round_trips.as_deref().and_then(crate::rtt::RoundTrips::estimate),
            coordinate: member.coordinate.as_deref().copied(),
            estimate: member.coordinate.as_deref().map(|there| here.distance(there)),
            accusers: member.suspicion.as_deref().map(|it| it.names()).unwrap_or_default(),
        });
        let own = self.record.clone();
        View { version: self.version, own, members: members.collect(), self_suspect: self.self_suspect }
    }

    /// Where one member stands, and as which incarnation.
    #[must_use]
    pub fn standing(&self, id: &NodeId) -> Option<(State, Incarnation)> {
        let member = self.table.get(self.table.find(id)?)?;
        Some((member.state, member.incarnation))
    }

    /// What a member says of itself, with the key that packets to it are sealed for; of this node too.
    #[must_use]
    pub fn record(&self, id: &NodeId) -> Option<&Arc<Signed>> {
        if *id == self.me {
            return self.record.as_ref();
        }
        Some(&self.table.get(self.table.find(id)?)?.record)
    }

    /// This node's own incarnation.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How this node does.
    #[must_use]
    pub fn status(&self) -> Status {
        let live = self.table.live();
        let state = |index: &&Index| self.table.get(**index).map(|member| member.state);
        Status {
            live: live.len() + 1,
            faulty: self.table.faulty().len(),
            left: self.table.gone().len(),
            removed: self.table.removed().len(),
            suspect: live.iter().filter(|index| state(index) == Some(State::Suspect)).count(),
            health: self.health.score(),
            queue: self.queue.len(),
            counts: self.counts.clone(),
        }
    }

    /// The fingerprint of the whole table: equal tables have equal ones.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.table.root()
    }

    /// Every rule that must hold between two inputs.
    pub fn check_invariants(&self) {
        self.table.check();
        self.queue.check();
        assert!(self.table.find(&self.me).is_none(), "S1: this node is not among the others");
        assert_eq!(self.pings.len(), self.expiries.len(), "S2: every ping is given up some time");
        assert!(self.pings.len() <= pings::PINGS_MAX, "S3: pings are bounded");
        for (_, index) in &self.suspicions {
            let member = self.table.get(*index);
            let suspect = member.is_some_and(|member| member.state == State::Suspect);
            assert!(suspect, "S4: only suspicions run out");
        }
        // Who left decides nothing any more.
        for (index, member) in self.table.iter().filter(|_| self.phase != Phase::Gone) {
            let Some(suspicion) = member.suspicion.as_deref() else { continue };
            let timed = self.suspicions.contains(&(suspicion.deadline, index));
            let chance = suspicion.last_chance.is_some_and(|sequence| self.pings.contains_key(&sequence));
            let over = matches!(member.state, State::Faulty | State::Removed);
            let decided = over || timed || chance;
            assert!(decided, "S5: every suspicion is decided some time: {member:?}");
        }
        let own = self.record.as_ref().map(|record| record.claim().incarnation());
        assert!(own.is_none_or(|own| own <= self.incarnation), "S6: incarnations only grow");
        assert!(self.table.len() <= self.config.members_max, "S7: the table is bounded");
    }

    fn unix(&self, now: Time) -> UnixTime {
        self.config.started.after(now.since(Time::ZERO))
    }

    /// Live members, with this node.
    fn members(&self) -> usize {
        self.table.live().len() + 1
    }

    /// Whether this node takes part.
    const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Leaving)
    }

    fn tell(&mut self, now: Time, urgency: Urgency, rumor: Rumor<Arc<Signed>>) {
        if self.table.live().is_empty() {
            return;
        }
        self.queue.push(urgency, rumor);
        // What is new goes on at once, so that a rumour is everywhere after a few round trips; what comes in a
        // stream of others waits for them, and shares their packets.
        let spaced = self.gossiped_at.after(self.config.timing.gossip_every / 4);
        let soon = now.after(self.config.timing.gossip_every / 20).max(spaced);
        self.due.gossip = Some(self.due.gossip.map_or(soon, |at| at.min(soon)));
    }

    /// Sends a packet with what is said first, and of what waits as much as fits.
    fn send(
        &mut self,
        index: Index,
        body: Body,
        first: Vec<Rumor<Arc<Signed>>>,
        out: &mut Outbox<Output>,
    ) -> bool {
        let Some(to) = self.table.get(index).map(|member| member.id) else { return false };
        let mut left = PACKET_BYTES_MAX - head_bytes(&body);
        let mut rumors = Vec::new();
        for rumor in first {
            let bytes = match &rumor {
                Rumor::Claim(claim) => claim_bytes(claim),
                Rumor::Dead(claims) => certificate_bytes(claims.len()),
                Rumor::Ask(_) => crate::wire::ASK_BYTES,
            };
            if bytes <= left {
                left -= bytes;
                rumors.push(rumor);
            }
        }
        rumors.extend(self.queue.take(left, copies(self.members())));
        let told = !rumors.is_empty();
        let bytes = Packet { stamp: self.incarnation.stamp(), body, rumors }.encode();
        out.push(Output::Packet { to, bytes });
        told
    }

    fn on_packet(&mut self, now: Time, from: NodeId, packet: Packet<Arc<Signed>>, out: &mut Outbox<Output>) {
        if !self.is_running() {
            return;
        }
        // Whoever is not in the table cannot have sealed it for this node; its record may just have gone.
        let Some(index) = self.table.find(&from) else { return };
        let copies = copies(self.members());
        let mut asked = Vec::new();
        for rumor in packet.rumors {
            self.queue.heard(&rumor, copies);
            match rumor {
                Rumor::Claim(claim) => self.learn(now, claim, claims::Source::Packet(index), out),
                Rumor::Dead(claims) => self.on_certificate(now, claims, claims::Source::Packet(index), out),
                Rumor::Ask(member) => asked.push(member),
            }
        }
        // After what proves it, if the packet has that.
        self.on_spoke(now, index, packet.stamp, out);
        match packet.body {
            Body::Gossip => {}
            Body::Ping { sequence, more } => self.on_ping(now, index, sequence, more, out),
            Body::PingRequest { sequence, target, patience_ms } => {
                let patience = Duration::from_millis(u64::from(patience_ms));
                self.on_ping_request(now, index, sequence, target, patience, out);
            }
            Body::Ack { sequence, more } => self.on_ack(now, index, sequence, more, out),
            Body::Nack { sequence } => self.on_nack(now, &from, sequence, out),
        }
        if !asked.is_empty() && self.answers.allows(now) {
            let known = asked.into_iter().flat_map(|member| self.known_of(member)).collect();
            self.send(index, Body::Gossip, known, out);
        }
    }

    fn on_wake(&mut self, now: Time, out: &mut Outbox<Output>) {
        let late = self.deadline().map_or(Duration::ZERO, |deadline| now.since(deadline));
        if self.is_running() && late > self.config.timing.period / 2 {
            self.on_stall(now, late);
        }
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if due(self.due.start) {
            self.on_start(now, out);
        }
        self.expire_pings(now, out);
        while let Some((at, index)) = self.words.first().copied().filter(|(at, _)| *at <= now) {
            self.words.remove(&(at, index));
            self.on_word_due(now, index);
        }
        while let Some((at, index)) = self.suspicions.first().copied().filter(|(at, _)| *at <= now) {
            self.suspicions.remove(&(at, index));
            self.on_suspicion_over(now, index, out);
        }
        if due(self.due.probe) {
            self.on_probe_due(now, out);
        }
        if due(self.due.announce) {
            self.on_announce_due(now, out);
        }
        if due(self.due.sync) {
            self.on_sync_due(now, out);
        }
        if due(self.due.join) {
            self.on_join_due(now, out);
        }
        if due(self.due.epoch) {
            self.on_epoch_due(out);
        }
        if due(self.due.gossip) {
            self.on_gossip_due(now, out);
            self.depart_if_told(out);
        }
        if due(self.due.leave) {
            self.on_leave_due(now, out);
        }
        if due(self.due.flush) {
            self.on_flush_due(out);
        }
        if due(self.due.sweep) {
            self.on_sweep_due(now, out);
        }
        self.tell_held(now, out);
        self.judge_self(now, out);
    }

    fn on_gossip_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        let timing = &self.config.timing;
        let (fanout, every) = (timing.gossip_fanout, timing.gossip_every);
        let packets = 1 + (self.queue.len() / 32).min(3);
        for index in self.some_live(fanout, &[]) {
            for _ in 0..packets {
                if self.queue.is_empty() {
                    break;
                }
                self.send(index, Body::Gossip, Vec::new(), out);
            }
        }
        self.gossiped_at = now;
        let goes_on = !self.queue.is_empty() && !self.table.live().is_empty();
        self.due.gossip = goes_on.then(|| now.after(every));
    }

    /// Some live members that packets reach, drawn, each once, without those named.
    fn some_live(&mut self, count: usize, without: &[Index]) -> Vec<Index> {
        let mut chosen: Vec<Index> = Vec::with_capacity(count);
        let live = self.table.live().len();
        for _ in 0..(4 * count + 8) {
            if chosen.len() == count || live == 0 {
                break;
            }
            let at = self.random.below(live);
            let Some(index) = self.table.live().get(at).copied() else { break };
            let reached = self.table.get(index).is_some_and(|member| !member.is_anchored());
            if reached && !chosen.contains(&index) && !without.contains(&index) {
                chosen.push(index);
            }
        }
        chosen
    }
}
