//! A run's beginning and end: the epoch, what is remembered, this node's own claims, and leaving.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wattle_types::{Envelope, NetworkName, NodeId, Outbox, Table as Disk, Time, UnixTime, Write, cbor};

use super::claims::HURRY_EVERY;
use super::{Due, Index, Output, PersistId, RemoveError, RequestId, SEEDS_MAX, Swim};
use crate::claim::{Claim, Description, Incarnation, ShortId, Signed};
use crate::config::Config;
use crate::coordinate::Place;
use crate::health::{Health, Losses};
use crate::pace::Pace;
use crate::queue::{Queue, Urgency};
use crate::random::Random;
use crate::rtt::AllRoundTrips;
use crate::suspicion::{Credit, Suspicion};
use crate::table::{Member, Table};
use crate::view::{Counts, Event, Reason, State, Why};
use crate::wire::{Body, CERTIFICATE_MAX, Rumor};

/// Rows in one batch.
const ROWS_MAX: usize = 256;

/// Bytes of one row: a record, a refutation and a quorum of accusations.
const ROW_BYTES_MAX: usize = 8 * 1024;

/// A node may begin a new run of itself so often: two with one key do not drown the others.
const EPOCH_EVERY: Duration = Duration::from_secs(10);

/// How often the epoch is tried to be written again.
const AGAIN: Duration = Duration::from_secs(5);

/// The longest that leaving takes.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// How often a newcomer asks for tables before it leaves that to the comparisons.
const JOIN_TIMES: u32 = 10;

/// How often whoever is named is asked for its table, in the long run and at once. Whoever meets fifty at once has all
/// from the first that answers, and compares the rest with nobody.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASKS_AT_ONCE: u32 = 3;

/// How often questions by packet are answered, in the long run and at once: an answer is larger than its question.
const ANSWER_EVERY: Duration = Duration::from_millis(50);
const ANSWERS_AT_ONCE: u32 = 20;

/// How often packets that cannot be read lead to a stream: nothing proves from whom they are.
const UNREADABLE_EVERY: Duration = Duration::from_millis(250);
const UNREADABLE_AT_ONCE: u32 = 20;

/// Where this node is in its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing happened yet.
    New,
    /// The epoch is being written; nothing was sent.
    Starting(PersistId),
    /// It takes part.
    Running,
    /// It said that it goes.
    Leaving,
    /// It has left.
    Gone,
}

/// A batch of rows that is being written.
#[derive(Debug)]
pub(crate) struct Flushing {
    id: PersistId,
    members: Vec<NodeId>,
    /// Whose answer waits for it.
    requests: Vec<RequestId>,
}

/// Why the rows on disk are not what this machine wrote. The disk's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the row of {who} in the table of members is damaged: {why}; remove the table to start without memory"
)]
pub struct Corrupt {
    /// Whose row, in hexadecimal.
    pub who: String,
    /// What is wrong with it.
    pub why: String,
}

/// The key of the row that holds this node's own epoch.
#[must_use]
pub const fn own_row_key() -> &'static [u8] {
    b"self"
}

/// What is kept of one member.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    record: Envelope,
    since: Option<Envelope>,
    state: u8,
    at: UnixTime,
    accusations: Vec<Envelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removal: Option<Envelope>,
}

impl Row {
    fn of(member: &Member) -> Self {
        let envelope = |claim: &Arc<Signed>| claim.envelope().clone();
        let over = matches!(member.state, State::Faulty | State::Removed);
        let suspicion = member.suspicion.as_deref().filter(|_| over);
        let accusers = suspicion.into_iter().flat_map(|it| it.accusers.iter().take(CERTIFICATE_MAX));
        Self {
            record: envelope(&member.record),
            since: member.since.as_ref().map(envelope),
            state: member.standing(),
            at: member.at,
            accusations: accusers.map(envelope).collect(),
            removal: member.removal.as_ref().filter(|_| member.state == State::Removed).map(envelope),
        }
    }

