//! Some validators with a network, disks, applications and clocks that obey one seed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;
use wattle_order::{
    Alarm, BlockId, ChainEnd, Checked, Checker, Committee, Config, Core, Digest, Epoch, Evidence, Genesis,
    Height, Input, Message, Output, Payload, Proposal, Record, Recovered, Rejected, Rules, SafetyRecord,
    Seen, Seq, Sound, To, Validator, Validators, Verdict, catch_up,
};
use wattle_types::{Machine as _, NetworkName, NodeId, Outbox, SecretKey, Time, UnixTime};

use crate::carry::{Carried, Event};
use crate::judge::Judge;
use crate::liars::Liar;
use crate::ranges::{self, Ranged};
use crate::saved::Saved;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, below: u64) -> u64 {
        if below == 0 { 0 } else { self.next() % below }
    }

    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What the network, the disks and the applications do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) n: usize,
    /// The first seats run in two places each, with the same key.
    pub(crate) twins: usize,
    pub(crate) rules: Rules,
    pub(crate) config: Config,
    /// Of 1000 messages, so many are lost, so many doubled.
    pub(crate) loss: u64,
    pub(crate) double: u64,
    /// How long a message takes at the least, and how much longer it may.
    pub(crate) delay_us: u64,
    pub(crate) jitter_us: u64,
    pub(crate) disk_us: u64,
    /// A transaction comes so often; 0: none.
    pub(crate) load_us: u64,
    /// Keep every input, to replay it.
    pub(crate) record: bool,
    /// Messages travel as bytes.
    pub(crate) wire: bool,
    /// Keep every message.
    pub(crate) keep: bool,
    /// With the payload path: entries of so many bytes travel by it.
    pub(crate) payload: Option<usize>,
    /// Blocks are fetched by height with the machine for that.
    pub(crate) ranges: bool,
    /// Rule K.
    pub(crate) guards_key: bool,
}

impl Options {
    pub(crate) fn new(seed: u64, n: usize) -> Self {
        let millis = Duration::from_millis;
        Self {
            seed,
            n,
            twins: 0,
            rules: Rules { opening: Vec::new(), skip_blocks: 0, lag: 4 },
            config: Config {
                timeout: millis(100),
                timeout_max: millis(2000),
                retry: millis(100),
                idle: millis(50),
                fetch_retry: millis(20),
                guards_key: false,
            },
            loss: 0,
            double: 0,
            delay_us: 1000,
            jitter_us: 500,
            disk_us: 200,
            load_us: 0,
            record: false,
            wire: false,
            keep: false,
            payload: None,
            ranges: false,
            guards_key: true,
        }
    }
}

/// A message under way; checked once for all who get it.
#[derive(Debug)]
pub(crate) struct Packet {
    message: Arc<Message>,
    checked: RefCell<Option<(Epoch, Result<Sound, Rejected>)>>,
}

#[derive(Clone, Debug)]
enum What {
    Deliver { from: usize, to: usize, packet: Rc<Packet> },
    Input { place: usize, life: u64, input: Box<Input> },
    Synced { place: usize, life: u64, server: usize, above: Height },
    Sync { place: usize, life: u64 },
    Written { place: usize, life: u64, count: usize },
    Wake { place: usize, life: u64 },
    Carry { place: usize, life: u64, event: Box<Event> },
    Load,
}

/// The file that records go to. What was written after the last fsync is lost or torn when the machine stops.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) log: Vec<(Seq, Record)>,
    pub(crate) synced: usize,
    syncing: bool,
    pub(crate) slow_us: Option<u64>,
    pub(crate) broken: bool,
    /// The last safety record of each epoch that is on disk.
    pub(crate) safety: BTreeMap<Epoch, SafetyRecord>,
    /// Up to this height it has a snapshot and no blocks.
    pub(crate) base: usize,
}

