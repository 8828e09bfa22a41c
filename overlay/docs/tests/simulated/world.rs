//! Some nodes with a network, disks and a clock that obey one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use automerge::transaction::Transactable as _;
use automerge::{Automerge, ReadDoc as _};
use wattle_docs::{
    Authors, Config, DocError, Edit, Event, FetchId, Input, Label, Outcome, Output, PersistId, Replica,
    RequestId, Show,
};
use wattle_types::{
    DocId, Machine as _, NetworkName, NodeId, Outbox, PostId, PostLink, Posted, SecretKey, Table, Time,
    UnixTime, Write,
};

/// What the network and the disks do.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// Of 100 frames, this many are lost, doubled.
    pub(crate) loss: u64,
    pub(crate) double: u64,
    /// Longest time on the way.
    pub(crate) delay_ms: u64,
    /// Whether frames overtake each other. Those of one channel do not; those of a dead one and of the next may.
    pub(crate) overtake: bool,
    /// Longest time of a write.
    pub(crate) disk_ms: u64,
}

impl Faults {
    pub(crate) const NONE: Self = Self { loss: 0, double: 0, delay_ms: 0, overtake: true, disk_ms: 1 };
}

enum What {
    Deliver { to: usize, from: usize, frame: Vec<u8>, link: u64 },
    Written { node: usize, life: u64, id: PersistId },
    Read { node: usize, life: u64, of: Of, keys: Vec<(Table, Vec<u8>)> },
}

/// What is read.
enum Of {
    Document(DocId),
    Entries(FetchId),
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    key: SecretKey,
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    /// Batches the disk was given and has not finished, in order.
    writing: Vec<(PersistId, Vec<Write>)>,
    life: u64,
    pub(crate) full: bool,
    /// A table that the disk takes nothing for.
    pub(crate) refuses: Option<Table>,
    /// How far its wall clock is off, from its next start on.
    pub(crate) clock_ahead: Duration,
    pub(crate) clock_behind: Duration,
    pub(crate) replies: BTreeMap<RequestId, Result<Outcome, DocError>>,
    pub(crate) events: Vec<Event>,
    pub(crate) misbehaved: Vec<(NodeId, &'static str)>,
    pub(crate) received_bytes: u64,
    pub(crate) written_bytes: u64,
    /// Documents that were read from the disk.
    pub(crate) loads: u64,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: Vec<Node>,
    pub(crate) faults: Faults,
    /// What nodes keep of large documents, from their next start on.
    pub(crate) show: Show,
    seed: u64,
    order: u64,
    requests: u64,
    queue: BTreeMap<(Time, u64), What>,
    /// Connected pairs, lower first, with the number of the connection.
    links: BTreeMap<(usize, usize), u64>,
    /// When the last frame from one to another arrives.
    arrived: BTreeMap<(usize, usize), Time>,
}

fn label(_: &Automerge) -> Label {
    Label::default()
}

impl Node {
    /// What its wall clock said when the world began.
    fn started(&self) -> UnixTime {
        UnixTime::from_millis(1_800_000_000_000).before(self.clock_behind).after(self.clock_ahead)
    }
}

impl World {
    pub(crate) fn new(nodes: usize, seed: u64, faults: Faults) -> Self {
        let mut world = Self {
            now: Time::ZERO,
            nodes: Vec::new(),
            faults,
            show: Show::NOTHING,
            seed,
            order: 0,
            requests: 0,
            queue: BTreeMap::new(),
            links: BTreeMap::new(),
            arrived: BTreeMap::new(),
        };
        for index in 0..nodes {
            let key = SecretKey::from_bytes(&[index as u8 + 1; 32]);
            world.nodes.push(Node {
                id: key.node_id(),
                key,
                replica: None,
                disk: BTreeMap::new(),
                writing: Vec::new(),
                life: 0,
                full: false,
                refuses: None,
                clock_ahead: Duration::ZERO,
                clock_behind: Duration::ZERO,
                replies: BTreeMap::new(),
                events: Vec::new(),
                misbehaved: Vec::new(),
                received_bytes: 0,
                written_bytes: 0,
                loads: 0,
            });
            world.start(index);
        }
        world
    }

    /// What was sent to a node and arrives last of all that is on its way.
    pub(crate) fn last_on_its_way(&self, node: usize) -> Option<Vec<u8>> {
        self.queue.values().rev().find_map(|what| match what {
            What::Deliver { to, frame, .. } if *to == node => Some(frame.clone()),
            _ => None,
        })
    }

