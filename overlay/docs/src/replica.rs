//! The machine: all documents of one node (or of one shard of it), their peers and their disk.

mod budget;
mod catch_up;
mod clients;
mod disk;
mod event;
mod feeds;
mod forks;
mod local;
mod outcome;
mod peers;
mod presence;
mod quick;
mod shard;
mod shown;
mod spread;
mod status;
mod together;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wattle_types::{
    DocAccess, DocId, DocTag, Envelope, FeedId, Machine, NetworkName, NodeId, Outbox, SecretKey, Table, Time,
    UnixTime, Write, cbor, keyed,
};

use crate::access::{ControlLog, Members, Role};
use crate::document::{Conversation, Document, Edit, Hash, Heard, Read, Steps, Work};
use crate::feed;
use crate::message::{Message, frame};
use crate::page::FeedLog;
use crate::payload::Payload;
use crate::row::{Label, Row};
use crate::session::{Session, Standing};
use crate::shown::Shown;
pub use event::Event;
use feeds::Feeds;
use forks::SUSPECTS_MAX;
pub use outcome::{Corrupt, DocError, Outcome};
use peers::Link;
pub use shard::Shard;
pub use shown::Show;
use shown::Showing;
pub use status::{DocStatus, PeerStatus};

pub(crate) use presence::Allowance;
pub use presence::{PRESENCE_PER_SECOND, Presence};

/// Requests and messages that wait for a document that is being read from disk. Beyond it local callers are
/// told that the document is busy, and a peer's message is dropped: its next summary brings it back.
pub const WAITING_MAX: usize = 1024;

/// Between the last change and the summary that makes certain of it.
const SUMMARY_AFTER: Duration = Duration::from_millis(50);

/// How often a peer that is not equal is told again, and a transfer that stands still is given up.
const REPEAT: Duration = Duration::from_secs(5);

/// How often a peer that may hold a document and does not speak of it is asked again.
const HELLO_AGAIN: Duration = Duration::from_secs(30);

/// Handshakes that this machine has under way with one peer: a channel that opens between nodes that share a thousand
/// documents is not filled up by the first words about each.
const HELLOS_AT_ONCE: usize = 4;

/// How long one who is a member as well, and has the lower id, is left to say hello first.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// A local caller's request, answered by one [`Output::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A batch of writes, answered by [`Input::Persisted`] or [`Input::NotPersisted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// A read, answered by [`Input::Fetched`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// What the machine is told at its start.
#[derive(Clone)]
pub struct Config {
    /// This node.
    pub key: SecretKey,
    /// The network, which every signature is bound to.
    pub network: NetworkName,
    /// The only source of randomness.
    pub seed: [u8; 32],
    /// The wall clock when [`Time`] was zero.
    pub started: UnixTime,
    /// What a document is, read from what is in it.
    pub label: fn(&automerge::Automerge) -> Label,
    /// What a large document shows at first, which is kept beside it.
    pub show: Show,
}