impl Disk {
    /// So many records are on disk now.
    pub(crate) fn have_synced(&mut self, count: usize) {
        for (_, record) in &self.log[self.synced..count] {
            if let Record::Safety(safety) | Record::Epoch { safety, .. } = record {
                self.safety.insert(safety.epoch, (**safety).clone());
            }
        }
        self.synced = count;
    }
}

/// What is committed, with the state behind it.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) block: Checked<Proposal>,
    pub(crate) root: Digest,
}

/// One place where a validator runs.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) key: SecretKey,
    pub(crate) id: NodeId,
    pub(crate) core: Option<Core>,
    pub(crate) checker: Checker,
    pub(crate) disk: Disk,
    pub(crate) life: u64,
    pub(crate) twin: bool,
    pub(crate) liar: Option<Liar>,
    pub(crate) chain: Vec<Applied>,
    /// Blocks the application has seen: their parent and transactions.
    known: BTreeMap<BlockId, (BlockId, Vec<u64>)>,
    pub(crate) ordered: BTreeSet<u64>,
    pub(crate) mempool: BTreeSet<u64>,
    wake: Option<Time>,
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) evidence: Vec<Checked<Evidence>>,
    pub(crate) misbehaved: Vec<(NodeId, &'static str)>,
    /// Its application goes wrong from this height.
    pub(crate) wrong_from: Option<u64>,
    pub(crate) next_validators: Option<Validators>,
    pub(crate) trace: Vec<(Time, Input, Digest, Digest)>,
    pub(crate) commit_times: Vec<Time>,
    /// What it hears comes so much later; so long its application thinks about a block.
    pub(crate) lag_us: u64,
    pub(crate) think_us: u64,
    /// Crash at this persistence point: so many outputs from now that persist or send.
    pub(crate) fuse: Option<u64>,
    pub(crate) carried: Carried,
    pub(crate) ranged: Ranged,
    /// What its apps are saved as, if they are.
    pub(crate) saved: Option<Saved>,
}

impl Place {
    pub(crate) fn honest(&self) -> bool {
        !self.twin && self.liar.is_none()
    }

    pub(crate) fn height(&self) -> u64 {
        self.chain.len() as u64
    }

    pub(crate) fn round(&self) -> u64 {
        self.core.as_ref().map_or(0, |core| core.status().round.0)
    }
}

/// Who hears whom while the sender is in a round, by place.
pub(crate) type Script = Vec<Vec<u8>>;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) places: Vec<Place>,
    pub(crate) genesis: Genesis,
    pub(crate) committee: Arc<Committee>,
    pub(crate) seen: Seen,
    pub(crate) judge: Judge,
    /// Directed pairs of places that hear nothing.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// In the first rounds, who is on which side.
    pub(crate) script: Script,
    pub(crate) sent: Vec<Arc<Message>>,
    queue: BTreeMap<(Time, u64), What>,
    order: u64,
    next_tx: u64,
    pub(crate) submitted: BTreeMap<u64, Time>,
}

pub(crate) fn key(seat: usize) -> SecretKey {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(seat as u64).to_be_bytes());
    SecretKey::from_bytes(&bytes)
}

/// Keys in the order of seats.
pub(crate) fn keys(n: usize) -> Vec<SecretKey> {
    let mut keys: Vec<SecretKey> = (0..n).map(key).collect();
    keys.sort_by_key(SecretKey::node_id);
    keys
}

