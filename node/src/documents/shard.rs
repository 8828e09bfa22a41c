//! One of the machines that share this node's documents, with its inbox, its disk and its clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wattle_app::Input as AppInput;
use wattle_docs::{DocError, DocStatus, Event, Input, Outcome, Output, PersistId, Replica, RequestId, Shard};
use wattle_store::Store;
use wattle_types::{DocId, NodeId, Table, Time, UnixTime, Write};
use wattle_weave::{Route, Shards};

use super::budget::Budget;
use super::switch::Heard;
use crate::driver::{Lane, Turn};

/// How a request of a local caller ends.
pub(super) type Reply = oneshot::Sender<Result<Outcome, DocError>>;

/// What waits for a machine.
pub(super) enum Item {
    /// A local caller asks.
    Ask(RequestId, Input, Reply),
    /// A local caller wants to know.
    Look(Box<dyn FnOnce(&Replica) + Send>),
    /// Something for the machine: the disk, a lookup.
    Input(Input),
    /// A channel to a peer is open.
    Up(NodeId, Line),
    /// A frame came on it.
    Frame { peer: NodeId, number: u64, frame: Vec<u8>, room: OwnedSemaphorePermit },
    /// It ended.
    Down { peer: NodeId, number: u64 },
}

/// The way to a peer.
#[derive(Clone)]
pub(super) struct Line {
    /// Which of the channels to this peer; a later one has a higher number.
    pub(super) number: u64,
    /// What is to be sent.
    pub(super) frames: mpsc::Sender<Vec<u8>>,
    /// Ends it.
    pub(super) ended: CancellationToken,
}

/// Where the machines hear, and which of them hears of what.
#[derive(Clone)]
pub(super) struct Inboxes {
    shards: Arc<RwLock<Shards>>,
    each: Arc<[mpsc::Sender<Item>]>,
}

impl Inboxes {
    pub(super) fn new(shards: Shards, each: Vec<mpsc::Sender<Item>>) -> Self {
        Self { shards: Arc::new(RwLock::new(shards)), each: each.into() }
    }

    /// Where a document is at home.
    pub(super) fn home(&self, doc: &DocId) -> Option<&mpsc::Sender<Item>> {
        let home = self.shards.read().unwrap_or_else(PoisonError::into_inner).home(doc);
        self.at(home)
    }

    /// Who hears of an input, where that is one.
    pub(super) fn of(&self, input: &Input) -> Option<&mpsc::Sender<Item>> {
        match self.shards.read().unwrap_or_else(PoisonError::into_inner).route(input) {
            Route::One(shard) => self.at(shard),
            Route::All | Route::Asker => None,
        }
    }

    /// All of them.
    pub(super) fn each(&self) -> impl Iterator<Item = &mpsc::Sender<Item>> {
        self.each.iter()
    }

    fn at(&self, shard: Shard) -> Option<&mpsc::Sender<Item>> {
        self.each.get(usize::from(shard.index()))
    }

    fn learn(&self, output: &Output) {
        if matches!(output, Output::Seek { .. } | Output::Held { .. } | Output::Dropped { .. }) {
            self.shards.write().unwrap_or_else(PoisonError::into_inner).learn(output);
        }
    }
}

/// What is known of each document without asking its machine, which may be busy.
#[derive(Clone, Default)]
pub(super) struct Index(Arc<RwLock<BTreeMap<DocId, DocStatus>>>);

impl Index {
    pub(super) fn put(&self, status: DocStatus) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(status.doc, status);
    }

    fn remove(&self, doc: &DocId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(doc);
    }

    /// The documents that are called so.
    pub(super) fn called(&self, title: &str) -> Vec<DocId> {
        let index = self.0.read().unwrap_or_else(PoisonError::into_inner);
        index.values().filter(|status| status.label.title == title).map(|status| status.doc).collect()
    }

    /// Those of which something holds.
    pub(super) fn all(&self, of: impl Fn(&DocId) -> bool) -> Vec<DocStatus> {
        let index = self.0.read().unwrap_or_else(PoisonError::into_inner);
        index.iter().filter(|(doc, _)| of(doc)).map(|(_, status)| status.clone()).collect()
    }
}

