//! The payload path in the simulation: each place's machine beside its core, its disk of batches, and what its host
//! carries between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;
use wattle_order::payloads::{
    self, Batch, Below, Bounds, Config, Input, Message, NotTaken, Output, Payloads, SubmitId, Submitter,
};
use wattle_order::{
    APPROVALS_APP, Approval, BatchRef, BlockId, Checked, Checker, Digest, Entry, Payload, Proposal, Record,
    Seq, Sound, To, Validators, Whole,
};
use wattle_types::{Machine as _, NodeId, Outbox, Time, UnixTime};

use crate::world::{World, transactions};

/// How a place lies about payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It gives its batches to one place only, and answers nobody who asks.
    Withholds,
    /// As leader it names a batch that nobody has.
    Invents,
    /// As leader it orders what is ordered already.
    Repeats,
    /// It gives nothing to those who ask, though it says that it has it.
    Pretends,
}

/// What happens to the payload path of a place.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Input(Input),
    Message {
        from: usize,
        message: Message,
    },
    Written {
        upto: Seq,
    },
    Wake,
    /// Blocks by height.
    Range(crate::ranges::Event),
}

/// The payload path of one place.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    pub(crate) machine: Option<Payloads>,
    /// Batches on disk.
    pub(crate) disk: BTreeMap<Digest, Arc<Batch>>,
    writing: BTreeMap<Seq, Arc<Batch>>,
    named: BTreeMap<BlockId, Vec<Digest>>,
    wake: Option<Time>,
    /// How often it woke at one moment.
    woke: (Option<Time>, u32),
    pub(crate) lie: Option<Lie>,
    pub(crate) answers: BTreeMap<u64, Result<Digest, NotTaken>>,
    pub(crate) expired: BTreeSet<Digest>,
    pub(crate) forgotten: BTreeSet<Digest>,
    pub(crate) misbehaved: Vec<(NodeId, &'static str)>,
    /// How many blocks had their entries in them, how many by batches, and how many left something out.
    pub(crate) shapes: (u64, u64, u64),
    /// The disk of batches does not work.
    pub(crate) broken: bool,
    last: Option<Payload>,
}

impl Carried {
    pub(crate) fn crash(&mut self) {
        self.machine = None;
        self.writing.clear();
        self.wake = None;
    }

    /// The batches of a block that are not on this disk.
    pub(crate) fn lacks(&self, block: &BlockId) -> Vec<Digest> {
        let named = self.named.get(block).into_iter().flatten();
        named.filter(|batch| !self.disk.contains_key(batch)).copied().collect()
    }
}

fn names(block: &Proposal) -> Vec<Digest> {
    match &block.block.payload {
        Payload::Inline(_) => Vec::new(),
        Payload::Batches(batches) => batches.iter().map(|batch| batch.batch).collect(),
    }
}

pub(crate) fn wall(now: Time) -> UnixTime {
    UnixTime::from_millis(now.as_micros() / 1000 + 1)
}

/// An entry that says a number.
pub(crate) fn entry(number: u64, bytes: usize, until: UnixTime) -> Entry {
    let mut data = number.to_be_bytes().to_vec();
    data.resize(bytes.max(8), 7);
    Entry { app: "count/1".to_owned(), data: ByteBuf::from(data), until, salt: number }
}

/// As it is handed in.
pub(crate) fn whole(entry: &Entry) -> Arc<Whole> {
    Arc::new(Whole::read(ByteBuf::from(entry.encode())).unwrap())
}

pub(crate) fn number(entry: &Entry) -> u64 {
    u64::from_be_bytes(entry.data[..8].try_into().unwrap())
}

impl World {
    fn payload_config(&self, me: NodeId) -> Config {
        let millis = Duration::from_millis;
        Config {
            me,
            bounds: Bounds::default(),
            seal_after: millis(3),
            fetch_after: millis(4),
            fetch_retry: millis(8),
            tell_retry: millis(60),
        }
    }