    fn open(self, network: &NetworkName) -> Result<Remembered, String> {
        let open = |envelope: Envelope| {
            Signed::open(envelope, network).map(Arc::new).map_err(|error| error.to_string())
        };
        let record = open(self.record)?;
        if record.description().is_none() {
            return Err("it holds no record".to_owned());
        }
        let states = [State::Alive, State::Faulty, State::Left, State::Removed];
        let state = states.get(usize::from(self.state)).copied();
        let state = state.ok_or("it has an unknown state")?;
        let since = self.since.map(open).transpose()?;
        let accusers = self.accusations.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        if accusers.is_empty() && state == State::Faulty {
            return Err("it is faulty and nobody accuses it".to_owned());
        }
        let removal = self.removal.map(open).transpose()?;
        let remembered = Remembered { record, since, state, at: self.at, accusers, removal };
        if state == State::Removed && !remembered.is_removed_well() {
            return Err("it is removed, and what it was removed for is not there".to_owned());
        }
        Ok(remembered)
    }
}

/// A member as it was before a restart.
#[derive(Clone, Debug)]
struct Remembered {
    record: Arc<Signed>,
    since: Option<Arc<Signed>>,
    state: State,
    at: UnixTime,
    accusers: Vec<Arc<Signed>>,
    removal: Option<Arc<Signed>>,
}

impl Remembered {
    /// Whether a removed one has all that a removed one has.
    fn is_removed_well(&self) -> bool {
        let left = self.since.as_ref().is_some_and(|since| matches!(since.claim(), Claim::Leave { .. }));
        let removes = |removal: &Arc<Signed>| {
            removal.subject() == self.record.author() && matches!(removal.claim(), Claim::Remove { .. })
        };
        self.removal.as_ref().is_some_and(removes) && left == self.accusers.is_empty()
    }

    fn member(&self, spared_until: Time) -> Member {
        let mut member = Member::new(Arc::clone(&self.record), self.state, self.at);
        member.since.clone_from(&self.since);
        member.spared_until = spared_until;
        member.incarnation = member.proven();
        if let Some(removal) = self.removal.as_ref().filter(|_| self.state == State::Removed) {
            member.incarnation = removal.claim().incarnation();
            member.removal = Some(Arc::clone(removal));
        }
        if self.state == State::Faulty || (self.state == State::Removed && !self.accusers.is_empty()) {
            // It may have spoken as a higher one, though there is no other proof of that.
            let accused = self.accusers.first().map(|claim| claim.claim().incarnation());
            member.incarnation = accused.unwrap_or(member.incarnation);
            member.suspicion = Some(Box::new(Suspicion {
                incarnation: member.incarnation,
                accusers: self.accusers.clone(),
                started: Time::ZERO,
                deadline: Time::ZERO,
                chance: Duration::ZERO,
                confirm_at: Time::ZERO,
                word_at: Time::ZERO,
                failed_at: Some(self.at),
                acquitted_until: Time::ZERO,
                last_chance: None,
                certified: true,
                helpers: Vec::new(),
            }));
        }
        member
    }
}

/// What a node remembers from before its start: all members, whatever became of them, and its own epoch.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    epoch: u32,
    members: Vec<Remembered>,
}

impl Memory {
    /// Reads the rows of [`Disk::Members`], and checks every signature in them.
    ///
    /// # Errors
    /// [`Corrupt`] if a row is damaged.
    pub fn read(rows: Vec<(Vec<u8>, Vec<u8>)>, network: &NetworkName) -> Result<Self, Corrupt> {
        let mut memory = Self::default();
        for (key, value) in rows {
            let who = || key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let corrupt = |why: String| Corrupt { who: who(), why };
            if key == own_row_key() {
                memory.epoch = cbor::decode(&value, 8).map_err(|error| corrupt(error.to_string()))?;
                continue;
            }
            let row: Row = cbor::decode(&value, ROW_BYTES_MAX).map_err(|error| corrupt(error.to_string()))?;
            memory.members.push(row.open(network).map_err(corrupt)?);
        }
        Ok(memory)
    }
}