/// What happened.
pub enum Input {
    /// A local caller makes a document.
    Create {
        /// Who asks.
        request: RequestId,
        /// The history of another document that it begins with; its bytes went through
        /// [`crate::chunk::inspect`].
        history: Option<Box<automerge::Automerge>>,
        /// What it holds at first, or what is changed of that history.
        edit: Edit,
    },
    /// A local caller makes a document that begins with more than one change takes.
    CreateInSteps {
        /// Who asks.
        request: RequestId,
        /// What it holds at first.
        steps: Steps,
    },
    /// A local caller came by the way to a document.
    Join {
        /// Who asks.
        request: RequestId,
        /// What leads to it.
        access: DocAccess,
        /// The key of the ticket.
        bearer: Option<[u8; 16]>,
        /// Who wrote the ticket.
        inviter: Option<NodeId>,
    },
    /// A local caller changes a document.
    Edit {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
        /// The heads that the edit was made on; none is the current state.
        at: Option<Vec<[u8; 32]>>,
        /// The change.
        edit: Edit,
    },
    /// A local caller changes a document by more than one change takes. All of it is saved, or nothing.
    EditInSteps {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
        /// The heads that the edit was made on; none is the current state.
        at: Option<Vec<[u8; 32]>>,
        /// The changes.
        steps: Steps,
    },
    /// A local caller reads a document.
    Read {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
        /// The question.
        read: Read,
    },
    /// A local caller wants to see what a document shows at first: [`Show::bytes`] of it.
    Show {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
    },
    /// A local caller wants to let others in by a ticket.
    Invite {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
        /// What the invited may do.
        role: Role,
        /// Until when.
        expires: Option<UnixTime>,
        /// How many.
        uses: Option<u32>,
    },
    /// A local caller gives a node a role, or leaves it no more than this one.
    Grant {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
        /// To whom.
        to: NodeId,
        /// Which role.
        role: Role,
    },
    /// A local caller takes every role from a node.
    Remove {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
        /// From whom.
        who: NodeId,
    },
    /// A local caller wants a document gone from here.
    Forget {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
    },
    /// A program on this machine says something in automerge's sync protocol, or is to be told what changed.
    Sync {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
        /// How far the conversation has come; a new one at first.
        conversation: Box<Conversation>,
        /// What it says; none to ask what there is to say.
        message: Option<Vec<u8>>,
    },
    /// A program on this machine says something to all who have a document open.
    Ephemeral {
        /// Which document.
        doc: DocId,
        /// What.
        presence: Presence,
    },
    /// A channel to a peer opened.
    PeerUp {
        /// Who.
        peer: NodeId,
    },
    /// The channel closed.
    PeerDown {
        /// Who.
        peer: NodeId,
    },
    /// A peer was found to hold a document.
    Found {
        /// Which document.
        doc: DocId,
        /// Who.
        peer: NodeId,
    },
    /// A frame arrived.
    Received {
        /// From whom.
        peer: NodeId,
        /// Its bytes.
        frame: Vec<u8>,
    },
    /// Frames arrived while the machine was busy: all that came for it, in order.
    ReceivedTogether {
        /// From whom, and their bytes.
        frames: Vec<(NodeId, Vec<u8>)>,
    },
    /// Memory is short: what is not in use is to be put away.
    Shed,
    /// A batch is on disk.
    Persisted {
        /// Which.
        id: PersistId,
    },
    /// A batch is not on disk, and nothing of it.
    NotPersisted {
        /// Which.
        id: PersistId,
        /// In words for the caller.
        why: String,
    },
    /// What [`Output::Load`] asked for, in its order.
    Loaded {
        /// Which document.
        doc: DocId,
        /// The values, absent ones as none; or why they could not be read.
        values: Result<Vec<Option<Vec<u8>>>, String>,
    },
    /// A local caller appends to its feed of a document.
    Append {
        /// Who asks.
        request: RequestId,
        /// Which document.
        doc: DocId,
        /// What it says.
        body: Vec<u8>,
    },
    /// A local caller tells the members that are here something that nobody keeps.
    Signal {
        /// Who asks.
        request: RequestId,
        /// Of which document.
        doc: DocId,
        /// What, at most [`SIGNAL_BYTES_MAX`](crate::SIGNAL_BYTES_MAX).
        bytes: Vec<u8>,
    },
    /// What [`Output::Fetch`] asked for, in its order.
    Fetched {
        /// Which.
        id: FetchId,
        /// The values, absent ones as none; or why they could not be read.
        values: Result<Vec<Option<Vec<u8>>>, String>,
    },
    /// The wall clock was set, or the machine slept: what time it is.
    Clock(UnixTime),
    /// A deadline passed.
    Wake,
}

