//! The task that owns the machine of the log: its streams, its disk, its clock, and what waits to be ordered.
//!
//! Nothing here waits: signatures are checked before (`links`), writes are on their way while the machine goes on, what
//! is asked of the disk is asked by tasks of their own. One write is under way at a time and takes along whatever
//! gathered since; what it covers leaves when it is on disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_order::payloads::{Busy, NotTaken, Ordered, SubmitId, Submitter};
use wattle_order::{
    Alarm, BlockId, Checked, Committee, Digest, EpochProof, Height, Message, Proposal, Qc, Record, Seq, To,
    Whole, payloads,
};
use wattle_store::CommitError;
use wattle_types::{Machine as _, NodeId, Outbox, Time, UnixTime};
use wattle_weave::order::{Frame, Input, Log, Output};

use super::apply::Handing;
use super::disk::{self, Disk, Place};
use super::epochs::Epochs;
use super::follow::Follower;
use super::index::Index;
use super::links::{Links, Weight};
use super::view::{Figures, View};
use super::writes::{Covers, Writes, Written};
use super::{Event, Heard, Told};
use crate::clock::{Believed, unix_now};

/// Batches that are read at the same time: with sixteen a validator that starts takes a third more memory.
const LOADS_MAX: usize = 2;
/// What is heard and handled together.
const TOGETHER: usize = 64;
/// Answers that somebody waits for. Beyond it the next is told that too much waits.
const WAITERS_MAX: usize = 16 * 1024;
/// Alarms that are remembered; the first say most.
const ALARMS_MAX: usize = 16;
/// Entries whose place is remembered until the disk has it, many times over.
const RECENT_MAX: usize = 64 * 1024;
/// How often it is looked for what nobody waits for any more, in time of the log.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Bytes that wait while there is no space on the disk before no more batches are heard: they are told of again. What
/// else waits is bounded by the machine, which goes no further than so many records ahead of the disk.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Said while there is none.
const NO_SPACE: &str =
    "no space is left on the disk: this node signs nothing in the log until there is some, and then goes on";

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stands there, for ever.
    Ordered(Place),
    /// The log went past its time: it never will be.
    Expired,
    /// The same, but it may have been ordered before the snapshot on which all that is known here stands.
    Unknown,
}

/// What the rest of the node asks.
pub(super) enum Request {
    /// Order these.
    Submit {
        /// Each with whom to tell when its fate is known.
        entries: Vec<(Arc<Whole>, oneshot::Sender<Fate>)>,
        /// Whether each is taken.
        taken: oneshot::Sender<Vec<Result<(), NotTaken>>>,
    },
    /// Where does this stand, if it was ordered a moment ago?
    Recent(Digest, oneshot::Sender<Option<Place>>),
    /// How does it do?
    View(oneshot::Sender<Box<View>>),
}

struct Waiter {
    until: UnixTime,
    since: Instant,
    fate: oneshot::Sender<Fate>,
}

/// What the task is started with.
pub(super) struct Driver {
    pub(super) log: Log,
    pub(super) started: Instant,
    pub(super) me: NodeId,
    pub(super) epochs: watch::Sender<Arc<Epochs>>,
    pub(super) links: Links,
    pub(super) disk: Disk,
    pub(super) follower: Follower,
    pub(super) tip: watch::Sender<Height>,
    /// Up to where the machine told of what is ordered; after a start it begins below the tip.
    pub(super) told: watch::Sender<Height>,
    /// Since when the round is over its time.
    pub(super) expired: watch::Sender<Option<Instant>>,
    pub(super) events: broadcast::Sender<Told>,
    pub(super) heard: mpsc::Sender<Heard>,
    /// Blocks for the apps, where apps run.
    pub(super) apps: Option<Handing>,
    pub(super) pending: BTreeMap<BlockId, Height>,
    pub(super) tasks: TaskTracker,
    pub(super) state: State,
}