impl Swim {
    /// A machine that remembers. It does nothing before its first wake, and sends nothing before its epoch is
    /// on disk.
    #[must_use]
    pub fn new(config: Config, memory: &Memory) -> Self {
        let me = config.key.node_id();
        let mut table = Table::new();
        let spared_until = Time::ZERO.after(config.timing.restart_grace);
        let others = memory.members.iter().filter(|it| it.record.author() != me);
        for remembered in others.take(config.members_max) {
            table.insert(remembered.member(spared_until));
        }
        let wall = u32::try_from(config.started.as_millis() / 1000).unwrap_or(u32::MAX);
        let epoch = memory.epoch.saturating_add(1).max(wall);
        let mut random = Random::new(&config.seed);
        let sequence = u16::try_from(random.next() >> 48).unwrap_or_default();
        Self {
            me,
            random,
            phase: Phase::New,
            incarnation: Incarnation::of_epoch(epoch),
            record: None,
            refutation: None,
            table,
            queue: Queue::default(),
            health: Health::default(),
            trips: AllRoundTrips::default(),
            place: Place::origin(),
            due: Due { start: Some(Time::ZERO), ..Due::default() },
            version: 0,
            counts: Counts::default(),
            pings: BTreeMap::new(),
            expiries: BTreeSet::new(),
            sequence,
            probe: None,
            order: Vec::new(),
            order_at: 0,
            suspicions: BTreeSet::new(),
            credit: Credit::default(),
            refuted: VecDeque::new(),
            accusers: BTreeSet::new(),
            hurried: Pace::new(HURRY_EVERY, 1),
            failures: VecDeque::new(),
            self_suspect: false,
            held: BTreeSet::new(),
            dirty: BTreeSet::new(),
            flushing: None,
            removing: Vec::new(),
            next_persist: 0,
            next_epoch: None,
            epoch_at: None,
            duplicates: BTreeMap::new(),
            joining: JOIN_TIMES,
            unasked: VecDeque::new(),
            asks: Pace::new(ASK_EVERY, ASKS_AT_ONCE),
            inquiries: super::sync::INQUIRIES,
            gossiped_at: Time::ZERO,
            losses: Losses::default(),
            again: None,
            answers: Pace::new(ANSWER_EVERY, ANSWERS_AT_ONCE),
            unreadable: Pace::new(UNREADABLE_EVERY, UNREADABLE_AT_ONCE),
            probed_at: Time::ZERO,
            urgent: VecDeque::new(),
            words: BTreeSet::new(),
            changed_at: Time::ZERO,
            agreed_at: Time::ZERO,
            synced_at: Time::ZERO,
            differing: None,
            burst_until: Time::ZERO,
            announced: 0,
            config,
        }
    }

    fn persist_id(&mut self) -> PersistId {
        let id = PersistId(self.next_persist);
        self.next_persist += 1;
        id
    }

    fn persist_epoch(&mut self, epoch: u32, out: &mut Outbox<Output>) -> PersistId {
        let id = self.persist_id();
        let key = own_row_key().to_vec();
        let writes = vec![Write::Put { table: Disk::Members, key, value: cbor::encode(&epoch) }];
        out.push(Output::Persist { id, writes });
        id
    }

    pub(crate) fn on_start(&mut self, now: Time, out: &mut Outbox<Output>) {
        self.due.start = None;
        if self.phase != Phase::New {
            return;
        }
        let id = self.persist_epoch(self.incarnation.epoch(), out);
        self.phase = Phase::Starting(id);
        // Whatever the wait for the disk is, it is not this node's being late.
        self.changed_at = now;
    }

    pub(crate) fn on_persisted(&mut self, now: Time, id: PersistId, out: &mut Outbox<Output>) {
        if self.phase == Phase::Starting(id) {
            self.run(now, out);
            return;
        }
        if let Some((Some(waited), epoch)) = self.next_epoch
            && waited == id
        {
            self.next_epoch = None;
            self.epoch_at = Some(now);
            self.incarnation = Incarnation::of_epoch(epoch);
            self.introduce(now, out);
            return;
        }
        let Some(written) = self.flushing.take_if(|batch| batch.id == id) else { return };
        Self::answer_removals(written.requests, Ok(()), out);
        if !self.removing.is_empty() {
            self.due.flush = Some(now);
        } else if !self.dirty.is_empty() {
            self.flush_soon(now);
        }
    }

    pub(crate) fn on_not_persisted(
        &mut self,
        now: Time,
        id: PersistId,
        why: String,
        out: &mut Outbox<Output>,
    ) {
        if self.phase == Phase::Starting(id) {
            self.phase = Phase::New;
            self.due.start = Some(now.after(AGAIN));
            out.push(Output::Notify(Event::CannotStart { why }));
        } else if let Some((Some(waited), epoch)) = self.next_epoch.filter(|(waited, _)| *waited == Some(id))
        {
            debug_assert_eq!(waited, id, "the epoch that is being written");
            self.next_epoch = Some((None, epoch));
            self.due.epoch = Some(now.after(AGAIN));
        } else if let Some(lost) = self.flushing.take_if(|batch| batch.id == id) {
            self.dirty.extend(lost.members);
            self.due.flush = Some(now.after(AGAIN));
            Self::answer_removals(lost.requests, Err(RemoveError::NotOnDisk), out);
        }
    }

