//! The task that owns the machine of the log: its streams, its disk, its clock, and what waits to be ordered.
//!
//! Nothing here waits: signatures are checked before (`links`), writes are on their way while the machine goes on, what
//! is asked of the disk is asked by tasks of their own. One write is under way at a time and takes along whatever
//! gathered since; what it covers leaves when it is on disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_order::{
    Alarm, BlockId, Checked, Committee, Core, Digest, Height, Input, Message, Output, Proposal, Qc, Record,
    Seq, To,
};
use wattle_store::CommitError;
use wattle_types::{Machine as _, NodeId, Outbox, Time, UnixTime, Write};
use wattle_weave::order::{Frame, Open, entries, judge};

use super::disk::{self, Disk, Place};
use super::follow::Follower;
use super::links::Links;
use super::pool::{NotTaken, Pool};
use super::view::{Figures, View};
use super::{Event, Heard, Told};
use crate::clock::unix_now;

/// What is heard and handled together.
const TOGETHER: usize = 64;
/// Bytes of one write; what is beyond goes with the next.
const WRITE_BYTES_MAX: usize = 512 * 1024;
/// Blocks whose time is ahead of this clock, and which wait for it. Beyond it their verdict is never given.
const EARLY_MAX: usize = 64;
/// How far the time of a block may be ahead of the clock of who votes for it.
const DRIFT_MAX: Duration = Duration::from_secs(2);
/// The longest wait for a clock.
const EARLY_FOR: Duration = Duration::from_secs(60);
/// Answers that somebody waits for. Beyond it the next is told that too much waits.
const WAITERS_MAX: usize = 16 * 1024;
/// Alarms that are remembered; the first say most.
const ALARMS_MAX: usize = 16;

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stands there, for ever.
    Ordered(Place),
    /// The log went past its time: it never will be.
    Expired,
}

/// What the rest of the node asks.
pub(super) enum Request {
    /// Order this.
    Submit {
        bytes: ByteBuf,
        taken: oneshot::Sender<Result<(), NotTaken>>,
        /// Told when its fate is known.
        fate: Option<oneshot::Sender<Fate>>,
    },
    /// How does it do?
    View(oneshot::Sender<Box<View>>),
}

/// Writes on their way to the disk, by record.
#[derive(Default)]
struct Writes {
    waiting: VecDeque<(Seq, Vec<Write>)>,
    busy: bool,
}

impl Writes {
    /// As much as goes at once, and up to which record it reaches. Of the safety records in it only the last is
    /// written: it replaces the others in the same step.
    fn take(&mut self) -> Option<(Seq, Vec<Write>)> {
        let (mut upto, mut batch, mut bytes) = (None, Vec::new(), 0);
        while let Some((_, writes)) = self.waiting.front() {
            let more: usize = writes.iter().map(size).sum();
            if upto.is_some() && bytes + more > WRITE_BYTES_MAX {
                break;
            }
            let Some((seq, writes)) = self.waiting.pop_front() else { break };
            bytes += more;
            upto = Some(seq);
            batch.extend(writes);
        }
        let last = batch.iter().rposition(disk::is_safety);
        let mut at = 0..;
        batch.retain(|write| {
            let at = at.next();
            !disk::is_safety(write) || at == last
        });
        upto.map(|upto| (upto, batch))
    }
}

fn size(write: &Write) -> usize {
    match write {
        Write::Put { key, value, .. } => key.len() + value.len(),
        Write::Remove { key, .. } => key.len(),
        Write::RemoveRange { .. } => 0,
    }
}

struct Waiter {
    until: UnixTime,
    since: Instant,
    fate: oneshot::Sender<Fate>,
}

/// What the task is started with.
pub(super) struct Driver {
    pub(super) core: Core,
    pub(super) started: Instant,
    pub(super) me: NodeId,
    pub(super) committee: Arc<Committee>,
    pub(super) links: Links,
    pub(super) disk: Disk,
    pub(super) follower: Follower,
    pub(super) tip: watch::Sender<Height>,
    pub(super) events: broadcast::Sender<Told>,
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) pending: BTreeMap<BlockId, Height>,
    pub(super) tasks: TaskTracker,
    pub(super) state: State,
}