/// What it begins with nothing of.
pub(super) struct State {
    /// Entries that are ordered; the disk may not have their place yet.
    recent: HashMap<Digest, Place>,
    recent_order: VecDeque<Digest>,
    waiters: HashMap<Digest, Vec<Waiter>>,
    waiting: usize,
    submits: u64,
    answers: BTreeMap<SubmitId, Result<Digest, NotTaken>>,
    writes: Writes,
    index: Index,
    figures: Figures,
    /// What an operator has to know, and whether it is over with the epoch.
    alarms: Vec<(String, bool)>,
    tip_time: UnixTime,
    /// What may be ordered up to that time may have been ordered before what is known here.
    unknown_until: UnixTime,
    expired_at: UnixTime,
    clock: Believed,
    /// Who may read batches.
    loads: Arc<Semaphore>,
}

impl State {
    /// `tip_time` is that of the committed tip; what was ordered before what is known here could come again up to
    /// `unknown_until`.
    pub(super) fn new(tip_time: UnixTime, unknown_until: UnixTime, index: Index) -> Self {
        Self {
            recent: HashMap::new(),
            recent_order: VecDeque::new(),
            waiters: HashMap::new(),
            waiting: 0,
            submits: 0,
            answers: BTreeMap::new(),
            writes: Writes::default(),
            index,
            figures: Figures::new(),
            alarms: Vec::new(),
            tip_time,
            unknown_until,
            expired_at: tip_time,
            clock: Believed::now(UnixTime::from_millis(0)),
            loads: Arc::new(Semaphore::new(LOADS_MAX)),
        }
    }
}

impl Driver {
    /// Tells the machine before it wakes which batches the disk has that no block has ordered.
    pub(super) fn begin(&mut self, free: Vec<payloads::Batch>) {
        self.tell_clock();
        for batch in free {
            let (digest, content) = (batch.digest(), Some(Arc::new(batch)));
            self.feed(Input::Payloads(payloads::Input::Loaded { batch: digest, content }));
        }
    }