    /// The epoch is on disk: now packets may leave.
    fn run(&mut self, now: Time, out: &mut Outbox<Output>) {
        self.phase = Phase::Running;
        let timing = self.config.timing.clone();
        for index in self.table.iter().map(|(index, _)| index).collect::<Vec<Index>>() {
            let Some(member) = self.table.get_mut(index) else { continue };
            member.spared_until = now.after(timing.restart_grace);
            out.push(Output::Contact { record: Arc::clone(&member.record) });
            self.version += 1;
            if member.state == State::Removed {
                continue;
            }
            let accusers = member.suspicion.as_deref().map(|it| it.names()).unwrap_or_default();
            out.push(Output::Notify(Event::MemberChanged {
                version: self.version,
                member: member.id,
                from: None,
                to: member.state,
                incarnation: member.incarnation,
                why: Why { reason: Reason::Remembered, accusers, helpers: Vec::new() },
            }));
        }
        self.introduce(now, out);
        out.push(Output::Notify(Event::Started { incarnation: self.incarnation }));
        // The nodes of one rack start together; their probes need not go together.
        let micros = usize::try_from(timing.period.as_micros()).unwrap_or(usize::MAX);
        let part = Duration::from_micros(self.random.below(micros) as u64);
        self.due.probe = Some(now.after(part));
        self.due.join = Some(now);
        self.due.sync = Some(now.after(timing.sync_every / 2 + part));
        self.due.sweep = Some(now.after(super::members::SWEEP_EVERY));
        if !self.table.faulty().is_empty() {
            self.due.announce = Some(now.after(timing.gossip_every));
            self.burst_until = now.after(timing.restart_grace);
        }
    }

    /// Signs this node's record as it is now, and tells it.
    fn introduce(&mut self, now: Time, out: &mut Outbox<Output>) {
        let (incarnation, description) = (self.incarnation, self.config.description.clone());
        let claim = Claim::Alive { incarnation, description };
        let Some(record) = Signed::seal(&self.config.key, &self.config.network, &claim) else { return };
        let record = Arc::new(record);
        self.record = Some(Arc::clone(&record));
        self.refutation = None;
        self.accusers.clear();
        self.table.set_own(ShortId::of(&self.me), incarnation);
        self.version += 1;
        self.changed_at = now;
        self.tell(now, Urgency::OwnRefute, Rumor::Claim(record));
        // A new key reaches nobody by packet: streams bring it.
        let some = self.some_live(3, &[]);
        for index in some {
            self.say_hello(now, index, out);
        }
    }

    /// Says once more that it is alive (SWIM, section 4.2).
    pub(crate) fn refute(&mut self, now: Time, out: &mut Outbox<Output>) {
        // Whoever leaves lets others say what they like.
        if self.phase != Phase::Running {
            return;
        }
        let Some(incarnation) = self.incarnation.next() else {
            // Four thousand million refutations: only a new run goes on from there.
            self.outrun(now, self.incarnation.epoch(), out);
            return;
        };
        let claim = Claim::Refute { incarnation };
        let Some(claim) = Signed::seal(&self.config.key, &self.config.network, &claim) else { return };
        let claim = Arc::new(claim);
        self.incarnation = incarnation;
        self.refutation = Some(Arc::clone(&claim));
        self.accusers.clear();
        self.table.set_own(ShortId::of(&self.me), incarnation);
        self.counts.refuted += 1;
        // Lifeguard, section IV-A: whoever has to refute was slow to answer.
        self.health.worse(1);
        self.changed_at = now;
        self.tell(now, Urgency::OwnRefute, Rumor::Claim(claim));
    }