/// What all machines share, and which one it is.
pub(super) struct Around {
    pub(super) shard: Shard,
    pub(super) inbox: mpsc::Sender<Item>,
    pub(super) inboxes: Inboxes,
    pub(super) index: Index,
    pub(super) budget: Budget,
    pub(super) switch: mpsc::Sender<Heard>,
    pub(super) store: Arc<Store>,
    /// For reading the disk: each that reads is a thread.
    pub(super) reads: Arc<Semaphore>,
    pub(super) events: broadcast::Sender<Event>,
    /// The host waits for nobody, so it is waited for.
    pub(super) apps: mpsc::Sender<AppInput>,
}

/// What is around one machine.
pub(super) struct ShardLane {
    around: Around,
    lines: BTreeMap<NodeId, Line>,
    waiting: BTreeMap<RequestId, Reply>,
    /// The peers that are wanted for documents here, as the switch was last told.
    wanted: BTreeSet<NodeId>,
    /// Whether others may be wanted now.
    found: bool,
}

/// Something to do.
pub(super) enum Act {
    /// What the machine said, and what apps hear of it.
    Said { output: Output, tell: Vec<AppInput> },
    /// Tell the switch whom to look for.
    Want(BTreeSet<NodeId>),
    /// Tell the switch that memory is short.
    Shed,
}

impl ShardLane {
    pub(super) fn new(around: Around, wanted: BTreeSet<NodeId>) -> Self {
        Self { around, lines: BTreeMap::new(), waiting: BTreeMap::new(), wanted, found: false }
    }

    async fn switch(&self, heard: Heard) {
        // Ignored because a switch that ended has nobody to tell.
        drop(self.around.switch.send(heard).await);
    }

    fn send(&mut self, peer: NodeId, frame: Vec<u8>) {
        let Some(line) = self.lines.get(&peer) else { return };
        // One that does not read loses its channel, and gets what it missed when it is back.
        if line.frames.try_send(frame).is_err() {
            line.ended.cancel();
        }
    }

    fn persist(&self, id: PersistId, writes: Vec<Write>) {
        let (store, inbox) = (Arc::clone(&self.around.store), self.around.inbox.clone());
        tokio::spawn(async move {
            let input = match store.commit(writes).await {
                Ok(()) => Input::Persisted { id },
                Err(error) => Input::NotPersisted { id, why: error.to_string() },
            };
            // Ignored because a machine that ended has nobody to tell.
            drop(inbox.send(Item::Input(input)).await);
        });
    }

    fn load(
        &self,
        keys: Vec<(Table, Vec<u8>)>,
        answer: impl FnOnce(Result<Vec<Option<Vec<u8>>>, String>) -> Input + Send + 'static,
    ) {
        let (store, inbox) = (Arc::clone(&self.around.store), self.around.inbox.clone());
        let reads = Arc::clone(&self.around.reads);
        tokio::spawn(async move {
            let Ok(place) = reads.acquire_owned().await else { return };
            let read = tokio::task::spawn_blocking(move || {
                let read = keys.iter().map(|(table, key)| store.get(*table, key));
                read.collect::<Result<Vec<_>, _>>().map_err(|failure| failure.to_string())
            });
            let values = read.await.unwrap_or_else(|stopped| Err(stopped.to_string()));
            drop(place);
            // Ignored because a machine that ended has nobody to tell.
            drop(inbox.send(Item::Input(answer(values))).await);
        });
    }
}

impl Lane for ShardLane {
    type Machine = Replica;
    type Item = Item;
    type Act = Act;

    /// A look is short, and so are inputs that the machine calls quick.
    fn are_long(machine: &Replica, now: Time, turns: &[Turn<Replica>]) -> bool {
        let is_short = |turn: &Turn<Replica>| match turn {
            Turn::Look(_) => true,
            Turn::Input(input) => machine.is_quick(now, input),
        };
        !turns.iter().all(is_short)
    }

    fn wake() -> Input {
        Input::Wake
    }

    fn clock(now: UnixTime) -> Input {
        Input::Clock(now)
    }

    fn open(&mut self, item: Item) -> Option<Turn<Replica>> {
        let is_current = |lines: &BTreeMap<NodeId, Line>, peer: &NodeId, number: u64| {
            lines.get(peer).is_some_and(|line| line.number == number)
        };
        match item {
            Item::Ask(request, input, reply) => {
                self.waiting.insert(request, reply);
                Some(Turn::Input(input))
            }
            Item::Look(look) => Some(Turn::Look(look)),
            Item::Input(input) => {
                self.found |= matches!(input, Input::Found { .. });
                Some(Turn::Input(input))
            }
            // Of two channels the later one is in use, in whatever order their first words come.
            Item::Up(peer, line) if self.lines.get(&peer).is_some_and(|it| it.number > line.number) => None,
            Item::Up(peer, line) => {
                self.lines.insert(peer, line);
                Some(Turn::Input(Input::PeerUp { peer }))
            }
            Item::Frame { peer, number, frame, room } => {
                drop(room);
                let input = Turn::Input(Input::Received { peer, frame });
                is_current(&self.lines, &peer, number).then_some(input)
            }
            Item::Down { peer, number } => {
                let ended = is_current(&self.lines, &peer, number);
                ended.then(|| {
                    self.lines.remove(&peer);
                    Turn::Input(Input::PeerDown { peer })
                })
            }
        }
    }