    /// What a host finds on its disk at the start: the committed blocks, which must be those it told of.
    pub(crate) fn apply_log(&mut self, place: usize, records: &[Record]) -> Vec<Checked<Proposal>> {
        let told = self.places[place].chain.len() - self.places[place].disk.base;
        let mut blocks: BTreeMap<BlockId, Proposal> = BTreeMap::new();
        let (mut committee, mut found) = (Arc::clone(&self.committee), Vec::new());
        for record in records {
            match record {
                Record::Block(block) => {
                    blocks.insert(block.header().id(), (**block).clone());
                }
                Record::Commit { blocks: ids, .. } => {
                    self.apply_commit(place, &committee, &blocks, ids, &mut found);
                }
                Record::Epoch { proof, blocks: ids, .. } => {
                    self.apply_commit(place, &committee, &blocks, ids, &mut found);
                    committee = Arc::new(proof.check(&committee, &mut self.seen).unwrap());
                }
                Record::Safety(_) => {}
            }
        }
        assert!(found.len() >= told, "place {place} told of {told} commits and has {} on disk", found.len());
        if self.options.payload.is_none() {
            for block in found.iter().skip(told) {
                let transactions = transactions(block);
                self.execute(place, block.clone(), &transactions);
            }
        }
        found
    }

    fn apply_commit(
        &mut self,
        place: usize,
        committee: &Arc<wattle_order::Committee>,
        blocks: &BTreeMap<BlockId, Proposal>,
        ids: &[BlockId],
        found: &mut Vec<Checked<Proposal>>,
    ) {
        let base = self.places[place].disk.base;
        for id in ids {
            if let Some(applied) = self.places[place].chain.get(base + found.len()) {
                assert_eq!(applied.block.id(), *id, "the disk forgot");
            }
            let message = wattle_order::Message::Proposal(blocks.get(id).unwrap().clone());
            let checked = Checker::new(Arc::clone(committee)).check(&mut self.seen, message);
            assert!(checked.is_ok(), "{checked:?}");
            if let Ok(Sound::Proposal(block)) = checked {
                found.push(block);
            }
        }
    }

    /// The payload path starts with what is committed, so that nothing is ordered again.
    pub(crate) fn start_payloads(&mut self, place: usize, committed: Vec<Checked<Proposal>>) {
        if self.options.payload.is_none() {
            return;
        }
        let config = self.payload_config(self.places[place].id);
        let committee = Arc::clone(self.places[place].checker.committee());
        let here = &self.places[place];
        let below = match (here.disk.base.checked_sub(1), committed.first()) {
            (Some(last), _) => Below::snapshot(&here.chain[last].block.info()),
            (None, Some(first)) => Below::first(first),
            (None, None) => Below::epoch(&committee),
        };
        let machine = Payloads::new(config, committee, &below);
        self.places[place].carried.machine = Some(machine);
        self.tell_payloads(place, Input::Clock(wall(self.now)));
        if !committed.is_empty() {
            self.tell_payloads(place, Input::Commit { blocks: committed, proof: None, before: None });
        }
        self.carry_later(0, place, Event::Wake);
    }

    /// A client hands a number in: to one place, or to some.
    pub(crate) fn hand_in(&mut self, tx: u64) {
        let first = self.random.below(self.places.len() as u64) as usize;
        let count = if self.random.chance(200) { 2 } else { 1 };
        for more in 0..count {
            self.hand_to((first + more) % self.places.len(), tx);
        }
    }

    pub(crate) fn hand_to(&mut self, place: usize, tx: u64) {
        let bytes = self.options.payload.unwrap_or(8);
        let until = wall(self.submitted[&tx].after(Duration::from_secs(100)));
        let entry = whole(&entry(tx, bytes, until));
        self.tell_payloads(place, Input::Submit { id: SubmitId(tx), from: Submitter::Here, entry });
    }

    /// A place hands in its word that these are to be the next validators.
    pub(crate) fn approve(&mut self, place: usize, next: &Validators, life: Duration) {
        let until = wall(self.now.after(life));
        let Some(machine) = self.places[place].core.as_ref() else { return };
        let approval = Approval::sign(&self.places[place].key, machine.committee(), next.clone(), until);
        let (data, salt) = (ByteBuf::from(approval.encode()), self.now.as_micros());
        let entry = whole(&Entry { app: APPROVALS_APP.to_owned(), data, until, salt });
        self.tell_payloads(place, Input::Submit { id: SubmitId(0), from: Submitter::Here, entry });
        self.places[place].carried.answers.remove(&0);
    }