/// What it begins with nothing of.
pub(super) struct State {
    pool: Pool,
    open: Open,
    /// Entries that are committed; the disk may not have their place yet.
    recent: BTreeMap<Digest, Place>,
    recent_order: VecDeque<Digest>,
    waiters: BTreeMap<Digest, Vec<Waiter>>,
    waiting: usize,
    writes: Writes,
    figures: Figures,
    alarms: Vec<String>,
    early: Arc<Semaphore>,
    told_waiting: bool,
    tip_time: UnixTime,
}

impl State {
    /// `tip_time` is that of the committed tip.
    pub(super) fn new(tip_time: UnixTime) -> Self {
        Self {
            pool: Pool::default(),
            open: Open::default(),
            recent: BTreeMap::new(),
            recent_order: VecDeque::new(),
            waiters: BTreeMap::new(),
            waiting: 0,
            writes: Writes::default(),
            figures: Figures::new(),
            alarms: Vec::new(),
            early: Arc::new(Semaphore::new(EARLY_MAX)),
            told_waiting: false,
            tip_time,
        }
    }
}

impl Driver {
    /// Runs until the node stops.
    pub(super) async fn run(
        mut self,
        mut hears: mpsc::Receiver<Heard>,
        mut asked: mpsc::Receiver<Request>,
        stop: CancellationToken,
    ) {
        let (written, mut writes) = mpsc::channel(1);
        self.feed(Input::Wake);
        let mut together = Vec::new();
        loop {
            self.write(&written);
            let due = self.core.deadline().map(|at| self.started + Duration::from_micros(at.as_micros()));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = writes.recv() => self.on_written(done),
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
            self.tell_waiting();
        }
    }

    fn now(&self) -> Time {
        Time::since_start(self.started.elapsed())
    }

    /// Gives the machine an input, and does what it says.
    fn feed(&mut self, input: Input) {
        let mut out = Outbox::new();
        let mut next = VecDeque::from([input]);
        while let Some(input) = next.pop_front() {
            self.core.handle(self.now(), input, &mut out);
            if cfg!(debug_assertions) {
                self.core.check_invariants();
            }
            for output in out.drain() {
                self.on_output(output, &mut next);
            }
        }
        self.state.figures.note_timeouts(self.core.counts().timeouts);
    }

    fn on_output(&mut self, output: Output, next: &mut VecDeque<Input>) {
        match output {
            Output::Persist { seq, record } => self.persist(seq, &record),
            Output::Send { to, message } => self.send(to, &message),
            Output::Build { round, parent } => {
                let time = self.state.open.time(&parent).unwrap_or(self.state.tip_time).max(unix_now());
                let payload = self.state.pool.payload(time, &self.state.open.taken(&parent));
                next.push_back(Input::Built { round, payload, time, next: None });
            }
            Output::Validate { block } => self.validate(block, next),
            Output::Commit { blocks, proof } => self.on_commit(&blocks, &proof),
            Output::Behind { above, target } => {
                self.follower.fetch(above, target.signers.seats().filter_map(|seat| self.committee.id(seat)));
            }
            Output::EpochEnded { .. } => {
                // Blocks that end an epoch are not voted for, so a third and more of the validators lie.
                self.alarm("the validators were replaced, which no honest one votes for".to_owned());
            }
            Output::Evidence(evidence) => {
                let (offence, seat, round) = evidence.key();
                let id = self.committee.id(seat);
                tracing::warn!(?offence, validator = ?id, %round, "a validator lies, and signed the proof of it");
                self.tell(Event::Evidence { validator: id, what: format!("{offence:?}") });
            }
            Output::Alarm(alarm) => self.alarm(words(&alarm)),
            Output::Misbehaved { peer, why } => {
                tracing::warn!(%peer, why, "a validator broke a rule of the log");
            }
        }
    }

    fn persist(&mut self, seq: Seq, record: &Record) {
        if let Record::Block(block) = record {
            self.state.open.note(block);
        }
        let open = &self.state.open;
        let hashes = |id: &BlockId| open.hashes(id).unwrap_or_default().to_vec();
        let writes = disk::rows(record, &mut self.pending, hashes);
        self.state.writes.waiting.push_back((seq, writes));
    }

