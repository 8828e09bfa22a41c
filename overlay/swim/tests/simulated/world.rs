//! Some nodes with a network, disks and clocks that obey one seed.

#[path = "questions.rs"]
mod questions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use questions::{Verified, open};
use serde_bytes::ByteArray;
use wattle_swim::{
    Claim, Config, Description, Event, Incarnation, Input, Memory, Message, Output, PACKET_BYTES_MAX, Packet,
    PersistId, Reach, Reason, RejectedClaim, RemoveError, STREAM_BYTES_MAX, ShortId, Signed, State, Swim,
    Timing, own_row_key,
};
use wattle_types::{Envelope, Machine as _, NetworkName, NodeId, Outbox, SecretKey, Time, UnixTime, Write};

/// Bytes around a packet: the seal, UDP and IPv4.
pub(crate) const AROUND: u64 = 30 + 28;

/// What the network and the disks do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) timing: Timing,
    /// Of 1000 packets, so many are lost, so many doubled.
    pub(crate) loss: u64,
    pub(crate) double: u64,
    /// How long a packet takes at the least, and how much longer it may.
    pub(crate) delay_us: u64,
    pub(crate) jitter_us: u64,
    pub(crate) disk_ms: u64,
    /// Of 100 pairs, so many have a connection for the fallback ping.
    pub(crate) connected: u64,
    /// Of 100 of those, so many are told at once that the other's process died, as by TCP; the others by silence, as
    /// by QUIC.
    pub(crate) noticed: u64,
    pub(crate) members_max: usize,
}

impl Options {
    /// `WATTLE_SIM_SHIFT` is added to the seed of every test: the same tests with other chances.
    pub(crate) fn new(seed: u64) -> Self {
        let shift: u64 = option_env!("WATTLE_SIM_SHIFT").map_or(0, |shift| shift.parse().unwrap());
        Self {
            seed: seed + shift,
            timing: Timing::sim(),
            loss: 0,
            double: 0,
            delay_us: 300,
            jitter_us: 400,
            disk_ms: 2,
            connected: 100,
            noticed: 50,
            members_max: wattle_swim::MEMBERS_MAX,
        }
    }
}

/// What a node does while it is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It runs.
    No,
    /// As by SIGSTOP: neither timers nor packets, until then.
    Stopped(Time),
    /// Its timers run; what it sends and receives waits until then.
    Blocked(Time),
}

#[derive(Debug)]
enum What {
    Packet { from: usize, to: usize, bytes: Arc<Vec<u8>>, sealed_by: [u8; 32], sealed_for: Option<[u8; 32]> },
    Message { from: usize, to: usize, bytes: Arc<Vec<u8>> },
    Fallback { from: usize, life: u64, to: usize, sequence: u16, answered: bool },
    Closed { node: usize, life: u64, by: usize },
    Written { node: usize, life: u64, id: PersistId },
    Resume { node: usize },
}

/// One place where a node runs.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: SecretKey,
    pub(crate) id: NodeId,
    pub(crate) swim: Option<Swim>,
    pub(crate) disk: BTreeMap<Vec<u8>, Vec<u8>>,
    writing: BTreeMap<PersistId, Vec<Write>>,
    pub(crate) full: bool,
    life: u64,
    boot_key: [u8; 32],
    started: Time,
    pub(crate) clock_behind: Duration,
    pub(crate) seeds: Vec<NodeId>,
    pub(crate) pause: Pause,
    held_in: Vec<What>,
    held_out: Vec<What>,
    /// Of 1000 packets to it, so many are lost; connections too have to send again.
    pub(crate) deaf: u64,
    /// Packets do not reach it; connections do.
    pub(crate) walled: bool,
    /// What its description says beside its name and key.
    pub(crate) reach: Reach,
    pub(crate) anchors: Vec<NodeId>,
    /// When it last was in a condition in which others may hold it faulty.
    pub(crate) unwell_until: Time,
    pub(crate) side: u32,
    wake: Option<Time>,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) stream_bytes: u64,
    pub(crate) packets_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) events: Vec<(Time, Event)>,
    pub(crate) misbehaved: Vec<(Time, NodeId, &'static str)>,
    pub(crate) replies: Vec<bool>,
    pub(crate) removals: Vec<Result<(), RemoveError>>,
    /// What it was last told of each member: M3.
    known: BTreeMap<NodeId, (Incarnation, State)>,
}