    /// Frames that were sent and have not arrived.
    pub(crate) fn on_their_way(&self) -> usize {
        self.queue.values().filter(|what| matches!(what, What::Deliver { .. })).count()
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
        let mut seed = [0; 32];
        for byte in &mut seed {
            *byte = self.draw(256) as u8;
        }
        let it = &mut self.nodes[node];
        it.life += 1;
        let rows = |table| {
            let rows = it.disk.iter().filter(move |((of, _), _)| *of == table);
            rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        };
        let config = Config {
            key: it.key.clone(),
            network: NetworkName::default(),
            seed,
            started: it.started(),
            label,
            show: self.show,
        };
        it.replica = Some(
            Replica::new(config, rows(Table::Docs), rows(Table::DocControl), rows(Table::DocFeeds)).unwrap(),
        );
    }

    /// Somebody sets a node's wall clock so many seconds ahead, or behind where that is less than nothing.
    pub(crate) fn set_clock(&mut self, node: usize, ahead_s: i64) {
        let it = &mut self.nodes[node];
        let off = Duration::from_secs(ahead_s.unsigned_abs());
        (it.clock_ahead, it.clock_behind) =
            if ahead_s < 0 { (Duration::ZERO, off) } else { (off, Duration::ZERO) };
        let wall = it.started().after(self.now.since(Time::ZERO));
        self.handle(node, Input::Clock(wall));
    }

    /// Kills a node: of what it gave to the disk a prefix is there, the rest is not. A batch is there whole or not at
    /// all: that is what the store promises, and its own tests tear writes apart at every step, sector by sector,
    /// to hold it to that (`a_power_cut_in_the_middle_of_a_batch_leaves_all_of_it_or_nothing`).
    pub(crate) fn crash(&mut self, node: usize) {
        let written = self.draw(self.nodes[node].writing.len() as u64 + 1) as usize;
        self.crash_behind(node, written);
    }

    /// Kills a node: of the batches that the disk has not finished so many are there, and no more.
    pub(crate) fn crash_behind(&mut self, node: usize, written: usize) {
        for other in 0..self.nodes.len() {
            self.disconnect(node, other);
        }
        let it = &mut self.nodes[node];
        it.replica = None;
        it.life += 1;
        let batches = std::mem::take(&mut it.writing);
        for (_, writes) in batches.into_iter().take(written) {
            apply(&mut it.disk, writes);
        }
    }

    /// A node starts anew without a word of any feed, as one that has just come.
    pub(crate) fn forget_feeds(&mut self, node: usize) {
        self.crash(node);
        self.nodes[node].disk.retain(|(table, _), _| !matches!(table, Table::DocFeeds | Table::DocPosts));
        self.start(node);
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].replica.is_some()
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        let pair = (a.min(b), a.max(b));
        if a == b || self.links.contains_key(&pair) || !self.is_up(a) || !self.is_up(b) {
            return;
        }
        self.order += 1;
        self.links.insert(pair, self.order);
        let (a_id, b_id) = (self.nodes[a].id, self.nodes[b].id);
        self.handle(a, Input::PeerUp { peer: b_id });
        self.handle(b, Input::PeerUp { peer: a_id });
    }