    /// Begins a write, if none is under way.
    fn write(&mut self, written: &mpsc::Sender<(Seq, Result<(), CommitError>)>) {
        if self.state.writes.busy {
            return;
        }
        let Some((upto, batch)) = self.state.writes.take() else { return };
        self.state.writes.busy = true;
        let (store, written) = (Arc::clone(self.disk.store()), written.clone());
        self.tasks.spawn(async move {
            let outcome = store.commit(batch).await;
            // Ignored because the node stops.
            drop(written.send((upto, outcome)).await);
        });
    }

    fn on_written(&mut self, (upto, outcome): (Seq, Result<(), CommitError>)) {
        self.state.writes.busy = false;
        match outcome {
            Ok(()) => self.feed(Input::Persisted { upto }),
            Err(error) => {
                // What this covers, and all after it, is never said.
                tracing::error!(%error, "the ordered log is not written any more: this node signs nothing in it");
                self.state.writes.waiting.clear();
                self.feed(Input::NotPersisted);
            }
        }
    }

    fn send(&self, to: To, message: &Message) {
        let frame: Arc<[u8]> = Frame::Message(Box::new(message.clone())).encode().into();
        match to {
            To::One(peer) => self.links.send(&peer, &frame),
            To::All => self.links.send_all(&frame),
        }
    }

    /// Rule V6, and V7 as far as the clock goes. What is empty is judged at once; for anything else the disk is asked
    /// whether it was ordered before.
    fn validate(&mut self, block: Checked<Proposal>, next: &mut VecDeque<Input>) {
        self.state.open.note(&block);
        self.state.figures.certificate(&self.committee, &block.block.qc);
        let early = block.header().time.since(unix_now()).saturating_sub(DRIFT_MAX);
        if entries(&block.block.payload).is_empty() && early.is_zero() {
            let verdict = judge(&block, &BTreeSet::new(), |_| false);
            next.push_back(Input::Judged { block: block.id(), verdict });
            return;
        }
        let place = Arc::clone(&self.state.early).try_acquire_owned().ok().filter(|_| !early.is_zero());
        if !early.is_zero() {
            tracing::warn!(block = %block.id(), ?early, "a block is ahead of this clock: whose is wrong?");
            if place.is_none() || early > EARLY_FOR {
                return;
            }
        }
        let taken = self.state.open.taken(&block.header().parent);
        let is_recent: BTreeSet<Digest> = self
            .state
            .open
            .hashes(&block.id())
            .unwrap_or_default()
            .iter()
            .copied()
            .filter(|hash| self.state.recent.contains_key(hash))
            .collect();
        let (disk, heard) = (self.disk.clone(), self.heard.clone());
        self.tasks.spawn(async move {
            tokio::time::sleep(early).await;
            drop(place);
            let id = block.id();
            let judging = move || {
                let on_disk = |hash: &Digest| disk.place(hash);
                let mut failed = false;
                let verdict = judge(&block, &taken, |hash| {
                    is_recent.contains(hash)
                        || on_disk(hash).map_or_else(
                            |_failed| {
                                failed = true;
                                false
                            },
                            |place| place.is_some(),
                        )
                });
                (verdict, failed)
            };
            // A disk that fails stops the node; until then it convicts nobody.
            if let Ok((verdict, false)) = tokio::task::spawn_blocking(judging).await {
                // Ignored because the node stops.
                drop(heard.send(Heard::Input(Input::Judged { block: id, verdict })).await);
            }
        });
    }

    fn on_commit(&mut self, blocks: &[Checked<Proposal>], proof: &Checked<Qc>) {
        let told = *self.tip.borrow();
        for block in blocks.iter().filter(|block| block.header().height > told) {
            let header = block.header();
            let hashes = self.state.open.hashes(&block.id()).unwrap_or_default().to_vec();
            for (hash, index) in hashes.iter().zip(0u32..) {
                self.ordered(*hash, Place { height: header.height, index });
            }
            self.state.tip_time = header.time;
            self.state.figures.committed(hashes.len(), header.time, proof);
            if !hashes.is_empty() {
                self.tell(Event::Committed {
                    height: header.height,
                    round: header.round,
                    entries: hashes.len(),
                    leader: self.committee.id(header.author),
                });
            }
        }
        let Some(last) = blocks.last().map(|block| block.header().height).filter(|last| *last > told) else {
            return;
        };
        self.state.open.prune(last);
        self.expire();
        self.tip.send_replace(last);
    }