    pub(crate) fn on_describe(&mut self, now: Time, description: Description, out: &mut Outbox<Output>) {
        // The key is for the whole run.
        let boot_key = self.config.description.boot_key;
        let description = Description { boot_key, ..description };
        if description.check().is_err() || self.config.description == description {
            return;
        }
        self.config.description = description;
        if self.phase != Phase::Running {
            return;
        }
        if let Some(incarnation) = self.incarnation.next() {
            self.incarnation = incarnation;
            self.introduce(now, out);
        }
    }

    /// A claim that this node's key signed and this run did not make, or made before.
    pub(crate) fn on_own_claim(&mut self, now: Time, claim: &Signed, out: &mut Outbox<Output>) {
        if self.phase != Phase::Running {
            return;
        }
        let theirs = claim.claim().incarnation();
        let own_key = &self.config.description.boot_key;
        let other_key = claim.description().is_some_and(|description| description.boot_key != *own_key);
        let same_run = theirs.epoch() == self.incarnation.epoch();
        if theirs.epoch() < self.incarnation.epoch() || (same_run && theirs <= self.incarnation && !other_key)
        {
            return;
        }
        // A disk that was wiped makes one such claim known, right after the start; more are made by another
        // run that is alive.
        if same_run || self.epoch_at.is_some() {
            self.on_duplicate(now, self.me, out);
        }
        self.outrun(now, theirs.epoch(), out);
    }

    /// Begins a run above an epoch, once that is on disk.
    fn outrun(&mut self, now: Time, epoch: u32, out: &mut Outbox<Output>) {
        if self.next_epoch.is_some() {
            return;
        }
        let Some(epoch) = epoch.checked_add(1) else { return };
        self.next_epoch = Some((None, epoch));
        match self.epoch_at.map(|at| at.after(EPOCH_EVERY)).filter(|at| *at > now) {
            Some(later) => self.due.epoch = Some(later),
            None => self.on_epoch_due(out),
        }
    }

    pub(crate) fn on_epoch_due(&mut self, out: &mut Outbox<Output>) {
        self.due.epoch = None;
        if let Some((None, epoch)) = self.next_epoch {
            let id = self.persist_epoch(epoch, out);
            self.next_epoch = Some((Some(id), epoch));
        }
    }

    pub(crate) fn on_join(&mut self, now: Time, peers: &[NodeId], out: &mut Outbox<Output>) {
        let me = self.me;
        let seeds: Vec<NodeId> = peers.iter().copied().filter(|peer| *peer != me).take(SEEDS_MAX).collect();
        for seed in &seeds {
            if !self.config.seeds.contains(seed) && self.config.seeds.len() < SEEDS_MAX {
                self.config.seeds.push(*seed);
            }
        }
        if self.phase != Phase::Running {
            return;
        }
        for seed in seeds {
            if self.asks.allows(now) {
                self.hello_to(seed, out);
            } else {
                self.ask_later(now, seed);
            }
        }
    }

    /// Asks somebody for its table some time, unless it has become known by then.
    pub(crate) fn ask_later(&mut self, now: Time, peer: NodeId) {
        if self.phase != Phase::Running || self.unasked.len() >= SEEDS_MAX || self.unasked.contains(&peer) {
            return;
        }
        self.unasked.push_back(peer);
        let soon = now.after(self.config.timing.join_every);
        self.due.join = Some(self.due.join.map_or(soon, |at| at.min(soon)));
    }

    /// Up to three to ask for their tables: whoever was named and is still unknown, seeds, members.
    fn whom_to_ask(&mut self) -> Vec<NodeId> {
        let mut chosen = Vec::new();
        while let Some(peer) = self.unasked.pop_front() {
            let known = self.table.find(&peer).and_then(|index| self.table.get(index));
            if known.is_none_or(|member| member.state != State::Alive) {
                chosen.push(peer);
            }
            if chosen.len() == 3 {
                return chosen;
            }
        }
        if self.joining == 0 && !self.table.live().is_empty() {
            return chosen;
        }
        let mut seeds = self.config.seeds.clone();
        self.random.shuffle(&mut seeds);
        let live = self.some_live(3, &[]);
        let live = live.into_iter().filter_map(|index| self.table.get(index)).map(|member| member.id);
        for peer in seeds.into_iter().take(2).chain(live) {
            if chosen.len() < 3 && !chosen.contains(&peer) {
                chosen.push(peer);
            }
        }
        chosen
    }