/// A verdict on a member that was well.
#[derive(Clone)]
pub(crate) struct False {
    pub(crate) at: Time,
    pub(crate) observer: usize,
    pub(crate) subject: usize,
    /// Whether the observer was well too.
    pub(crate) healthy: bool,
    pub(crate) reason: Reason,
}

impl fmt::Debug for False {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, observer, subject, reason, .. } = self;
        write!(f, "n{observer} buried n{subject} at {:?}: {reason:?}", at.since(Time::ZERO))
    }
}

type Tap = Box<dyn FnMut(usize, usize, &[u8])>;

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) options: Options,
    pub(crate) nodes: Vec<Node>,
    pub(crate) index: BTreeMap<NodeId, usize>,
    /// Directed pairs that hear nothing.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Pairs that have a connection whatever the options say.
    links: BTreeSet<u64>,
    /// Places whose key another place has too.
    doubled: Vec<usize>,
    seed: u64,
    order: u64,
    queue: BTreeMap<(Time, u64), What>,
    wakes: BTreeSet<(Time, usize)>,
    verified: Verified,
    pub(crate) false_positives: Vec<False>,
    pub(crate) verdicts: u64,
    pub(crate) rejected: u64,
    /// Sees every packet that is sent.
    pub(crate) tap: Option<Tap>,
    pub(crate) steps: u64,
    /// A fingerprint of everything that was told: equal seeds have equal ones.
    pub(crate) audit: u64,
}

pub(crate) fn key(index: usize) -> SecretKey {
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&(index as u64 + 1).to_be_bytes());
    SecretKey::from_bytes(&bytes)
}

pub(crate) fn describe(name: usize, boot_key: [u8; 32], port: u16) -> Description {
    Description {
        name: format!("n{name}"),
        roles: BTreeSet::new(),
        addresses: vec![format!("/ip4/10.0.{}.{}/udp/7710/quic-v1", name / 256, name % 256)],
        udp_port: port,
        boot_key: ByteArray::new(boot_key),
        reach: Reach::Public,
        anchors: Vec::new(),
        tags: BTreeMap::new(),
    }
}

impl World {
    /// Places for so many nodes; none runs.
    pub(crate) fn empty(count: usize, options: Options) -> Self {
        let mut world = Self {
            now: Time::from_micros(1_000_000),
            nodes: Vec::new(),
            index: BTreeMap::new(),
            cut: BTreeSet::new(),
            links: BTreeSet::new(),
            doubled: Vec::new(),
            seed: options.seed,
            order: 0,
            queue: BTreeMap::new(),
            wakes: BTreeSet::new(),
            verified: BTreeMap::new(),
            false_positives: Vec::new(),
            verdicts: 0,
            rejected: 0,
            tap: None,
            steps: 0,
            audit: 0,
            options,
        };
        for index in 0..count {
            world.add(key(index));
        }
        world
    }

    /// Nodes that all remember each other, as after a while together.
    pub(crate) fn new(count: usize, options: Options) -> Self {
        let mut world = Self::empty(count, options);
        let memory = world.acquaint(count);
        for index in 0..count {
            world.start_with(index, &memory);
        }
        world.run(Duration::from_secs(5));
        world
    }

    /// What a node remembers that has met so many others.
    fn acquaint(&mut self, count: usize) -> Memory {
        let network = NetworkName::default();
        let mut rows = Vec::new();
        let claims: Vec<Signed> = (0..count)
            .map(|index| {
                let description = describe(index, [0; 32], 7711);
                let incarnation = Incarnation::of_epoch(1);
                let claim = Claim::Alive { incarnation, description };
                Signed::seal(&self.nodes[index].key, &network, &claim).unwrap()
            })
            .collect();
        // Learned and written by a node of its own, so that the rows are what a node writes.
        let mut scratch = Self::empty(1, Options::new(7));
        scratch.nodes[0].key = SecretKey::from_bytes(&[0xee; 32]);
        scratch.nodes[0].id = scratch.nodes[0].key.node_id();
        scratch.start(0);
        scratch.run(Duration::from_millis(100));
        let records = claims.into_iter().map(|claim| wattle_swim::Entry {
            record: Arc::new(claim),
            since: None,
            accusations: Vec::new(),
            removal: None,
            age_s: 0,
        });
        let message = Message::Records { records: records.collect(), want: Vec::new() };
        scratch.handle(0, Input::Message { from: self.nodes[0].id, message });
        for _ in 0..20 + count / 16 {
            scratch.queue.retain(|_, what| matches!(what, What::Written { .. }));
            scratch.run(Duration::from_millis(100));
        }
        rows.extend(scratch.nodes[0].disk.iter().filter(|(key, _)| *key != own_row_key()));
        assert_eq!(rows.len(), count, "everybody is on disk");
        let rows = rows.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Memory::read(rows, &network).unwrap()
    }