    fn ordered(&mut self, hash: Digest, place: Place) {
        let state = &mut self.state;
        state.pool.remove(&hash);
        if state.recent.insert(hash, place).is_none() {
            state.recent_order.push_back(hash);
        }
        // As long as it takes until the disk has its place, many times over.
        while state.recent_order.len() > 64 * 1024 {
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

    /// What no block may have any more is let go, and whoever waits for it is told once the log went past it.
    fn expire(&mut self) {
        let state = &mut self.state;
        state.pool.expire(unix_now().max(state.tip_time));
        let over = state.tip_time;
        state.waiters.retain(|_, waiters| {
            for waiter in waiters.extract_if(.., |waiter| waiter.until < over || waiter.fate.is_closed()) {
                state.waiting = state.waiting.saturating_sub(1);
                // Ignored because whoever asked has stopped waiting.
                drop(waiter.fate.send(Fate::Expired));
            }
            !waiters.is_empty()
        });
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Input(input) => self.feed(input),
            Heard::Entries { from, entries } => {
                for bytes in entries {
                    if let Err(why) = self.take(from, bytes, false) {
                        tracing::debug!(%from, %why, "an entry that was handed on is not taken");
                    }
                }
            }
            Heard::Synced { blocks, proof } => {
                self.feed(Input::Synced { blocks });
                if let Some(message) = proof {
                    self.feed(Input::Received { from: self.me, message });
                }
            }
            Heard::Misbehaved { peer } => self.tell(Event::Misbehaved { validator: peer }),
        }
    }

    /// Takes an entry that is not ordered yet; whether it is new.
    fn take(&mut self, from: NodeId, bytes: ByteBuf, is_own: bool) -> Result<(Digest, bool), NotTaken> {
        let hash = wattle_order::transaction_hash(&bytes);
        if self.state.recent.contains_key(&hash) {
            return Ok((hash, false));
        }
        self.state.pool.add(unix_now(), from, is_own, bytes)
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Submit { bytes, taken, fate } => {
                let outcome = self.submit(bytes, fate);
                // Ignored because whoever asked has stopped waiting.
                drop(taken.send(outcome));
            }
            Request::View(reply) => {
                let state = &self.state;
                let machine = (self.core.status(), self.core.counts().clone(), self.now());
                let (reach, waiting) = (self.links.reach(), state.pool.len());
                let view =
                    state.figures.view(&self.committee, machine, &reach, waiting, state.alarms.clone());
                // Ignored because whoever asked has stopped waiting.
                drop(reply.send(Box::new(view)));
            }
        }
    }

    fn submit(&mut self, bytes: ByteBuf, fate: Option<oneshot::Sender<Fate>>) -> Result<(), NotTaken> {
        if self.state.waiting >= WAITERS_MAX {
            self.expire();
            if self.state.waiting >= WAITERS_MAX {
                return Err(NotTaken::Full);
            }
        }
        let until = wattle_weave::order::Entry::decode(&bytes)?.until;
        let (hash, new) = self.take(self.me, bytes.clone(), true)?;
        match (fate, self.state.recent.get(&hash)) {
            (Some(fate), Some(place)) => {
                // Ignored because whoever asked has stopped waiting.
                drop(fate.send(Fate::Ordered(*place)));
            }
            (Some(fate), None) => {
                self.state.waiting = self.state.waiting.saturating_add(1);
                let waiter = Waiter { until, since: Instant::now(), fate };
                self.state.waiters.entry(hash).or_default().push(waiter);
            }
            (None, _) => {}
        }
        if new {
            // Whoever leads next may order it.
            let frame: Arc<[u8]> = Frame::Entries(vec![bytes]).encode().into();
            self.links.send_all(&frame);
        }
        Ok(())
    }

    fn tell_waiting(&mut self) {
        let waits = self.state.pool.len() > 0;
        if waits != self.state.told_waiting {
            self.state.told_waiting = waits;
            self.feed(Input::Waiting(waits));
        }
    }

    fn alarm(&mut self, what: String) {
        tracing::error!(what, "the ordered log needs an operator");
        self.tell(Event::Alarm { what: what.clone() });
        if self.state.alarms.len() < ALARMS_MAX {
            self.state.alarms.push(what);
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
        Alarm::KeyUsedTwice => "another node signs with this node's key: stop one of them".to_owned(),
    }
}

async fn passed(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