    pub(crate) fn on_leave(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.phase != Phase::Running {
            if self.phase != Phase::Leaving {
                self.depart(out);
            }
            return;
        }
        let claim = Claim::Leave { incarnation: self.incarnation };
        let Some(claim) = Signed::seal(&self.config.key, &self.config.network, &claim) else { return };
        self.phase = Phase::Leaving;
        if let Some(sequence) = self.probe {
            self.drop_ping(sequence);
        }
        (self.due.probe, self.due.announce, self.due.sync, self.due.join) = (None, None, None, None);
        let claim = Arc::new(claim);
        self.queue.push(Urgency::Leave, Rumor::Claim(claim));
        self.due.gossip = Some(now);
        self.due.leave = Some(now.after(LEAVE_WITHIN));
        // Who hears it at once tells it on while this node is still here to tell others.
        for index in self.some_live(2 * self.config.timing.gossip_fanout, &[]) {
            self.send(index, Body::Gossip, Vec::new(), out);
        }
    }

    pub(crate) fn on_leave_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        debug_assert!(self.due.leave.is_some_and(|at| at <= now), "only when it is due");
        self.depart(out);
    }

    /// Whether everyone has been told enough of this node's leaving.
    pub(crate) fn depart_if_told(&mut self, out: &mut Outbox<Output>) {
        let told = self.table.live().is_empty() || !self.queue.holds_own(ShortId::of(&self.me));
        if self.phase == Phase::Leaving && told {
            self.depart(out);
        }
    }

    fn depart(&mut self, out: &mut Outbox<Output>) {
        self.phase = Phase::Gone;
        let unwritten = std::mem::take(&mut self.removing).into_iter().map(|(request, _)| request).collect();
        Self::answer_removals(unwritten, Err(RemoveError::NotOnDisk), out);
        self.due = Due::default();
        self.pings.clear();
        self.expiries.clear();
        self.suspicions.clear();
        self.held.clear();
        self.words.clear();
        out.push(Output::Notify(Event::Left));
    }

    pub(crate) fn dirty(&mut self, now: Time, index: Index) {
        if let Some(member) = self.table.get(index) {
            self.dirty.insert(member.id);
            self.flush_soon(now);
        }
    }

    pub(crate) fn flush_soon(&mut self, now: Time) {
        if self.flushing.is_none() && self.due.flush.is_none() && self.is_running() {
            self.due.flush = Some(now.after(self.config.timing.flush_every));
        }
    }

    pub(crate) fn on_flush_due(&mut self, out: &mut Outbox<Output>) {
        self.due.flush = None;
        if self.flushing.is_some() || self.dirty.is_empty() {
            return;
        }
        // Whoever waits for an answer goes first.
        let waiting = self.removing.len().min(ROWS_MAX);
        let (requests, removed): (Vec<RequestId>, BTreeSet<NodeId>) = self.removing.drain(..waiting).unzip();
        let others = self.dirty.iter().filter(|id| !removed.contains(id)).copied();
        let members: Vec<NodeId> = removed.iter().copied().chain(others).take(ROWS_MAX).collect();
        let writes = members.iter().map(|id| {
            let (table, key) = (Disk::Members, id.public_key().to_vec());
            match self.table.find(id).and_then(|index| self.table.get(index)) {
                Some(member) => Write::Put { table, key, value: cbor::encode(&Row::of(member)) },
                None => Write::Remove { table, key },
            }
        });
        let writes = writes.collect();
        for id in &members {
            self.dirty.remove(id);
        }
        let id = self.persist_id();
        self.flushing = Some(Flushing { id, members, requests });
        out.push(Output::Persist { id, writes });
    }

    pub(crate) fn on_join_due(&mut self, now: Time, out: &mut Outbox<Output>) {
        self.due.join = None;
        let alone = self.table.live().is_empty();
        for peer in self.whom_to_ask() {
            self.synced_at = now;
            self.hello_to(peer, out);
        }
        self.joining = self.joining.saturating_sub(1);
        if self.joining == 0 && !alone && self.unasked.is_empty() {
            return;
        }
        self.due.join = Some(now.after(self.config.timing.join_every));
        if alone && !self.table.faulty().is_empty() {
            let at = self.random.below(self.table.faulty().len());
            if let Some(index) = self.table.faulty().get(at).copied() {
                self.say_hello(now, index, out);
            }
        }
    }
}