    /// Runs until the node stops.
    pub(super) async fn run(
        mut self,
        mut hears: mpsc::Receiver<Heard>,
        mut asked: mpsc::Receiver<Request>,
        stop: CancellationToken,
    ) {
        let mut writing = None;
        self.feed(Input::Wake);
        let mut together = Vec::new();
        loop {
            self.write(&mut writing);
            let due = self.log.deadline().map(|at| self.started + Duration::from_micros(at.as_micros()));
            let next_write = self.state.writes.at();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                done = ended(&mut writing) => self.on_written(done),
                () = passed(next_write) => {}
                () = passed(due) => self.feed(Input::Wake),
                count = hears.recv_many(&mut together, TOGETHER) => {
                    if count == 0 {
                        return;
                    }
                    for heard in together.drain(..) {
                        self.on_heard(heard);
                    }
                }
                Some(request) = asked.recv() => self.on_request(request),
            }
            // What streams say must not keep callers waiting for ever.
            for _ in 0..TOGETHER {
                let Ok(request) = asked.try_recv() else { break };
                self.on_request(request);
            }
            self.tell_clock();
        }
    }

    fn now(&self) -> Time {
        Time::since_start(self.started.elapsed())
    }

    /// Tells the machine what time it is, if it cannot know.
    fn tell_clock(&mut self) {
        if let Some(now) = self.state.clock.news() {
            self.feed(Input::Payloads(payloads::Input::Clock(now)));
        }
    }

    /// Gives the machine an input, and does what it says.
    fn feed(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.log.handle(self.now(), input, &mut out);
        if cfg!(debug_assertions) {
            self.log.machines().core.check_invariants();
        }
        for output in out.drain() {
            self.on_output(output);
        }
        let core = &self.log.machines().core;
        self.state.figures.note_timeouts(core.counts().timeouts);
        let expired = core.expired_since().map(|since| self.started + since.since(Time::ZERO));
        self.expired.send_if_modified(|known| std::mem::replace(known, expired) != expired);
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Persist { seq, record } => self.persist(seq, &record),
            Output::Store { seq, batch } => {
                self.state.writes.push(Covers::Batch(seq), disk::batch_rows(&batch), Instant::now());
            }
            Output::Forget { batch } => {
                self.state.writes.push(Covers::Rest, disk::forget_rows(&batch), Instant::now());
            }
            Output::Load { batch } => self.load(batch),
            Output::Send { to, message } => self.send(to, &message),
            Output::Say { to, message } => self.say(to, message),
            Output::Ask { peer, id, range } => self.follower.fetch(peer, id, range),
            Output::Committed { blocks, proof } => self.on_committed(&blocks, &proof),
            Output::Ordered { block, entries, root } => self.on_ordered(&block, &entries, root),
            Output::Answer { id, result } => {
                self.state.answers.insert(id, result);
            }
            Output::EpochEnded { proof, committee } => self.enter(*proof, committee),
            Output::Evidence(evidence) => {
                let (offence, seat, round) = evidence.key();
                let id = self.committee().id(seat);
                tracing::warn!(?offence, validator = ?id, %round, "a validator lies, and signed the proof of it");
                self.tell(Event::Evidence { validator: id, what: format!("{offence:?}") });
            }
            Output::Alarm(alarm) => {
                let of_epoch =
                    matches!(alarm, Alarm::RecordLost | Alarm::RecordOld { .. } | Alarm::KeyUsedTwice);
                self.alarm(words(&alarm), of_epoch);
            }
            Output::Misbehaved { peer, why } => {
                tracing::warn!(%peer, why, "a validator broke a rule of the log");
            }
        }
    }

    fn committee(&self) -> Arc<Committee> {
        Arc::clone(self.epochs.borrow().current())
    }

    /// The validators change.
    fn enter(&mut self, proof: EpochProof, committee: Arc<Committee>) {
        let (epoch, height) = (committee.epoch(), proof.header.height);
        let seat = committee.seat(&self.me);
        tracing::info!(%epoch, %height, votes = seat.is_some(), "the validators of the log change");
        // Streams first: the machine says its next words to the new ones.
        self.epochs.send_modify(|epochs| {
            *epochs = Arc::new((**epochs).clone().followed_by(proof, Arc::clone(&committee)));
        });
        self.links.enter(&committee);
        self.state.figures.enter();
        self.state.alarms.retain(|(_, of_epoch)| !of_epoch);
        self.tell(Event::Epoch { epoch, height, validators: disk::validators(&committee) });
    }

    fn persist(&mut self, seq: Seq, record: &Record) {
        let writes = disk::rows(record, &mut self.pending);
        self.state.writes.push(Covers::Record(seq), writes, Instant::now());
    }

    /// Begins a write, if it is time for one.
    fn write(&mut self, writing: &mut Option<BoxFuture<'static, Written>>) {
        let Some((covered, batch)) = self.state.writes.begin(Instant::now()) else { return };
        let store = Arc::clone(self.disk.store());
        *writing =
            Some(async move { Written { covered, outcome: store.commit_or_return(batch).await } }.boxed());
    }

    fn on_written(&mut self, Written { covered, outcome }: Written) {
        match outcome {
            Ok(()) => {
                if self.state.writes.end() {
                    tracing::info!("there is space on the disk again: the ordered log is written");
                    self.state.alarms.retain(|(alarm, _)| alarm != NO_SPACE);
                }
                if let Some(upto) = covered.record {
                    self.feed(Input::Core(wattle_order::Input::Persisted { upto }));
                }
                if let Some(upto) = covered.batch {
                    self.feed(Input::Payloads(payloads::Input::Persisted { upto }));
                }
            }
            Err((CommitError::Full { .. }, batch)) => {
                // What this covers is not said until it is there.
                if self.state.writes.try_again(covered, batch, Instant::now()) {
                    self.alarm(NO_SPACE.to_owned(), false);
                }
            }
            Err((error, _writes)) => {
                // What this covers, and all after it, is never said.
                tracing::error!(%error, "the ordered log is not written any more: this node signs nothing in it");
                self.state.writes.give_up();
                self.state.alarms.retain(|(alarm, _)| alarm != NO_SPACE);
                self.feed(Input::Payloads(payloads::Input::NotPersisted));
                self.feed(Input::Core(wattle_order::Input::NotPersisted));
            }
        }
    }

    /// Looks on the disk for a batch. A disk that fails stops the node.
    fn load(&self, batch: Digest) {
        let (disk, heard, loads) = (self.disk.clone(), self.heard.clone(), Arc::clone(&self.state.loads));
        self.tasks.spawn(async move {
            // What is read is heard before the next is: otherwise all of it would be in memory.
            let Ok(_one) = loads.acquire().await else { return };
            if heard.is_closed() {
                return;
            }
            let found = tokio::task::spawn_blocking(move || disk.batch(&batch)).await;
            let content = match found {
                Ok(Ok(found)) => found.map(Arc::new),
                Ok(Err(error)) => {
                    tracing::error!(%error, %batch, "a batch of the ordered log cannot be read: others are asked");
                    None
                }
                Err(_stopped) => return,
            };
            let loaded = Input::Payloads(payloads::Input::Loaded { batch, content });
            // Ignored because the node stops.
            drop(heard.send(Heard::Log(loaded)).await);
        });
    }

    fn send(&self, to: To, message: &Message) {
        let frame: Arc<[u8]> = Frame::Message(Box::new(message.clone())).encode().into();
        match to {
            To::One(peer) => self.links.send(&peer, &frame, Weight::Light),
            To::All => self.links.send_all(&frame, Weight::Light),
        }
    }

    /// Over the streams of a validator; a node that follows asks instead.
    fn say(&self, to: To, message: payloads::Message) {
        let follows = self.epochs.borrow().current().seat(&self.me).is_none();
        let fetches = matches!(message, payloads::Message::Fetch(_));
        match to {
            // Who votes in another epoch is asked as by one who follows.
            To::One(peer) if follows || (fetches && !self.links.hears(&peer)) => {
                return self.follower.say(peer, message);
            }
            To::All if follows => return,
            To::One(_) | To::All => {}
        }
        let weight = match &message {
            payloads::Message::Batch(_) | payloads::Message::Fetched(_) => Weight::Heavy,
            _ => Weight::Light,
        };
        let frame: Arc<[u8]> = Frame::Payload(message).encode().into();
        match to {
            To::One(peer) => self.links.send(&peer, &frame, weight),
            To::All => self.links.send_all(&frame, weight),
        }
    }

    fn on_committed(&mut self, blocks: &[Checked<Proposal>], proof: &Checked<Qc>) {
        let committee = self.committee();
        for block in blocks {
            self.state.figures.certificate(&committee, &block.block.qc);
        }
        self.state.figures.committed(proof);
    }

    fn on_ordered(&mut self, block: &Checked<Proposal>, entries: &[Ordered], root: Digest) {
        let header = block.header();
        self.told.send_replace(header.height);
        for ordered in entries {
            self.place(ordered.whole.transaction(), Place::new(header.height, ordered.batch, ordered.index));
        }
        if header.height <= *self.tip.borrow() {
            // Told again after a start, so that nothing is ordered again.
            return;
        }
        for part in disk::ordered_rows(&mut self.state.index, block, entries, root) {
            self.state.writes.push(Covers::Rest, part, Instant::now());
        }
        self.state.tip_time = header.time;
        self.state.figures.ordered(entries.len(), header.time);
        if !entries.is_empty() {
            self.tell(Event::Committed {
                height: header.height,
                round: header.round,
                entries: entries.len(),
                leader: self.epochs.borrow().of(header.epoch).and_then(|it| it.id(header.author)),
            });
        }
        if header.time.since(self.state.expired_at) >= EXPIRE_EVERY {
            self.state.expired_at = header.time;
            self.expire();
        }
        if let Some(apps) = &self.apps {
            apps.hand(block, entries);
        }
        self.tip.send_replace(header.height);
    }

    fn place(&mut self, hash: Digest, place: Place) {
        let state = &mut self.state;
        if state.recent.insert(hash, place).is_none() {
            state.recent_order.push_back(hash);
        }
        while state.recent_order.len() > RECENT_MAX {
            if let Some(oldest) = state.recent_order.pop_front() {
                state.recent.remove(&oldest);
            }
        }
        for waiter in state.waiters.remove(&hash).unwrap_or_default() {
            state.waiting = state.waiting.saturating_sub(1);
            state.figures.answered(waiter.since.elapsed());
            // Ignored because whoever asked has stopped waiting.
            drop(waiter.fate.send(Fate::Ordered(place)));
        }
    }

    /// Whoever waits for what no block may have any more is told once the log went past it.
    fn expire(&mut self) {
        let state = &mut self.state;
        let over = state.tip_time;
        state.waiters.retain(|_, waiters| {
            for waiter in waiters.extract_if(.., |waiter| waiter.until < over || waiter.fate.is_closed()) {
                state.waiting = state.waiting.saturating_sub(1);
                let known = waiter.until > state.unknown_until;
                // Ignored because whoever asked has stopped waiting.
                drop(waiter.fate.send(if known { Fate::Expired } else { Fate::Unknown }));
            }
            !waiters.is_empty()
        });
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Log(input) if self.is_too_much(&input) => {}
            Heard::Log(input) => self.feed(input),
            Heard::Synced { blocks, proof } => {
                self.feed(Input::Core(wattle_order::Input::Synced { blocks }));
                self.feed(Input::Core(wattle_order::Input::Received { from: self.me, message: proof }));
            }
            Heard::Misbehaved { peer } => self.tell(Event::Misbehaved { validator: peer }),
            Heard::Alarm(what) => self.alarm(what, false),
        }
    }

    /// A batch that would wait for space behind many others.
    fn is_too_much(&self, input: &Input) -> bool {
        let Input::Payloads(payloads::Input::Received { message, .. }) = input else { return false };
        matches!(message, payloads::Message::Batch(_) | payloads::Message::Fetched(_))
            && self.state.writes.is_full()
            && self.state.writes.bytes_waiting() > WAITING_BYTES_MAX
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Submit { entries, taken } => {
                let outcomes = entries.into_iter().map(|(entry, fate)| self.submit(entry, fate));
                let outcomes = outcomes.collect();
                // Ignored because whoever asked has stopped waiting.
                drop(taken.send(outcomes));
            }
            Request::Recent(hash, reply) => {
                // Ignored because whoever asked has stopped waiting.
                reply.send(self.state.recent.get(&hash).copied()).unwrap_or_default();
            }
            Request::View(reply) => {
                let state = &self.state;
                let machines = self.log.machines();
                let machine = (machines.core.status(), machines.core.counts().clone(), self.now());
                let (reach, payloads) = (self.links.reach(), machines.payloads.status());
                let waiting = (payloads.waiting.entries, payloads.changes);
                let alarms = state.alarms.iter().map(|(alarm, _)| alarm.clone()).collect();
                let view = state.figures.view(&self.committee(), machine, &reach, waiting, alarms);
                // Ignored because whoever asked has stopped waiting.
                drop(reply.send(Box::new(view)));
            }
        }
    }

    fn submit(&mut self, entry: Arc<Whole>, fate: oneshot::Sender<Fate>) -> Result<(), NotTaken> {
        if self.state.writes.is_full() {
            return Err(NotTaken::DiskFull);
        }
        if self.state.waiting >= WAITERS_MAX {
            self.expire();
            if self.state.waiting >= WAITERS_MAX {
                let (waiting, max) = (self.state.waiting, WAITERS_MAX);
                return Err(NotTaken::Busy(Busy::Entries { waiting, max }));
            }
        }
        let (hash, until) = (entry.transaction(), entry.entry().until);
        self.state.submits = self.state.submits.wrapping_add(1);
        let id = SubmitId(self.state.submits);
        // It waits before it is handed in: it may be ordered in the same step.
        self.state.waiting = self.state.waiting.saturating_add(1);
        let waiter = Waiter { until, since: Instant::now(), fate };
        self.state.waiters.entry(hash).or_default().push(waiter);
        self.feed(Input::Payloads(payloads::Input::Submit { id, from: Submitter::Here, entry }));
        match self.state.answers.remove(&id) {
            Some(Err(NotTaken::Ordered)) => {
                self.find(hash);
                Ok(())
            }
            Some(Err(why)) => {
                let waiters = self.state.waiters.get_mut(&hash);
                if waiters.is_some_and(|waiters| waiters.pop().is_some()) {
                    self.state.waiting = self.state.waiting.saturating_sub(1);
                }
                Err(why)
            }
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// What is ordered already stands where it stands.
    fn find(&mut self, hash: Digest) {
        if let Some(place) = self.state.recent.get(&hash).copied() {
            self.place(hash, place);
            return;
        }
        let waiters = self.state.waiters.remove(&hash).unwrap_or_default();
        self.state.waiting = self.state.waiting.saturating_sub(waiters.len());
        let disk = self.disk.clone();
        self.tasks.spawn(async move {
            if let Ok(Ok(Some(place))) = tokio::task::spawn_blocking(move || disk.place(&hash)).await {
                for waiter in waiters {
                    // Ignored because whoever asked has stopped waiting.
                    drop(waiter.fate.send(Fate::Ordered(place)));
                }
            }
        });
    }

    fn alarm(&mut self, what: String, of_epoch: bool) {
        tracing::error!(what, "the ordered log needs an operator");
        self.tell(Event::Alarm { what: what.clone() });
        if self.state.alarms.len() < ALARMS_MAX {
            self.state.alarms.push((what, of_epoch));
        }
    }

    fn tell(&self, event: Event) {
        // Ignored because nobody may be listening.
        drop(self.events.send(Told { at: unix_now(), event }));
    }
}

/// An alarm, and what to do about it.
fn words(alarm: &Alarm) -> String {
    match alarm {
        Alarm::Fork { one, other } => format!(
            "two certificates contradict each other (rounds {} and {}): a third of the validators or more lie. This node \
             stopped taking part",
            one.data.round, other.data.round
        ),
        Alarm::StateDiffers { height, agreed, ours } => format!(
            "the apps of this node computed another state at height {height} than a quorum vouches for ({ours}, \
             agreed {agreed}): it votes no more"
        ),
        Alarm::VerdictDiffers { block } => {
            format!("a quorum takes block {block} for valid, and this node does not: it votes no more")
        }
        Alarm::DiskFailed => {
            "the disk failed: this node signs nothing until it is started again".to_owned()
        }
        Alarm::RecordLost => "the log has blocks here, and what this key signed last is lost or damaged: this node \
                              follows and signs nothing, because it might sign twice. Let another key take its place"
            .to_owned(),
        Alarm::RecordOld { round } => format!(
            "others have a signature of this node's key of round {round} that this node knows nothing of: its data \
             directory is an older copy, or the key is used in two places. It follows and signs nothing. Stop the \
             other one, and let another key take this one's place"
        ),
        Alarm::KeyUsedTwice => "another node signs with this node's key: stop one of them".to_owned(),
    }
}

/// How the write that is under way ends.
async fn ended(writing: &mut Option<BoxFuture<'static, Written>>) -> Written {
    match writing {
        Some(under_way) => {
            let written = under_way.await;
            *writing = None;
            written
        }
        None => std::future::pending().await,
    }
}

async fn passed(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