/// What must happen.
#[derive(Debug)]
pub enum Output {
    /// Send a frame.
    Send {
        /// To whom.
        peer: NodeId,
        /// Its bytes.
        frame: Vec<u8>,
    },
    /// Write a batch; it is within the store's limits.
    Persist {
        /// To be named in the answer.
        id: PersistId,
        /// The writes, in order, all or none.
        writes: Vec<Write>,
    },
    /// Read these keys.
    Load {
        /// For which document.
        doc: DocId,
        /// Which.
        keys: Vec<(Table, Vec<u8>)>,
    },
    /// Read these keys.
    Fetch {
        /// To be named in the answer.
        id: FetchId,
        /// Which.
        keys: Vec<(Table, Vec<u8>)>,
    },
    /// Find and connect who may hold a document.
    Seek {
        /// Which document.
        doc: DocId,
        /// Under what it is looked for.
        tag: DocTag,
        /// Who is known to hold it.
        members: Vec<NodeId>,
    },
    /// Answer a local caller.
    Reply {
        /// Which request.
        request: RequestId,
        /// The answer.
        outcome: Result<Outcome, DocError>,
    },
    /// Something that watchers want to know.
    Notify(Event),
    /// A document is on disk here: others may look for it, and what they say under its tag is for this machine.
    Held {
        /// Which document.
        doc: DocId,
        /// Under what it is looked for.
        tag: DocTag,
    },
    /// A document is gone from here, or never came to the disk; its tag means nothing any more.
    Dropped {
        /// Which document.
        doc: DocId,
        /// Under what it was looked for.
        tag: DocTag,
    },
    /// A peer broke the protocol.
    Misbehaved {
        /// Who.
        peer: NodeId,
        /// How.
        why: &'static str,
    },
}

/// Whose fate depends on a batch.
enum Waiting {
    /// A local edit: the heads before and after.
    Edit { request: RequestId, before: Vec<Hash>, after: Vec<Hash> },
    /// Anything that is answered as it stands.
    Plain { request: RequestId, outcome: Outcome },
}

/// What is being written of one document: at most one batch at a time, so that what follows never reaches
/// the disk without what it builds on. What comes meanwhile shares the next.
#[derive(Default)]
struct Writing {
    in_flight: Option<PersistId>,
    /// The row in that batch or in one that follows it.
    row: Option<Arc<Row>>,
    /// Batches that follow the one in flight: a snapshot in parts.
    batches: VecDeque<Vec<Write>>,
    /// Who is answered when the last of them is on disk, and what is sent then.
    flight: Flight,
    /// What the next batch holds.
    next: Flight,
    /// Rewrite all of it: parts of it do not belong any more.
    snapshot: bool,
    /// Look for such parts once nothing is on its way.
    prune: bool,
    /// What peers want that may not be on disk yet.
    wants: Vec<Job>,
}

#[derive(Default)]
struct Flight {
    waiting: Vec<Waiting>,
    payload: Payload,
    operations: Vec<Envelope>,
    /// Who sent the payload, where it was one peer.
    from: Option<NodeId>,
    row: bool,
}

/// A job that waits for a document to be read.
enum Job {
    Edit { request: RequestId, at: Option<Vec<Hash>>, work: Work },
    Read { request: RequestId, read: Read },
    Show { request: RequestId },
    Lower { request: RequestId, who: NodeId, stays: Option<Role> },
    Accept { peer: NodeId, payload: Payload },
    Want { peer: NodeId, heads: Vec<Hash>, clock: Vec<(serde_bytes::ByteBuf, u64)> },
    Ask { peer: NodeId },
    Sync { request: RequestId, conversation: Box<Conversation>, heard: Option<Heard> },
    Prune,
}

enum State {
    Closed,
    Loading(Vec<Job>),
    Open(Box<Document>),
    /// What is stored cannot be read.
    Damaged(String),
}

struct Entry {
    row: Arc<Row>,
    /// The row on disk, mostly the same; none before the first.
    saved: Option<Arc<Row>>,
    log: ControlLog,
    members: Members,
    state: State,
    sessions: BTreeMap<NodeId, Box<Session>>,
    /// Who is known to hold it although no operation says so yet.
    found: BTreeSet<NodeId>,
    said: presence::Said,
    /// None while nothing is written: most documents rest.
    writing: Option<Box<Writing>>,
    showing: Showing,
    feeds: Feeds,
    /// A snapshot did not read back: none is tried before this record.
    unproven_until: u64,
    used: Time,
    due: Option<Time>,
    /// Who wrote here last, where all of that is on disk: it goes on when the document is read again.
    actor: Option<[u8; 16]>,
    /// When it is looked whether anybody uses it, while it is open.
    rests: Option<Time>,
}

/// What entries are read for.
enum Fetch {
    /// A peer asked for them.
    Give { peer: NodeId, feed: FeedId },
    /// A peer has another in the same place.
    Own { feed: FeedId, seq: u64 },
    /// A removal ends the feed there.
    End { feed: FeedId, last: u64 },
    /// Some want to see what the document shows at first.
    Show { shown: Shown },
}