pub(crate) fn validators(keys: &[SecretKey]) -> Validators {
    Validators::new(keys.iter().map(|key| Validator { id: key.node_id(), weight: 1 }).collect()).unwrap()
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let keys = keys(options.n);
        let genesis = Genesis {
            network: NetworkName::default(),
            validators: validators(&keys),
            rules: options.rules.clone(),
            created: UnixTime::from_millis(1),
        };
        let committee = Arc::new(Committee::genesis(&genesis));
        let mut world = Self {
            now: Time::from_micros(1),
            random: Random(options.seed),
            places: Vec::new(),
            seen: Seen::new(),
            judge: Judge::default(),
            cut: BTreeSet::new(),
            script: Vec::new(),
            sent: Vec::new(),
            queue: BTreeMap::new(),
            order: 0,
            next_tx: 1,
            submitted: BTreeMap::new(),
            genesis,
            committee,
            options,
        };
        for (seat, key) in keys.iter().enumerate() {
            world.add_place(key.clone(), seat < world.options.twins);
        }
        for key in keys.iter().take(world.options.twins) {
            world.add_place(key.clone(), true);
        }
        (0..world.places.len()).for_each(|place| world.start(place));
        if world.options.load_us > 0 {
            world.schedule(world.options.load_us, What::Load);
        }
        world
    }

    pub(crate) fn add_place(&mut self, key: SecretKey, twin: bool) -> usize {
        self.places.push(Place {
            id: key.node_id(),
            key,
            core: None,
            checker: Checker::new(Arc::clone(&self.committee)),
            disk: Disk::default(),
            life: 0,
            twin,
            liar: None,
            chain: Vec::new(),
            known: BTreeMap::new(),
            ordered: BTreeSet::new(),
            mempool: BTreeSet::new(),
            wake: None,
            alarms: Vec::new(),
            evidence: Vec::new(),
            misbehaved: Vec::new(),
            wrong_from: None,
            next_validators: None,
            trace: Vec::new(),
            commit_times: Vec::new(),
            lag_us: 0,
            think_us: 0,
            fuse: None,
            carried: Carried::default(),
            ranged: Ranged::default(),
            saved: None,
        });
        self.places.len() - 1
    }

    pub(crate) fn carry_later(&mut self, in_us: u64, place: usize, event: Event) {
        let life = self.places[place].life;
        self.schedule(in_us, What::Carry { place, life, event: Box::new(event) });
    }

    fn schedule(&mut self, in_us: u64, what: What) {
        self.order += 1;
        let at = self.now.after(Duration::from_micros(in_us));
        self.queue.insert((at, self.order), what);
    }

    /// The machine stops: what no fsync covers is lost from a record on, and the record there is torn.
    pub(crate) fn crash(&mut self, place: usize) {
        let lost = {
            let disk = &self.places[place].disk;
            disk.log.len() - disk.synced
        };
        let kept = self.random.below(lost as u64 + 1) as usize;
        self.crash_keeping(place, kept);
    }

    /// As [`Self::crash`]; of the records without an fsync so many reached the disk all the same.
    pub(crate) fn crash_keeping(&mut self, place: usize, kept: usize) {
        let place = &mut self.places[place];
        place.core = None;
        place.carried.crash();
        place.life += 1;
        place.wake = None;
        place.fuse = None;
        let end = (place.disk.synced + kept).min(place.disk.log.len());
        place.disk.log.truncate(end);
        place.disk.have_synced(end);
        place.disk.syncing = false;
    }

    /// Starts a place from its disk.
    pub(crate) fn start(&mut self, place: usize) {
        let genesis = Arc::clone(&self.committee);
        let records: Vec<Record> =
            self.places[place].disk.log.iter().map(|(_, record)| record.clone()).collect();
        let committed = self.apply_log(place, &records);
        let recovered = Recovered::read(genesis, &mut self.seen, records).unwrap();
        // Twins are one key in two places.
        let guards_key = self.options.twins == 0 && self.options.guards_key;
        let config = Config { guards_key, ..self.options.config.clone() };
        let here = &mut self.places[place];
        here.checker = Checker::new(Arc::clone(recovered.committee()));
        here.core = Some(Core::new(config, here.key.clone(), recovered));
        here.life += 1;
        here.trace.clear();
        self.start_payloads(place, committed);
        self.start_ranges(place);
        let here = &mut self.places[place];
        let tail: Vec<(Height, Digest)> = here
            .chain
            .iter()
            .rev()
            .take(64)
            .map(|applied| (applied.block.header().height, applied.root))
            .collect();
        let waits = !here.mempool.is_empty();
        for (height, root) in tail.into_iter().rev() {
            self.handle(place, Input::Executed { height, root });
        }
        self.handle(place, Input::Wake);
        self.handle(place, Input::Waiting(waits));
    }

    /// Runs for a span.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now.after(span);
        self.run_until(end, |_| false);
    }

    /// Runs until something holds, at most to an end. Whether it holds.
    pub(crate) fn run_until(&mut self, end: Time, done: impl Fn(&Self) -> bool) -> bool {
        while let Some(((at, _), _)) = self.queue.first_key_value() {
            if *at > end {
                break;
            }
            let Some(((at, _), what)) = self.queue.pop_first() else { break };
            self.now = at;
            self.happen(what);
            if done(self) {
                return true;
            }
        }
        self.now = end;
        done(self)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Deliver { from, to, packet } => self.deliver(from, to, &packet),
            What::Input { place, life, input } if self.places[place].life == life => {
                self.handle(place, *input);
            }
            What::Synced { place, life, server, above } if self.places[place].life == life => {
                self.serve(place, server, above);
            }
            What::Sync { place, life } if self.places[place].life == life => self.begin_sync(place),
            What::Written { place, life, count } if self.places[place].life == life => {
                self.written(place, count);
            }
            What::Wake { place, life } if self.places[place].life == life => {
                self.places[place].wake = None;
                let due = self.places[place].core.as_ref().and_then(Core::deadline);
                if due.is_some_and(|due| due <= self.now) {
                    self.handle(place, Input::Wake);
                } else {
                    self.set_wake(place);
                }
            }
            What::Carry { place, life, event } if self.places[place].life == life => {
                self.carried(place, *event);
            }
            What::Load => {
                self.submit();
                self.schedule(self.options.load_us, What::Load);
            }
            _ => {}
        }
    }

    /// Another transaction, that nobody was given yet.
    pub(crate) fn next(&mut self) -> u64 {
        let tx = self.next_tx;
        self.next_tx += 1;
        self.submitted.insert(tx, self.now);
        tx
    }

    /// A client hands a transaction to everybody.
    pub(crate) fn submit(&mut self) -> u64 {
        let tx = self.next();
        if self.options.payload.is_some() {
            self.hand_in(tx);
            return tx;
        }
        for place in 0..self.places.len() {
            self.places[place].mempool.insert(tx);
            if self.places[place].core.is_some() {
                self.handle(place, Input::Waiting(true));
            }
        }
        tx
    }

    pub(crate) fn handle(&mut self, place: usize, input: Input) {
        let here = &mut self.places[place];
        let Some(core) = here.core.as_mut() else { return };
        let mut out = Outbox::new();
        let recorded = self.options.record.then(|| input.clone());
        core.handle(self.now, input, &mut out);
        core.check_invariants();
        if let Some(input) = recorded {
            here.trace.push((self.now, input, core.digest(), digest_of(out.as_slice())));
        }
        let outputs: Vec<Output> = out.drain().collect();
        let life = here.life;
        for output in outputs {
            if matches!(output, Output::Persist { .. } | Output::Send { .. }) && self.burns(place) {
                return;
            }
            self.output(place, output);
            if self.places[place].life != life {
                return;
            }
        }
        self.set_wake(place);
    }

    /// Whether the machine stops at this persistence point.
    fn burns(&mut self, place: usize) -> bool {
        let here = &mut self.places[place];
        let Some(fuse) = here.fuse.as_mut() else { return false };
        *fuse = fuse.saturating_sub(1);
        if *fuse > 0 {
            return false;
        }
        self.crash(place);
        true
    }

    fn set_wake(&mut self, place: usize) {
        let here = &mut self.places[place];
        let Some(at) = here.core.as_ref().and_then(Core::deadline) else { return };
        let at = at.max(self.now);
        if here.wake.is_none_or(|set| at < set) {
            here.wake = Some(at);
            let life = here.life;
            let in_us = at.since(self.now).as_micros() as u64;
            self.schedule(in_us, What::Wake { place, life });
        }
    }

    pub(crate) fn later(&mut self, place: usize, in_us: u64, input: Input) {
        let life = self.places[place].life;
        self.schedule(in_us, What::Input { place, life, input: Box::new(input) });
    }

    fn output(&mut self, place: usize, output: Output) {
        let Some(output) = self.divert(place, output) else { return };
        match output {
            Output::Persist { seq, record } => {
                self.places[place].disk.log.push((seq, record));
                self.sync_disk(place);
            }
            Output::Send { to, message } => self.send(place, to, &message),
            Output::Build { round, parent } => {
                let (payload, next) = self.build(place, &parent);
                let time = UnixTime::from_millis(self.now.as_micros() / 1000 + 1);
                self.later(place, 0, Input::Built { round, payload, time, next });
            }
            Output::Validate { block } => {
                let verdict = self.judge_block(place, &block);
                let us = self.places[place].think_us;
                self.later(place, us, Input::Judged { block: block.id(), verdict });
            }
            Output::Commit { blocks, proof } => {
                self.judge.check_proof(&self.options, &self.places[place], &blocks, &proof);
                for block in blocks {
                    let height = block.header().height;
                    let transactions = transactions(&block);
                    let root = self.execute(place, block, &transactions);
                    self.later(place, 100, Input::Executed { height, root });
                }
                if self.places[place].mempool.is_empty() {
                    self.later(place, 0, Input::Waiting(false));
                }
            }
            Output::Behind { above, target } if self.options.ranges => {
                self.ranged(place, ranges::Event::Input(catch_up::Input::Behind { above, target }));
            }
            Output::Behind { above, .. } => {
                let best = |index: &usize| self.places[*index].height() > above.0;
                let servers: Vec<usize> = (0..self.places.len()).filter(best).collect();
                if !servers.is_empty() {
                    let server = servers[self.random.below(servers.len() as u64) as usize];
                    let life = self.places[place].life;
                    self.schedule(5_000, What::Synced { place, life, server, above });
                }
            }
            Output::EpochEnded { committee, .. } => {
                self.places[place].checker = Checker::new(Arc::clone(&committee));
                self.ranged(place, ranges::Event::Input(catch_up::Input::EpochEnded(committee)));
            }
            Output::Evidence(evidence) => self.places[place].evidence.push(evidence),
            Output::Alarm(alarm) => self.places[place].alarms.push(alarm),
            Output::Misbehaved { peer, why } => self.places[place].misbehaved.push((peer, why)),
        }
    }

    /// One fsync at a time covers all that was written before it began; it begins when this moment's inputs are
    /// handled.
    fn sync_disk(&mut self, place: usize) {
        let life = self.places[place].life;
        let disk = &mut self.places[place].disk;
        if !disk.syncing && disk.synced < disk.log.len() {
            disk.syncing = true;
            self.schedule(0, What::Sync { place, life });
        }
    }

    fn begin_sync(&mut self, place: usize) {
        let us = self.places[place].disk.slow_us.unwrap_or(self.options.disk_us);
        let life = self.places[place].life;
        let count = self.places[place].disk.log.len();
        self.schedule(us, What::Written { place, life, count });
    }

    fn written(&mut self, place: usize, count: usize) {
        let disk = &mut self.places[place].disk;
        disk.syncing = false;
        if disk.broken {
            self.handle(place, Input::NotPersisted);
            return;
        }
        disk.have_synced(count);
        let upto = disk.log[count - 1].0;
        self.handle(place, Input::Persisted { upto });
        self.sync_disk(place);
    }

    pub(crate) fn send(&mut self, place: usize, to: To, message: &Arc<Message>) {
        if self.places[place].honest() {
            self.judge.check_sent(&self.places[place], message, &self.options);
        }
        if let Some(liar) = self.places[place].liar.clone() {
            for (to, message) in liar.instead(self, place, to, message) {
                self.transmit(place, to, &Arc::new(message));
            }
        } else {
            self.transmit(place, to, message);
        }
    }

    pub(crate) fn transmit(&mut self, place: usize, to: To, message: &Arc<Message>) {
        let message = if self.options.wire {
            Arc::new(Message::decode(&message.encode()).unwrap())
        } else {
            Arc::clone(message)
        };
        if self.options.keep {
            self.sent.push(Arc::clone(&message));
        }
        let packet = Rc::new(Packet { message, checked: RefCell::new(None) });
        for other in 0..self.places.len() {
            let meant = match to {
                To::All => self.places[other].id != self.places[place].id,
                To::One(id) => self.places[other].id == id,
            };
            if meant
                && other != place
                && !self.is_cut(place, other, &packet.message)
                && !self.random.chance(self.options.loss)
            {
                self.carry(place, other, &packet);
                if self.random.chance(self.options.double) {
                    self.carry(place, other, &packet);
                }
            }
        }
    }

    fn is_cut(&self, from: usize, to: usize, message: &Message) -> bool {
        // A round that no side can end does not last for ever: repeated timeouts pass.
        let repeated = matches!(message, Message::Timeout(timeout) if timeout.tick >= 2);
        self.is_apart(from, to, repeated)
    }

    pub(crate) fn is_apart(&self, from: usize, to: usize, repeated: bool) -> bool {
        let round = self.places[from].round() as usize;
        let sides = round.checked_sub(1).and_then(|round| self.script.get(round));
        let scripted = !repeated && sides.is_some_and(|sides| sides[from] != sides[to]);
        self.cut.contains(&(from, to)) || scripted
    }

    fn carry(&mut self, from: usize, to: usize, packet: &Rc<Packet>) {
        let us =
            self.options.delay_us + self.random.below(self.options.jitter_us + 1) + self.places[to].lag_us;
        self.schedule(us, What::Deliver { from, to, packet: Rc::clone(packet) });
    }

    fn deliver(&mut self, from: usize, to: usize, packet: &Rc<Packet>) {
        if self.places[to].core.is_none() {
            return;
        }
        let checker = &self.places[to].checker;
        let epoch = checker.committee().epoch();
        let known = packet.checked.borrow().as_ref().filter(|(known, _)| *known == epoch).cloned();
        let (_, checked) = known.unwrap_or_else(|| {
            let checked = (epoch, checker.check(&mut self.seen, (*packet.message).clone()));
            *packet.checked.borrow_mut() = Some(checked.clone());
            checked
        });
        let id = self.places[from].id;
        match checked {
            Ok(message) => {
                self.judge.note(to, &message);
                if let Some(liar) = self.places[to].liar.clone() {
                    for (to_whom, said) in liar.answer(self, to, &message) {
                        self.transmit(to, to_whom, &Arc::new(said));
                    }
                }
                self.handle(to, Input::Received { from: id, message });
            }
            Err(Rejected::OtherEpoch { got, .. }) => {
                self.handle(to, Input::OtherEpoch { from: id, epoch: got });
            }
            Err(why) => {
                let liar = !self.places[from].honest();
                assert!(liar, "place {to} refuses what place {from} says: {why}: {:?}", packet.message);
            }
        }
    }

    fn serve(&mut self, place: usize, server: usize, above: Height) {
        let chain = &self.places[server].chain;
        let epoch = self.places[place].checker.committee().epoch();
        let from = above.0 as usize;
        let same: Vec<&Applied> = chain
            .iter()
            .skip(from)
            .take(65)
            .take_while(|applied| applied.block.header().epoch == epoch)
            .collect();
        let Some((last, blocks)) = same.split_last() else { return };
        let proofs = self.places[server].disk.log.iter().filter_map(|(_, record)| match record {
            Record::Epoch { proof, .. } if proof.header.id() == last.block.id() => Some(proof),
            _ => None,
        });
        let (end, blocks) = match proofs.into_iter().next() {
            Some(proof) => (ChainEnd::Epoch(proof.clone()), same.as_slice()),
            None => (ChainEnd::Certified(Box::new(last.block.block.qc.clone())), blocks),
        };
        let blocks: Vec<Proposal> = blocks.iter().map(|applied| (*applied.block).clone()).collect();
        let checked = self.places[place].checker.check_chain(&mut self.seen, blocks, &end).unwrap();
        self.handle(place, Input::Synced { blocks: checked });
    }

    /// What is neither committed nor in a block between the tip and the parent.
    fn build(&self, place: usize, parent: &BlockId) -> (Payload, Option<Validators>) {
        let here = &self.places[place];
        let taken = self.in_flight(place, parent);
        let free: Vec<u64> =
            here.mempool.iter().filter(|tx| !taken.contains(tx)).take(100).copied().collect();
        let next = here.next_validators.clone();
        if free.is_empty() {
            return (Payload::empty(), next);
        }
        (Payload::Inline(free.iter().map(|tx| ByteBuf::from(tx.to_be_bytes())).collect()), next)
    }

    fn in_flight(&self, place: usize, parent: &BlockId) -> BTreeSet<u64> {
        let here = &self.places[place];
        let mut taken = BTreeSet::new();
        let mut next = *parent;
        while let Some((parent, transactions)) = here.known.get(&next) {
            taken.extend(transactions.iter().copied());
            next = *parent;
        }
        taken
    }

    /// Rule V6: no transaction twice on one chain.
    fn judge_block(&mut self, place: usize, block: &Proposal) -> Verdict {
        let parent = block.header().parent;
        let transactions = transactions(block);
        let taken = self.in_flight(place, &parent);
        let here = &mut self.places[place];
        let distinct: BTreeSet<u64> = transactions.iter().copied().collect();
        let again = distinct.iter().any(|tx| taken.contains(tx) || here.ordered.contains(tx));
        here.known.insert(block.id(), (parent, transactions.clone()));
        let valid = !again && distinct.len() == transactions.len();
        if valid { Verdict::Valid } else { Verdict::Invalid }
    }

    pub(crate) fn execute(&mut self, place: usize, block: Checked<Proposal>, transactions: &[u64]) -> Digest {
        self.judge.check_commit(&self.options, place, &self.places[place], &block, transactions);
        let now = self.now;
        let here = &mut self.places[place];
        let before = here.chain.last().map(|applied| applied.root).unwrap_or_default();
        let mut leaf = [before.as_bytes().as_slice(), block.id().as_bytes()].concat();
        // A small app: it keeps what it is told, in order.
        transactions.iter().for_each(|tx| leaf.extend(tx.to_be_bytes()));
        if here.wrong_from.is_some_and(|from| from <= block.header().height.0) {
            leaf.push(1);
        }
        let root = crate::saved::vouch(here, &block, wattle_order::transaction_hash(&leaf));
        for tx in transactions {
            here.ordered.insert(*tx);
            here.mempool.remove(tx);
        }
        here.known.remove(&block.id());
        here.chain.push(Applied { block, root });
        let height = Height(here.chain.len() as u64);
        here.commit_times.push(now);
        self.ranged(place, ranges::Event::Input(catch_up::Input::Committed(height)));
        root
    }
}

pub(crate) fn transactions(block: &Proposal) -> Vec<u64> {
    let number = |bytes: &ByteBuf| u64::from_be_bytes(bytes.as_slice().try_into().unwrap_or_default());
    match &block.block.payload {
        Payload::Inline(transactions) => transactions.iter().map(number).collect(),
        Payload::Batches(_) => Vec::new(),
    }
}

pub(crate) fn digest_of(outputs: &[Output]) -> Digest {
    wattle_order::transaction_hash(format!("{outputs:?}").as_bytes())
}