    /// What the core says that concerns payloads goes to the other machine.
    pub(crate) fn divert(
        &mut self,
        place: usize,
        output: wattle_order::Output,
    ) -> Option<wattle_order::Output> {
        use wattle_order::Output as Said;
        if self.options.payload.is_none() {
            return Some(output);
        }
        let input = match output {
            Said::Build { round, parent } => Input::Build { round, parent },
            Said::Validate { block } => {
                self.places[place].carried.named.insert(block.id(), names(&block));
                Input::Validate { block }
            }
            Said::Commit { blocks, proof } => {
                self.judge.check_proof(&self.options, &self.places[place], &blocks, &proof);
                Input::Commit { blocks, proof: Some(proof), before: None }
            }
            Said::EpochEnded { ref committee, .. } => {
                self.carry_later(
                    0,
                    place,
                    Event::Input(Input::EpochEnded { committee: Arc::clone(committee) }),
                );
                return Some(output);
            }
            other => return Some(other),
        };
        // The two machines run in tasks of their own.
        self.carry_later(0, place, Event::Input(input));
        None
    }

    pub(crate) fn carried(&mut self, place: usize, event: Event) {
        match event {
            Event::Input(input) => self.tell_payloads(place, input),
            Event::Message { from, message } => {
                let from = self.places[from].id;
                self.tell_payloads(place, Input::Received { from, message });
            }
            Event::Written { upto } => {
                let here = &mut self.places[place].carried;
                if here.broken {
                    return self.tell_payloads(place, Input::NotPersisted);
                }
                let later = here.writing.split_off(&upto.next());
                let written = std::mem::replace(&mut here.writing, later);
                here.disk.extend(written.into_values().map(|batch| (batch.digest(), batch)));
                self.tell_payloads(place, Input::Persisted { upto });
            }
            Event::Range(event) => self.ranged(place, event),
            Event::Wake => {
                let now = self.now;
                let here = &mut self.places[place].carried;
                here.wake = None;
                here.woke =
                    if here.woke.0 == Some(now) { (Some(now), here.woke.1 + 1) } else { (Some(now), 1) };
                let due = here.machine.as_ref().and_then(Payloads::deadline);
                assert!(here.woke.1 < 1000, "place {place} wakes again and again for {due:?}");
                if due.is_some_and(|due| due <= now) {
                    self.tell_payloads(place, Input::Wake);
                } else {
                    self.wake_payloads(place);
                }
            }
        }
    }

    fn wake_payloads(&mut self, place: usize) {
        let here = &mut self.places[place].carried;
        let Some(at) = here.machine.as_ref().and_then(Payloads::deadline) else { return };
        let at = at.max(self.now);
        if here.wake.is_none_or(|set| at < set) {
            here.wake = Some(at);
            self.carry_later(at.since(self.now).as_micros() as u64, place, Event::Wake);
        }
    }

    pub(crate) fn tell_payloads(&mut self, place: usize, input: Input) {
        let Some(machine) = self.places[place].carried.machine.as_mut() else { return };
        let mut out = Outbox::new();
        machine.handle(self.now, input, &mut out);
        machine.check_invariants();
        let outputs: Vec<Output> = out.drain().collect();
        for output in outputs {
            self.carry_out(place, output);
        }
        self.wake_payloads(place);
    }

    fn carry_out(&mut self, place: usize, output: Output) {
        let here = &mut self.places[place].carried;
        match output {
            Output::Answer { id, result } => {
                here.answers.insert(id.0, result);
            }
            Output::Built { round, payload, time, next } => {
                let payload = self.lie_in(place, payload);
                // A liar wants others than were approved.
                let next = self.places[place].next_validators.clone().or(next);
                self.later(place, 0, wattle_order::Input::Built { round, payload, time, next });
            }
            Output::Judged { block, verdict } => {
                let us = self.places[place].think_us;
                self.later(place, us, wattle_order::Input::Judged { block, verdict });
            }
            Output::Waiting(waits) => self.later(place, 0, wattle_order::Input::Waiting(waits)),
            Output::Ordered { block, entries } => self.on_ordered(place, block, &entries),
            Output::Expired { transaction } => {
                here.expired.insert(transaction);
            }
            Output::Persist { seq, batch } => {
                here.writing.insert(seq, batch);
                let us = self.places[place].disk.slow_us.unwrap_or(self.options.disk_us);
                self.carry_later(us, place, Event::Written { upto: seq });
            }
            Output::Load { batch } => {
                let content = here.disk.get(&batch).cloned();
                self.carry_later(50, place, Event::Input(Input::Loaded { batch, content }));
            }
            Output::Forget { batch } => {
                here.disk.remove(&batch);
                here.forgotten.insert(batch);
            }
            Output::Send { to, message } => self.spread(place, to, &message),
            Output::Misbehaved { peer, why } => here.misbehaved.push((peer, why)),
        }
    }