/// All documents of a node.
pub struct Replica {
    config: Config,
    shard: Shard,
    me: NodeId,
    draws: u64,
    /// On the heap each: a node of the tree has room for eleven, and most are in a tree of a dozen.
    entries: BTreeMap<DocId, Box<Entry>>,
    tags: BTreeMap<DocTag, DocId>,
    links: BTreeMap<NodeId, Link>,
    persists: BTreeMap<PersistId, DocId>,
    feed_persists: BTreeMap<PersistId, DocId>,
    shown_persists: BTreeMap<PersistId, DocId>,
    fetches: BTreeMap<FetchId, (DocId, Fetch)>,
    persists_made: u64,
    /// Documents whose removal is on its way to the disk.
    forgotten: BTreeMap<PersistId, (RequestId, Box<Entry>)>,
    transfers: u32,
    timers: BTreeSet<(Time, DocId)>,
    /// Of each open document, when it is looked whether anybody uses it.
    rests: BTreeSet<(Time, DocId)>,
    /// Whether more frames follow at once, and what they brought so far.
    together: bool,
    run: Option<together::Run>,
}

impl Replica {
    /// The machine over what is stored: every entry of [`Table::Docs`], [`Table::DocControl`] and
    /// [`Table::DocFeeds`].
    ///
    /// # Errors
    /// [`Corrupt`], naming the entry that cannot be read.
    pub fn new(
        config: Config,
        mut rows: Vec<(Vec<u8>, Vec<u8>)>,
        operations: Vec<(Vec<u8>, Vec<u8>)>,
        feeds: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, Corrupt> {
        let me = config.key.node_id();
        let mut replica = Self {
            config,
            shard: Shard::WHOLE,
            me,
            draws: 0,
            entries: BTreeMap::new(),
            tags: BTreeMap::new(),
            links: BTreeMap::new(),
            persists: BTreeMap::new(),
            feed_persists: BTreeMap::new(),
            shown_persists: BTreeMap::new(),
            fetches: BTreeMap::new(),
            persists_made: 0,
            forgotten: BTreeMap::new(),
            transfers: 0,
            timers: BTreeSet::new(),
            rests: BTreeSet::new(),
            together: false,
            run: None,
        };
        let mut logs: BTreeMap<Vec<u8>, Vec<Envelope>> = BTreeMap::new();
        for (key, value) in operations {
            let envelope = cbor::decode(&value, value.len());
            let envelope = envelope.map_err(|error| Corrupt(format!("an operation: {error}")))?;
            let doc = key.get(..16).unwrap_or_default().to_vec();
            logs.entry(doc).or_default().push(envelope);
        }
        let shown = Shown::take_all(&mut rows);
        for row in Row::read_all(rows).map_err(|why| Corrupt(format!("a document: {why}")))? {
            let operations = logs.remove(row.access.id.as_bytes().as_slice()).unwrap_or_default();
            let doc = replica.insert(row, operations, Time::ZERO);
            if let Some(entry) = replica.entries.get_mut(&doc) {
                entry.saved = Some(Arc::clone(&entry.row));
            }
        }
        for (doc, shown) in shown {
            if let Some(entry) = replica.entries.get_mut(&doc) {
                entry.showing.kept = Some(Box::new(shown));
            }
        }
        let limit = replica.hlc_max(Time::ZERO);
        for (key, value) in feeds {
            let row = feed::read_feed_key(&key).zip(cbor::decode::<feed::Feed>(&value, value.len()).ok());
            let ((doc, id), feed) = row.ok_or_else(|| Corrupt("a feed's row".to_owned()))?;
            if let Some(entry) = replica.entries.get_mut(&doc) {
                entry.feeds.restore(id, feed, limit);
            }
        }
        for doc in replica.entries.keys().copied().collect::<Vec<_>>() {
            replica.feeds_restored(doc);
        }
        Ok(replica)
    }

    fn insert(&mut self, row: Row, operations: Vec<Envelope>, now: Time) -> DocId {
        let doc = row.access.id;
        let mut log = ControlLog::default();
        log.extend(&row.access, &self.config.network, operations);
        let members = log.members(&row.access);
        self.tags.insert(row.access.read.tag(), doc);
        let entry = Entry {
            row: Arc::new(row),
            saved: None,
            log,
            members,
            state: State::Closed,
            sessions: BTreeMap::new(),
            found: BTreeSet::new(),
            said: presence::Said::default(),
            writing: None,
            showing: Showing::default(),
            feeds: Feeds::default(),
            unproven_until: 0,
            used: now,
            due: None,
            actor: None,
            rests: None,
        };
        self.entries.insert(doc, Box::new(entry));
        doc
    }

    /// Who may do what with a document.
    #[must_use]
    pub fn members(&self, doc: &DocId) -> Option<&Members> {
        self.entries.get(doc).map(|entry| &entry.members)
    }

    /// What is on disk of a document's feeds.
    #[must_use]
    pub fn feed_log(&self, doc: &DocId) -> Option<FeedLog> {
        let saved = self.entries.get(doc)?.feeds.saved().clone();
        Some(FeedLog::new(*doc, saved))
    }

    /// What leads to a document.
    #[must_use]
    pub fn access(&self, doc: &DocId) -> Option<&DocAccess> {
        self.entries.get(doc).map(|entry| &entry.row.access)
    }

    /// What leads to each document here, by id.
    pub fn accesses(&self) -> impl Iterator<Item = &DocAccess> {
        self.entries.values().map(|entry| &entry.row.access)
    }

    /// The peers that some document is shared with or was promised by: worth a channel.
    #[must_use]
    pub fn wanted_peers(&self) -> BTreeSet<NodeId> {
        let known = self.entries.values().flat_map(|entry| entry.contacts());
        known.filter(|peer| *peer != self.me).collect()
    }

    /// Random bytes: from the seed, never twice the same.
    fn draw<const N: usize>(&mut self) -> [u8; N] {
        self.draws += 1;
        let whole = keyed(&self.config.seed, &[&self.draws.to_be_bytes()]);
        whole.first_chunk().copied().unwrap_or([0; N])
    }

    fn wall(&self, now: Time) -> UnixTime {
        self.config.started.after(now.since(Time::ZERO))
    }

    fn send(&self, doc: &DocId, peer: NodeId, message: &Message, out: &mut Outbox<Output>) {
        if let Some(entry) = self.entries.get(doc) {
            let frame = frame(&entry.row.access.read.tag(), message);
            out.push(Output::Send { peer, frame });
        }
    }

    fn set_due(&mut self, doc: DocId, at: Time) {
        let Some(entry) = self.entries.get_mut(&doc) else { return };
        if entry.due.is_none_or(|due| at < due) {
            if let Some(due) = entry.due.replace(at) {
                self.timers.remove(&(due, doc));
            }
            self.timers.insert((at, doc));
        }
    }

    fn on_wake(&mut self, now: Time, out: &mut Outbox<Output>) {
        while let Some((due, doc)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, doc));
            let Some(entry) = self.entries.get_mut(&doc) else { continue };
            entry.due = None;
            self.cut_feeds(doc, out);
            self.tell_grown(now, doc, out);
            self.summarise(doc, now, out);
            self.keep_shown(now, doc, out);
        }
        self.put_away(now);
    }

    /// Checks what must hold between any two inputs.
    pub fn check_invariants(&self) {
        for (doc, entry) in &self.entries {
            assert_eq!(*doc, entry.row.access.id, "an entry stands under its id");
            assert_eq!(
                self.tags.get(&entry.row.access.read.tag()),
                Some(doc),
                "a document is found by its tag"
            );
            let peers_are_linked = entry.sessions.keys().all(|peer| self.links.contains_key(peer));
            assert!(peers_are_linked, "D3: a session lives within a channel");
            let is_open = matches!(entry.state, State::Open(_));
            assert_eq!(entry.rests.is_some(), is_open, "an open document is put away one day");
            assert!(entry.feeds.suspects.len() <= SUSPECTS_MAX, "so many feeds are looked into at once");
        }
    }
}