    /// Frames that came one behind the other: what one member wrote is then applied as one.
    fn together(turns: Vec<Turn<Replica>>) -> Vec<Turn<Replica>> {
        let mut together: Vec<Turn<Replica>> = Vec::with_capacity(turns.len());
        for turn in turns {
            match (turn, together.last_mut()) {
                (
                    Turn::Input(Input::Received { peer, frame }),
                    Some(Turn::Input(Input::ReceivedTogether { frames })),
                ) => frames.push((peer, frame)),
                (Turn::Input(Input::Received { peer, frame }), _) => {
                    together.push(Turn::Input(Input::ReceivedTogether { frames: vec![(peer, frame)] }));
                }
                (turn, _) => together.push(turn),
            }
        }
        together
    }

    fn read(machine: &Replica, output: Output) -> Act {
        let tell = match &output {
            Output::Notify(event) => wattle_weave::to_apps(machine, event),
            _ => Vec::new(),
        };
        Act::Said { output, tell }
    }

    fn follows(output: &Output) -> Option<Input> {
        wattle_weave::follows(output)
    }

    fn after(&mut self, machine: &Replica, left: bool, acts: &mut Vec<Act>) {
        let mut changed = BTreeSet::new();
        for act in acts.iter() {
            let Act::Said { output, .. } = act else { continue };
            match output {
                Output::Notify(event) => {
                    self.found |= matches!(event, Event::MembersChanged { .. });
                    changed.insert(*wattle_weave::doc_of(event));
                }
                Output::Seek { doc, .. } | Output::Held { doc, .. } | Output::Dropped { doc, .. } => {
                    self.found = true;
                    changed.insert(*doc);
                }
                _ => {}
            }
        }
        for doc in changed {
            match machine.status(&doc) {
                Some(status) => self.around.index.put(status),
                None => self.around.index.remove(&doc),
            }
        }
        if left {
            return;
        }
        if self.around.budget.is_over(self.around.shard, machine.open_bytes()) {
            acts.push(Act::Shed);
        }
        if std::mem::take(&mut self.found) {
            let wanted = machine.wanted_peers();
            if wanted != self.wanted {
                self.wanted.clone_from(&wanted);
                acts.insert(0, Act::Want(wanted));
            }
        }
    }

    async fn act(&mut self, act: Act) {
        let (output, tell) = match act {
            Act::Said { output, tell } => (output, tell),
            Act::Shed => return self.switch(Heard::Full).await,
            Act::Want(wanted) => return self.switch(Heard::Wanted(self.around.shard, wanted)).await,
        };
        for input in tell {
            // Ignored because apps that ended have nobody to tell.
            drop(self.around.apps.send(input).await);
        }
        self.around.inboxes.learn(&output);
        match output {
            Output::Send { peer, frame } => self.send(peer, frame),
            Output::Persist { id, writes } => self.persist(id, writes),
            Output::Load { doc, keys } => self.load(keys, move |values| Input::Loaded { doc, values }),
            Output::Fetch { id, keys } => self.load(keys, move |values| Input::Fetched { id, values }),
            Output::Seek { doc, tag, members } => self.switch(Heard::Seek { doc, tag, members }).await,
            Output::Held { tag, .. } => self.switch(Heard::Held(tag)).await,
            Output::Dropped { tag, .. } => self.switch(Heard::Dropped(tag)).await,
            Output::Reply { request, outcome } => {
                if let Some(reply) = self.waiting.remove(&request) {
                    // Ignored because whoever asked has stopped waiting.
                    drop(reply.send(outcome));
                }
            }
            Output::Notify(event) => {
                // Ignored because nobody watches.
                drop(self.around.events.send(event));
            }
            Output::Misbehaved { peer, why } => {
                tracing::warn!(%peer, why, "a peer broke the protocol of documents");
                self.lines.remove(&peer);
                self.switch(Heard::Misbehaved(peer)).await;
            }
        }
    }
}