    pub(crate) fn disconnect(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))).is_some() {
            let (a_id, b_id) = (self.nodes[a].id, self.nodes[b].id);
            self.handle(a, Input::PeerDown { peer: b_id });
            self.handle(b, Input::PeerDown { peer: a_id });
        }
    }

    pub(crate) fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                self.connect(a, b);
            }
        }
    }

    pub(crate) fn index(&self, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *id)
    }

    fn schedule(&mut self, after_ms: u64, what: What) {
        self.order += 1;
        self.queue.insert((self.now.after(Duration::from_millis(after_ms)), self.order), what);
    }

    /// Sends a frame as node `from` would.
    pub(crate) fn send(&mut self, from: usize, to: usize, frame: Vec<u8>) {
        let Some(link) = self.links.get(&(from.min(to), from.max(to))).copied() else { return };
        if self.draw(100) < self.faults.loss {
            return;
        }
        let times = if self.draw(100) < self.faults.double { 2 } else { 1 };
        for _ in 0..times {
            let delay = self.draw(self.faults.delay_ms + 1);
            let mut at = self.now.after(Duration::from_millis(delay));
            if !self.faults.overtake {
                at = at.max(self.arrived.get(&(from, to)).copied().unwrap_or_default());
                self.arrived.insert((from, to), at);
            }
            self.order += 1;
            self.queue.insert((at, self.order), What::Deliver { to, from, frame: frame.clone(), link });
        }
    }

    pub(crate) fn handle(&mut self, node: usize, input: Input) {
        let now = self.now;
        let mut out = Outbox::new();
        let Some(replica) = &mut self.nodes[node].replica else { return };
        replica.handle(now, input, &mut out);
        let life = self.nodes[node].life;
        for output in out.drain().collect::<Vec<_>>() {
            match output {
                Output::Send { peer, frame } => {
                    if let Some(to) = self.index(&peer) {
                        self.send(node, to, frame);
                    }
                }
                Output::Persist { id, writes } => {
                    let bytes: usize = writes.iter().map(written_bytes).sum();
                    assert!(bytes <= 1 << 20, "a batch of {bytes} bytes is over the store's limit");
                    let refuses = self.nodes[node].refuses;
                    let is_refused = writes
                        .iter()
                        .any(|write| matches!(write, Write::Put { table, .. } if refuses == Some(*table)));
                    if self.nodes[node].full || is_refused {
                        let why = "the disk is full".to_owned();
                        self.handle(node, Input::NotPersisted { id, why });
                        continue;
                    }
                    self.nodes[node].written_bytes += bytes as u64;
                    self.nodes[node].writing.push((id, writes));
                    let delay = self.draw(self.faults.disk_ms + 1);
                    self.schedule(delay, What::Written { node, life, id });
                }
                Output::Load { doc, keys } => {
                    self.nodes[node].loads += 1;
                    let delay = self.draw(self.faults.disk_ms + 1);
                    self.schedule(delay, What::Read { node, life, of: Of::Document(doc), keys });
                }
                Output::Fetch { id, keys } => {
                    let delay = self.draw(self.faults.disk_ms + 1);
                    self.schedule(delay, What::Read { node, life, of: Of::Entries(id), keys });
                }
                Output::Seek { doc, members, .. } => {
                    for member in members {
                        if let Some(other) = self.index(&member) {
                            self.connect(node, other);
                            self.handle(node, Input::Found { doc, peer: member });
                        }
                    }
                }
                Output::Reply { request, outcome } => {
                    let twice = self.nodes[node].replies.insert(request, outcome);
                    assert!(twice.is_none(), "{request:?} was answered twice");
                }
                Output::Notify(event) => self.nodes[node].events.push(event),
                Output::Held { .. } | Output::Dropped { .. } => {}
                Output::Misbehaved { peer, why } => self.nodes[node].misbehaved.push((peer, why)),
            }
        }
    }

    /// Lets everything happen that happens within a span.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now.after(span);
        for step in 0.. {
            assert!(step < 50_000, "the nodes talk without end at {:?}", self.now);
            let wake = |node: &Node| node.replica.as_ref().and_then(|replica| replica.deadline());
            let wakes = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((wake(node)?, index)));
            let wake = wakes.min();
            let next = self.queue.first_key_value().map(|(key, _)| *key);
            match (next, wake) {
                (Some(key), wake) if key.0 <= end && wake.is_none_or(|(at, _)| key.0 <= at) => {
                    self.now = self.now.max(key.0);
                    let what = self.queue.remove(&key).unwrap();
                    self.happen(what);
                }
                (_, Some((at, node))) if at <= end => {
                    self.now = self.now.max(at);
                    self.handle(node, Input::Wake);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Deliver { to, from, frame, link } => {
                if self.links.get(&(from.min(to), from.max(to))) == Some(&link) {
                    self.nodes[to].received_bytes += frame.len() as u64;
                    let peer = self.nodes[from].id;
                    self.handle(to, Input::Received { peer, frame });
                }
            }
            What::Written { node, life, id } => {
                let it = &mut self.nodes[node];
                if it.life != life {
                    return;
                }
                // A disk finishes in order: with this batch everything before it is there.
                let Some(at) = it.writing.iter().position(|(known, _)| *known == id) else { return };
                let finished: Vec<_> = it.writing.drain(..=at).collect();
                for (id, writes) in finished {
                    apply(&mut self.nodes[node].disk, writes);
                    self.handle(node, Input::Persisted { id });
                }
            }
            What::Read { node, life, of, keys } => {
                if self.nodes[node].life == life {
                    let disk = &self.nodes[node].disk;
                    let values = Ok(keys.into_iter().map(|key| disk.get(&key).cloned()).collect());
                    let input = match of {
                        Of::Document(doc) => Input::Loaded { doc, values },
                        Of::Entries(id) => Input::Fetched { id, values },
                    };
                    self.handle(node, input);
                }
            }
        }
    }

    pub(crate) fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// Asks and lets time pass until there is an answer.
    pub(crate) fn ask(
        &mut self,
        node: usize,
        input: impl FnOnce(RequestId) -> Input,
    ) -> Result<Outcome, DocError> {
        let request = self.request();
        self.handle(node, input(request));
        for _ in 0..1000 {
            if let Some(outcome) = self.nodes[node].replies.remove(&request) {
                return outcome;
            }
            self.run(Duration::from_millis(10));
        }
        panic!("no answer within 10 s");
    }

    pub(crate) fn create(&mut self, node: usize) -> DocId {
        let edit = put("title", "a document");
        match self.ask(node, |request| Input::Create { request, history: None, edit }) {
            Ok(Outcome::Opened { doc }) => doc,
            other => panic!("{other:?}"),
        }
    }

    /// Lets `guest` join by a ticket of `host`.
    pub(crate) fn invite(&mut self, host: usize, guest: usize, doc: DocId, role: wattle_docs::Role) {
        let invite = |request| Input::Invite { request, doc, role, expires: None, uses: None };
        let Ok(Outcome::Invited { access, bearer }) = self.ask(host, invite) else { panic!("no ticket") };
        let inviter = Some(self.nodes[host].id);
        let join = |request| Input::Join { request, access, bearer: Some(bearer), inviter };
        self.ask(guest, join).unwrap();
    }

    pub(crate) fn put(
        &mut self,
        node: usize,
        doc: DocId,
        key: &str,
        value: &str,
    ) -> Result<Outcome, DocError> {
        let edit = put(key, value);
        self.ask(node, |request| Input::Edit { request, doc, at: None, edit })
    }

    /// Appends to a node's feed.
    pub(crate) fn say(&mut self, node: usize, doc: DocId, text: &str) -> Result<PostId, DocError> {
        let body = text.as_bytes().to_vec();
        match self.ask(node, |request| Input::Append { request, doc, body })? {
            Outcome::Appended { post } => Ok(post),
            other => panic!("{other:?}"),
        }
    }

    /// The newest entries on a node's disk before a place.
    pub(crate) fn page(
        &self,
        node: usize,
        doc: DocId,
        before: Option<PostLink>,
        limit: usize,
    ) -> Vec<Posted> {
        let it = &self.nodes[node];
        let log = it.replica.as_ref().unwrap().feed_log(&doc).unwrap();
        let get = |table, key: &[u8]| Ok(it.disk.get(&(table, key.to_vec())).cloned());
        log.page(&get, before, limit).unwrap()
    }

    /// Everything that was said, in order.
    pub(crate) fn said(&self, node: usize, doc: DocId) -> Vec<String> {
        let page = self.page(node, doc, None, usize::MAX);
        page.iter().map(|it| String::from_utf8(it.post.body.to_vec()).unwrap()).collect()
    }

    pub(crate) fn save(&mut self, node: usize, doc: DocId) -> Result<Vec<u8>, DocError> {
        let read = Box::new(|automerge: &Automerge, _: &Authors<'_>| automerge.save());
        self.ask(node, |request| Input::Read { request, doc, read }).map(|outcome| match outcome {
            Outcome::Read(bytes) => bytes,
            other => panic!("{other:?}"),
        })
    }

    /// Who vouches for each change here, the oldest first.
    pub(crate) fn authors(&mut self, node: usize, doc: DocId) -> Vec<Option<NodeId>> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let read = Box::new(move |automerge: &Automerge, authors: &Authors<'_>| {
            let changes = automerge.get_changes_meta(&[]);
            tell.lock().unwrap().extend(changes.iter().map(|change| authors.of(&change.actor)));
            Vec::new()
        });
        self.ask(node, |request| Input::Read { request, doc, read }).unwrap();
        Arc::into_inner(told).unwrap().into_inner().unwrap()
    }

    pub(crate) fn keys(&mut self, node: usize, doc: DocId) -> BTreeSet<String> {
        let saved = self.save(node, doc).unwrap();
        Automerge::load(&saved).unwrap().keys(automerge::ROOT).collect()
    }

    /// Batches that a node's disk has not finished.
    pub(crate) fn waiting(&self, node: usize) -> usize {
        self.nodes[node].writing.len()
    }

    /// Rows of a table on a node's disk.
    pub(crate) fn rows(&self, node: usize, table: Table) -> usize {
        self.nodes[node].disk.keys().filter(|(of, _)| *of == table).count()
    }

    pub(crate) fn heads(&self, node: usize, doc: DocId) -> Vec<[u8; 32]> {
        let replica = self.nodes[node].replica.as_ref().unwrap();
        replica.status(&doc).map(|status| status.heads).unwrap_or_default()
    }
}

pub(crate) fn put(key: &str, value: &str) -> Edit {
    let (key, value) = (key.to_owned(), value.to_owned());
    Box::new(move |transaction| {
        transaction.put(automerge::ROOT, key, value).map_err(|error| error.to_string())
    })
}

fn written_bytes(write: &Write) -> usize {
    match write {
        Write::Put { key, value, .. } => key.len() + value.len(),
        Write::Remove { key, .. } => key.len(),
        Write::RemoveRange { .. } => 0,
    }
}

fn apply(disk: &mut BTreeMap<(Table, Vec<u8>), Vec<u8>>, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::Put { table, key, value } => drop(disk.insert((table, key), value)),
            Write::Remove { table, key } => drop(disk.remove(&(table, key))),
            Write::RemoveRange { table, range } => {
                disk.retain(|(of, key), _| *of != table || !range.contains(key));
            }
        }
    }
}