    /// One more place, which may have another's key.
    pub(crate) fn add(&mut self, key: SecretKey) -> usize {
        let (id, index) = (key.node_id(), self.nodes.len());
        if self.index.contains_key(&id) {
            self.doubled.push(index);
        }
        self.index.entry(id).or_insert(index);
        self.nodes.push(Node {
            key,
            id,
            swim: None,
            disk: BTreeMap::new(),
            writing: BTreeMap::new(),
            full: false,
            life: 0,
            boot_key: [0; 32],
            started: Time::ZERO,
            clock_behind: Duration::ZERO,
            seeds: Vec::new(),
            pause: Pause::No,
            held_in: Vec::new(),
            held_out: Vec::new(),
            deaf: 0,
            walled: false,
            reach: Reach::Public,
            anchors: Vec::new(),
            unwell_until: Time::ZERO,
            side: 0,
            wake: None,
            packets: 0,
            bytes: 0,
            stream_bytes: 0,
            packets_in: 0,
            bytes_in: 0,
            events: Vec::new(),
            misbehaved: Vec::new(),
            replies: Vec::new(),
            removals: Vec::new(),
            known: BTreeMap::new(),
        });
        index
    }

    /// A number below `below`; SplitMix64.
    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    /// Starts a node from its disk.
    pub(crate) fn start(&mut self, node: usize) {
        let rows = self.nodes[node].disk.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let memory = Memory::read(rows, &NetworkName::default()).unwrap();
        self.start_with(node, &memory);
    }

    fn start_with(&mut self, node: usize, memory: &Memory) {
        let (mut seed, mut boot_key) = ([0; 32], [0; 32]);
        for byte in seed.iter_mut().chain(&mut boot_key) {
            *byte = self.draw(256) as u8;
        }
        let (now, timing) = (self.now, self.options.timing.clone());
        let it = &mut self.nodes[node];
        it.life += 1;
        it.boot_key = boot_key;
        it.started = now;
        it.known.clear();
        it.writing.clear();
        it.pause = Pause::No;
        let wall = UnixTime::from_millis(1_800_000_000_000 - it.clock_behind.as_millis() as u64)
            .after(now.since(Time::ZERO));
        let (reach, anchors) = (it.reach, it.anchors.clone());
        let description = Description { reach, anchors, ..describe(node, boot_key, 7711) };
        let config =
            Config::new(it.key.clone(), NetworkName::default(), seed, wall, description, timing).unwrap();
        let config = config.with_seeds(it.seeds.iter().copied());
        let config = config.with_members_max(self.options.members_max).unwrap();
        it.swim = Some(Swim::new(config, memory));
        self.rest(node);
    }