impl Machine for Replica {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Create { request, history, edit } => {
                self.create(now, request, history, Work::Edit(edit), out);
            }
            Input::CreateInSteps { request, steps } => {
                self.create(now, request, None, Work::Steps(steps), out);
            }
            Input::Join { request, access, bearer, inviter } => {
                self.join(now, request, access, bearer, inviter, out);
            }
            Input::Edit { request, doc, at, edit } => {
                self.local_job(now, doc, request, Job::edit(request, at, Work::Edit(edit)), out);
            }
            Input::EditInSteps { request, doc, at, steps } => {
                self.local_job(now, doc, request, Job::edit(request, at, Work::Steps(steps)), out);
            }
            Input::Read { request, doc, read } => {
                self.local_job(now, doc, request, Job::Read { request, read }, out);
            }
            Input::Show { request, doc } => self.show(now, doc, request, out),
            Input::Invite { request, doc, role, expires, uses } => {
                self.invite(now, request, doc, role, expires, uses, out);
            }
            Input::Grant { request, doc, to, role } => self.grant(now, request, doc, to, role, out),
            Input::Remove { request, doc, who } => {
                self.local_job(now, doc, request, Job::Lower { request, who, stays: None }, out);
            }
            Input::Forget { request, doc } => self.forget(request, doc, out),
            Input::Sync { request, doc, conversation, message } => {
                self.sync(now, request, doc, conversation, message.as_deref(), out);
            }
            Input::Ephemeral { doc, presence } => self.say(now, doc, presence, out),
            Input::PeerUp { peer } => self.peer_up(now, peer, out),
            Input::PeerDown { peer } => self.peer_down(now, &peer, out),
            Input::Found { doc, peer } => self.found(now, doc, peer, out),
            Input::Received { peer, frame } => self.received(now, peer, &frame, out),
            Input::ReceivedTogether { frames } => self.received_together(now, frames, out),
            Input::Shed => self.shed(now),
            Input::Persisted { id } => self.persisted(now, id, out),
            Input::NotPersisted { id, why } => self.not_persisted(now, id, &why, out),
            Input::Loaded { doc, values } => self.loaded(now, doc, values, out),
            Input::Append { request, doc, body } => self.append(now, doc, request, body, out),
            Input::Signal { request, doc, bytes } => self.signal(doc, request, &bytes, out),
            Input::Fetched { id, values } => self.fetched(now, id, values, out),
            Input::Clock(wall) => self.config.started = wall.before(now.since(Time::ZERO)),
            Input::Wake => self.on_wake(now, out),
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn deadline(&self) -> Option<Time> {
        let first = |timers: &BTreeSet<(Time, DocId)>| timers.first().map(|(due, _)| *due);
        first(&self.timers).into_iter().chain(first(&self.rests)).min()
    }
}