    fn on_ordered(&mut self, place: usize, block: Checked<Proposal>, entries: &[payloads::Ordered]) {
        let height = block.header().height;
        let here = &mut self.places[place];
        if let Some(known) = here.chain.get(height.0 as usize - 1) {
            assert_eq!(known.block.id(), block.id(), "M6: a block is told again as another");
            return;
        }
        match &block.block.payload {
            Payload::Batches(batches) if !batches.is_empty() => {
                here.carried.shapes.1 += 1;
                here.carried.shapes.2 += u64::from(batches.iter().any(|batch| batch.left.is_some()));
            }
            Payload::Batches(_) => {}
            Payload::Inline(_) => here.carried.shapes.0 += 1,
        }
        assert_eq!(root_of(&block, entries), block.header().payload, "M6: these are not the block's entries");
        let counted = entries.iter().map(|ordered| ordered.whole.entry());
        let counted = counted.filter(|entry| entry.app != APPROVALS_APP);
        let transactions: Vec<u64> = counted.map(number).collect();
        if !block.block.payload.is_empty() {
            self.places[place].carried.last = Some(block.block.payload.clone());
        }
        let root = self.execute(place, block, &transactions);
        self.later(place, 100, wattle_order::Input::Executed { height, root });
    }

    fn lie_in(&self, place: usize, payload: Payload) -> Payload {
        match self.places[place].carried.lie {
            Some(Lie::Invents) => Payload::Batches(vec![BatchRef::whole(Digest::from_bytes([9; 32]))]),
            Some(Lie::Repeats) => self.places[place].carried.last.clone().unwrap_or(payload),
            _ => payload,
        }
    }

    fn spread(&mut self, place: usize, to: To, message: &Message) {
        let lie = self.places[place].carried.lie;
        let message = match (lie, message) {
            (Some(Lie::Withholds | Lie::Pretends), Message::Fetched(_)) => return,
            (Some(Lie::Pretends), Message::Lacks(_)) => return,
            _ => Message::decode(&message.encode()).unwrap(),
        };
        let validators = self.places[place].checker.committee().validators().list().to_vec();
        for other in 0..self.places.len() {
            let id = self.places[other].id;
            let meant = match to {
                To::All => id != self.places[place].id && validators.iter().any(|one| one.id == id),
                To::One(to) => id == to,
            };
            let one = lie == Some(Lie::Withholds) && matches!(message, Message::Batch(_));
            let withheld = one && other != (place + 1) % self.places.len();
            if !meant || other == place || withheld || self.is_apart(place, other, false) {
                continue;
            }
            for _ in 0..1 + u64::from(self.random.chance(self.options.double)) {
                if !self.random.chance(self.options.loss) {
                    let us = self.options.delay_us + self.random.below(self.options.jitter_us + 1);
                    let event = Event::Message { from: place, message: message.clone() };
                    let lag = self.places[other].lag_us;
                    self.carry_later(us + lag, other, event);
                }
            }
        }
    }
}

/// The payload's root, from the entries that were told.
fn root_of(block: &Proposal, entries: &[payloads::Ordered]) -> Digest {
    let mut batches: BTreeMap<u64, Vec<Digest>> = BTreeMap::new();
    for ordered in entries {
        let batch = batches.entry(ordered.batch).or_default();
        assert_eq!(ordered.index, batch.len() as u64, "M6: an entry's place");
        batch.push(ordered.whole.transaction());
    }
    let roots: Vec<Digest> = batches.into_values().map(|hashes| wattle_order::tree_root(&hashes)).collect();
    assert_eq!(roots.len(), block.block.payload.batches().len());
    wattle_order::tree_root(&roots)
}