    /// Kills a node: what its disk has not finished is lost.
    pub(crate) fn crash(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.swim = None;
        it.life += 1;
        it.writing.clear();
        it.held_in.clear();
        it.held_out.clear();
        it.pause = Pause::No;
        if let Some(at) = it.wake.take() {
            self.wakes.remove(&(at, node));
        }
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if self.is_up(other) && self.is_connected(node, other) && self.is_noticed(node, other) {
                let (life, delay) = (self.nodes[other].life, self.delay());
                self.schedule(delay, What::Closed { node: other, life, by: node });
            }
        }
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].swim.is_some()
    }

    pub(crate) fn swim(&self, node: usize) -> &Swim {
        self.nodes[node].swim.as_ref().unwrap()
    }

    /// Stops a node's process, or only its IO, for a while.
    pub(crate) fn pause(&mut self, node: usize, span: Duration, blocked: bool) {
        if !self.is_up(node) {
            return;
        }
        let until = self.now.after(span);
        self.nodes[node].pause = if blocked { Pause::Blocked(until) } else { Pause::Stopped(until) };
        self.nodes[node].unwell_until = until.after(Duration::from_secs(10));
        self.order += 1;
        self.queue.insert((until, self.order), What::Resume { node });
        if !blocked && let Some(at) = self.nodes[node].wake.take() {
            self.wakes.remove(&(at, node));
        }
    }

    /// Whether a member is up and was well for a while, so that nobody may hold it faulty.
    pub(crate) fn is_well(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        it.swim.is_some() && it.pause == Pause::No && it.deaf == 0 && self.now > it.unwell_until
    }

    fn schedule(&mut self, after_us: u64, what: What) {
        self.order += 1;
        self.queue.insert((self.now.after(Duration::from_micros(after_us)), self.order), what);
    }

    fn delay(&mut self) -> u64 {
        let jitter = self.options.jitter_us;
        self.options.delay_us + self.draw(jitter + 1)
    }

    /// Gives two nodes a connection.
    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        self.links.insert((a.min(b) as u64) << 32 | a.max(b) as u64);
    }

    fn is_connected(&self, a: usize, b: usize) -> bool {
        let pair = (a.min(b) as u64) << 32 | a.max(b) as u64;
        let mixed = pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        mixed % 100 < self.options.connected || self.links.contains(&pair)
    }

    fn is_noticed(&self, a: usize, b: usize) -> bool {
        let pair = (a.min(b) as u64) << 32 | a.max(b) as u64;
        (pair.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) % 100 < self.options.noticed
    }

    /// Whether a packet gets from one place to another.
    fn passes(&mut self, from: usize, to: usize) -> bool {
        let loss = self.options.loss;
        let kept = self.draw(1000) >= loss;
        let deaf = self.nodes[to].deaf;
        let heard = deaf == 0 || self.draw(1000) >= deaf;
        kept && heard && self.is_linked(from, to)
    }

    pub(crate) fn is_linked(&self, from: usize, to: usize) -> bool {
        self.nodes[from].side == self.nodes[to].side && !self.cut.contains(&(from, to))
    }

    /// How long a connection takes for one message, with its retransmissions; none if it gives up.
    fn over_connection(&mut self, from: usize, to: usize) -> Option<u64> {
        let mut waited = 0;
        for attempt in 0..6u32 {
            if self.passes(from, to) && self.passes(to, from) {
                return Some(waited + self.delay());
            }
            waited += 200_000 << attempt;
        }
        None
    }

    /// Sends a packet as `from` would.
    pub(crate) fn send_packet(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let sealed_by = self.nodes[from].boot_key;
        let sealed_for = self.nodes[from].swim.as_ref().and_then(|swim| key_of(swim, &self.nodes[to].id));
        let bytes = Arc::new(bytes);
        self.order += 1;
        let what = What::Packet { from, to, bytes, sealed_by, sealed_for };
        if matches!(self.nodes[from].pause, Pause::Blocked(_)) {
            self.nodes[from].held_out.push(what);
            return;
        }
        self.launch(what);
    }

    fn launch(&mut self, what: What) {
        let What::Packet { from, to, bytes, sealed_by, sealed_for } = what else { return };
        let copies = if self.options.double > 0 && self.draw(1000) < self.options.double { 2 } else { 1 };
        for _ in 0..copies {
            if self.passes(from, to) && !self.nodes[to].walled {
                let (delay, bytes) = (self.delay(), Arc::clone(&bytes));
                self.schedule(delay, What::Packet { from, to, bytes, sealed_by, sealed_for });
            }
        }
    }

    /// Opens a claim once for all nodes: whether it holds depends on it alone.
    pub(crate) fn open(&mut self, envelope: Envelope) -> Result<Arc<Signed>, RejectedClaim> {
        open(&mut self.verified, envelope)
    }

    /// A machine's clock is its own: it begins with its start.
    fn local(&self, node: usize) -> Time {
        Time::ZERO.after(self.now.since(self.nodes[node].started))
    }

    /// Gives an input to a node and does what it asks for.
    pub(crate) fn handle(&mut self, node: usize, input: Input) {
        let (local, mut out) = (self.local(node), Outbox::new());
        let Some(swim) = &mut self.nodes[node].swim else { return };
        swim.handle(local, input, &mut out);
        self.steps += 1;
        let outputs: Vec<Output> = out.drain().collect();
        for output in outputs {
            self.obey(node, output);
        }
        self.rest(node);
    }

    /// Notes when a node is to be woken next.
    fn rest(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let deadline = it.swim.as_ref().and_then(|swim| swim.deadline());
        let asleep = matches!(it.pause, Pause::Stopped(_));
        let wake = deadline.filter(|_| !asleep).map(|at| it.started.after(at.since(Time::ZERO)));
        if wake != it.wake {
            if let Some(at) = it.wake {
                self.wakes.remove(&(at, node));
            }
            if let Some(at) = wake {
                self.wakes.insert((at, node));
            }
            it.wake = wake;
        }
    }

    fn obey(&mut self, node: usize, output: Output) {
        match output {
            Output::Packet { to, bytes } => {
                assert!(bytes.len() <= PACKET_BYTES_MAX, "a packet of {} bytes", bytes.len());
                self.assert_persisted(node);
                self.nodes[node].packets += 1;
                self.nodes[node].bytes += bytes.len() as u64 + AROUND;
                let sealed_for = self.nodes[node].swim.as_ref().and_then(|swim| key_of(swim, &to));
                let Some(to) = self.place_of(&to, sealed_for) else { return };
                if let Some(tap) = &mut self.tap {
                    tap(node, to, &bytes);
                }
                self.send_packet(node, to, bytes);
            }
            Output::Message { to, bytes } => {
                assert!(bytes.len() <= STREAM_BYTES_MAX, "a message of {} bytes", bytes.len());
                self.assert_persisted(node);
                self.nodes[node].stream_bytes += bytes.len() as u64;
                let Some(to) = self.place_of(&to, None) else { return };
                if let Some(delay) = self.over_connection(node, to) {
                    self.schedule(delay, What::Message { from: node, to, bytes: Arc::new(bytes) });
                }
            }
            Output::FallbackPing { peer, sequence } => self.fallback(node, peer, sequence),
            Output::Persist { id, writes } => {
                if self.nodes[node].full {
                    self.handle(node, Input::NotPersisted { id, why: "the disk is full".to_owned() });
                    return;
                }
                self.nodes[node].writing.insert(id, writes);
                let (life, delay) = (self.nodes[node].life, self.draw(self.options.disk_ms * 1000 + 1));
                self.schedule(delay, What::Written { node, life, id });
            }
            Output::Contact { .. } | Output::Forget { .. } => {}
            Output::Notify(event) => self.note(node, event),
            Output::Reply { answered, .. } => self.nodes[node].replies.push(answered),
            Output::Removed { outcome, .. } => self.nodes[node].removals.push(outcome),
            Output::Misbehaved { peer, why } => {
                let now = self.now;
                self.nodes[node].misbehaved.push((now, peer, why));
            }
        }
    }

    /// Where a member's packets go: two may run with its key, and each has an address of its own.
    fn place_of(&mut self, id: &NodeId, sealed_for: Option<[u8; 32]>) -> Option<usize> {
        let first = self.index.get(id).copied()?;
        if self.doubled.is_empty() || self.nodes[first].swim.is_none() {
            return Some(first);
        }
        let others = self.doubled.iter().filter(|it| self.nodes[**it].id == *id && self.is_up(**it));
        let places: Vec<usize> = [first].into_iter().chain(others.copied()).collect();
        let known = places.iter().copied().find(|it| sealed_for == Some(self.nodes[*it].boot_key));
        let drawn = self.draw(places.len() as u64) as usize;
        Some(known.unwrap_or(places[drawn]))
    }

    /// Nothing leaves a node before its epoch is on disk.
    fn assert_persisted(&self, node: usize) {
        let it = &self.nodes[node];
        let stored = it.disk.get(own_row_key());
        let epoch = stored.and_then(|bytes| wattle_types::cbor::decode::<u32>(bytes, 8).ok());
        let own = it.swim.as_ref().map(|swim| swim.incarnation().epoch());
        assert!(epoch >= own && epoch.is_some(), "n{node} sends as {own:?} and has {epoch:?} on disk");
    }

    fn fallback(&mut self, node: usize, peer: NodeId, sequence: u16) {
        let life = self.nodes[node].life;
        let to = self.index.get(&peer).copied().unwrap_or(node);
        let answer = |answered| What::Fallback { from: node, life, to, sequence, answered };
        let gone = !self.is_up(to);
        if !self.is_connected(node, to) || (gone && self.is_noticed(node, to)) {
            // No connection, or one that the dead end's kernel has closed.
            self.schedule(100, answer(false));
            return;
        }
        if gone {
            self.schedule(self.options.timing.fallback_timeout.as_micros() as u64, answer(false));
            return;
        }
        for attempt in [0, 200_000, 600_000] {
            if self.nodes[to].pause == Pause::No && self.passes(node, to) && self.passes(to, node) {
                let delay = attempt + self.delay() + self.delay();
                self.schedule(delay, answer(true));
                return;
            }
        }
        self.schedule(1_000_000, answer(false));
    }

    /// Keeps an event, and holds it to what was told before.
    fn note(&mut self, node: usize, event: Event) {
        let now = self.now;
        if let Event::MemberChanged { member, to, incarnation, why, .. } = &event {
            self.check_order(node, member, *to, *incarnation);
            if *to == State::Faulty {
                self.verdicts += 1;
                let subject = self.index.get(member).copied();
                if let Some(subject) = subject.filter(|subject| self.is_well(*subject)) {
                    let healthy = self.is_well(node);
                    if self.is_linked(node, subject) && self.is_linked(subject, node) {
                        let reason = why.reason;
                        let at = now;
                        self.false_positives.push(False { at, observer: node, subject, healthy, reason });
                    }
                }
            }
        }
        if let Event::Forgotten { member, .. } = &event {
            self.nodes[node].known.remove(member);
        }
        let mut text = format!("{now:?} {node} {event:?}").into_bytes();
        text.extend(self.audit.to_be_bytes());
        for byte in text {
            self.audit = (self.audit ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.nodes[node].events.push((now, event));
    }

    /// M3: incarnations only grow, and nobody comes back as the incarnation that it failed or left as.
    fn check_order(&mut self, node: usize, member: &NodeId, to: State, incarnation: Incarnation) {
        let before = self.nodes[node].known.insert(*member, (incarnation, to));
        let Some((known, state)) = before else { return };
        let seed = self.options.seed;
        assert!(incarnation >= known, "M3 seed {seed}: n{node} saw {member:?} go back to {incarnation}");
        let over = matches!(state, State::Faulty | State::Left | State::Removed);
        let back = over && matches!(to, State::Alive | State::Suspect);
        assert!(!back || incarnation > known, "M3 seed {seed}: {member:?} came back as it was at n{node}");
    }

    /// Lets everything happen that happens within a span.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now.after(span);
        self.run_until(end, &mut |_| false);
    }

    /// Lets things happen until a condition holds, at most so long. How long it took, if it holds.
    pub(crate) fn until(&mut self, most: Duration, done: &mut dyn FnMut(&Self) -> bool) -> Option<Duration> {
        let (begin, end) = (self.now, self.now.after(most));
        while self.now < end {
            if done(self) {
                return Some(self.now.since(begin));
            }
            self.run(Duration::from_millis(20));
        }
        done(self).then(|| self.now.since(begin))
    }

    fn run_until(&mut self, end: Time, done: &mut dyn FnMut(&Self) -> bool) {
        let (begin, mut steps) = (self.now, 0u64);
        loop {
            let wake = self.wakes.first().copied().filter(|(at, _)| *at <= end);
            let next = self.queue.first_key_value().map(|(key, _)| *key).filter(|key| key.0 <= end);
            match (next, wake) {
                (Some(key), wake) if wake.is_none_or(|(at, _)| key.0 <= at) => {
                    self.now = self.now.max(key.0);
                    if let Some(what) = self.queue.remove(&key) {
                        self.happen(what);
                    }
                }
                (_, Some((at, node))) => {
                    self.now = self.now.max(at);
                    self.handle(node, Input::Wake);
                }
                _ => break,
            }
            steps += 1;
            let most = 4000 * self.nodes.len() as u64 * (end.since(begin).as_secs() + 1);
            assert!(steps < most, "seed {}: the nodes talk without end", self.options.seed);
            if done(self) {
                return;
            }
        }
        self.now = end;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Packet { to, .. } | What::Message { to, .. } if self.nodes[to].pause != Pause::No => {
                // A socket's buffer holds what the kernel gives it.
                if self.nodes[to].held_in.len() < 512 {
                    self.nodes[to].held_in.push(what);
                }
            }
            What::Packet { from, to, bytes, sealed_by, sealed_for } => {
                self.deliver(from, to, &bytes, sealed_by, sealed_for);
            }
            What::Message { from, to, bytes } => self.deliver_message(from, to, &bytes),
            What::Fallback { from, life, to, sequence, answered } => {
                if self.nodes[from].life == life && self.nodes[from].pause == Pause::No {
                    let peer = self.nodes[to].id;
                    self.handle(from, Input::FallbackAnswered { peer, sequence, answered });
                }
            }
            What::Closed { node, life, by } => {
                if self.nodes[node].life == life && self.is_linked(by, node) {
                    let peer = self.nodes[by].id;
                    self.handle(node, Input::Doubt { peer });
                }
            }
            What::Written { node, life, id } => {
                if self.nodes[node].life != life {
                    return;
                }
                let Some(writes) = self.nodes[node].writing.remove(&id) else { return };
                apply(&mut self.nodes[node].disk, writes);
                self.handle(node, Input::Persisted { id });
            }
            What::Resume { node } => self.resume(node),
        }
    }

    /// A paused node goes on: packets first, then timers.
    fn resume(&mut self, node: usize) {
        let (Pause::Stopped(until) | Pause::Blocked(until)) = self.nodes[node].pause else { return };
        if until > self.now {
            return;
        }
        self.nodes[node].pause = Pause::No;
        for what in std::mem::take(&mut self.nodes[node].held_in) {
            self.happen(what);
        }
        for what in std::mem::take(&mut self.nodes[node].held_out) {
            self.launch(what);
        }
        self.rest(node);
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: &[u8], by: [u8; 32], sealed_for: Option<[u8; 32]>) {
        let (sender, local, own) = (self.nodes[from].id, self.local(to), self.nodes[to].boot_key);
        self.nodes[to].packets_in += 1;
        self.nodes[to].bytes_in += bytes.len() as u64 + AROUND;
        let Some(swim) = &mut self.nodes[to].swim else { return };
        let readable = key_of(swim, &sender) == Some(by) && sealed_for == Some(own);
        if !readable {
            self.handle(to, Input::Unreadable { sender: ShortId::of(&sender) });
            return;
        }
        if !swim.reads(local, &sender) {
            return;
        }
        match Packet::decode(bytes, &|short| swim.resolve(short)) {
            Ok(packet) => {
                let mut verified = std::mem::take(&mut self.verified);
                let opened = swim.open(packet, &mut |claim| open(&mut verified, claim.envelope()));
                self.verified = verified;
                match opened {
                    Ok(packet) => self.handle(to, Input::Packet { from: sender, packet }),
                    Err(_) => self.rejected += 1,
                }
            }
            Err(_) => self.rejected += 1,
        }
    }

    fn deliver_message(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if !self.is_up(to) {
            return;
        }
        let sender = self.nodes[from].id;
        let message = Message::decode(bytes).and_then(|it| it.check(&mut |envelope| self.open(envelope)));
        match message {
            Ok(message) => self.handle(to, Input::Message { from: sender, message }),
            Err(_) => self.rejected += 1,
        }
    }
}

/// The key that a node seals packets to a member with.
fn key_of(swim: &Swim, member: &NodeId) -> Option<[u8; 32]> {
    let description = swim.record(member)?.description()?;
    Some(description.boot_key.into_array())
}

fn apply(disk: &mut BTreeMap<Vec<u8>, Vec<u8>>, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::Put { key, value, .. } => drop(disk.insert(key, value)),
            Write::Remove { key, .. } => drop(disk.remove(&key)),
            Write::RemoveRange { range, .. } => disk.retain(|key, _| !range.contains(key)),
        }
    }
}