impl Writing {
    fn is_idle(&self) -> bool {
        let Self { in_flight, row, batches, flight, next, snapshot, prune, wants } = self;
        in_flight.is_none()
            && row.is_none()
            && batches.is_empty()
            && [flight, next].into_iter().all(Flight::is_empty)
            && !(*snapshot || *prune)
            && wants.is_empty()
    }
}

impl Flight {
    fn is_empty(&self) -> bool {
        let Self { waiting, payload, operations, from: _, row } = self;
        waiting.is_empty() && *payload == Payload::default() && operations.is_empty() && !row
    }
}

impl Entry {
    /// Whether a batch of the document is on its way to the disk.
    fn is_writing(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.in_flight.is_some())
    }

    /// What is to be written and is being written.
    fn writing(&mut self) -> &mut Writing {
        self.writing.get_or_insert_default()
    }

    /// Keeps nothing for writing where nothing is to be written.
    fn rest(&mut self) {
        self.writing.take_if(|writing| writing.is_idle());
    }

    /// What this replica tells others: only what is on disk.
    fn standing(&self) -> Standing {
        let heads = self.saved.as_ref().map(|row| row.tip.heads.clone()).unwrap_or_default();
        Standing { control: self.log.fingerprint(), heads, feeds: self.feeds.print() }
    }

    /// Who may hold the document: members, who invited, who was found.
    fn contacts(&self) -> impl Iterator<Item = NodeId> + '_ {
        let members = self.members.iter().map(|(node, _)| node);
        members.chain(self.row.inviter).chain(self.found.iter().copied())
    }
}
