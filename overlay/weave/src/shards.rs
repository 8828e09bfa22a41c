//! A node's documents over several machines: which one hears of what.
//!
//! # The walk of an input
//!
//! 1. What names a document is for the machine that the document's id is at home in ([`Shard::of`]).
//! 2. A new document is made by the machine that its request's number falls to, under an id that is at home there.
//! 3. A frame of a peer names a tag, not an id. [`Shards::learn`] remembers the tag of every document from the
//!    outputs that tell of it, before anything under that tag leaves. A tag that means nothing here is always for
//!    the same machine, so a peer is answered alike whether it asks once or twice.
//! 4. What a channel does concerns all: a peer has sessions in each machine that has a document with it.
//! 5. What came of a write or a read goes back to the machine that asked: [`Documents`] numbers them so; a driver
//!    with a task for each machine has no need to.
//!
//! A document's frames to and from one peer pass one machine, in order; of two documents nothing is promised.
//! Nothing here belongs to a node as a whole but the tags: sessions, transfers, timers and quotas of a document are in
//! its machine.

use std::collections::BTreeMap;

use wattle_app::Input as AppInput;
use wattle_docs::{
    Config, Corrupt, DocStatus, Event, FeedLog, FetchId, Input, Members, Output, PersistId, Replica, Shard,
};
use wattle_types::{DocAccess, DocId, DocTag, Machine, Outbox, Time, keyed};

/// Which machines hear of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// One of them.
    One(Shard),
    /// Each.
    All,
    /// Whoever asked the disk.
    Asker,
}

/// What is known of all of a node's documents: which tag is whose.
#[derive(Clone, Debug)]
pub struct Shards {
    count: u16,
    tags: BTreeMap<DocTag, DocId>,
}

impl Shards {
    /// So many machines without documents, at least one.
    #[must_use]
    pub fn new(count: u16) -> Self {
        Self { count: count.max(1), tags: BTreeMap::new() }
    }

    /// Each machine.
    pub fn each(&self) -> impl Iterator<Item = Shard> {
        Shard::each(self.count)
    }

    /// Where a document is at home.
    #[must_use]
    pub fn home(&self, doc: &DocId) -> Shard {
        Shard::of(doc, self.count)
    }

    /// Who hears of an input.
    #[must_use]
    pub fn route(&self, input: &Input) -> Route {
        let doc = match input {
            // An id that no document has: only where it is at home matters.
            Input::Create { request, .. } | Input::CreateInSteps { request, .. } => {
                let turn = (request.0 % u64::from(self.count)).to_be_bytes();
                let [.., one, other] = turn;
                return Route::One(self.at(u16::from_be_bytes([one, other])));
            }
            Input::Join { access, .. } => &access.id,
            Input::Edit { doc, .. }
            | Input::EditInSteps { doc, .. }
            | Input::Read { doc, .. }
            | Input::Show { doc, .. }
            | Input::Invite { doc, .. }
            | Input::Grant { doc, .. }
            | Input::Remove { doc, .. }
            | Input::Forget { doc, .. }
            | Input::Sync { doc, .. }
            | Input::Ephemeral { doc, .. }
            | Input::Found { doc, .. }
            | Input::Append { doc, .. }
            | Input::Signal { doc, .. } => doc,
            Input::Received { frame, .. } => return Route::One(self.home_of_frame(frame)),
            // They were routed before they came together.
            Input::ReceivedTogether { frames } => {
                let first = frames.first().map(|(_, frame)| frame.as_slice());
                return Route::One(self.home_of_frame(first.unwrap_or_default()));
            }
            Input::PeerUp { .. } | Input::PeerDown { .. } | Input::Shed | Input::Clock(_) | Input::Wake => {
                return Route::All;
            }
            Input::Persisted { .. }
            | Input::NotPersisted { .. }
            | Input::Loaded { .. }
            | Input::Fetched { .. } => return Route::Asker,
        };
        Route::One(self.home(doc))
    }

    fn at(&self, index: u16) -> Shard {
        self.each().nth(usize::from(index)).unwrap_or(Shard::WHOLE)
    }

    fn home_of_frame(&self, frame: &[u8]) -> Shard {
        // A frame that is too short for a tag is refused by any.
        let tag = frame.first_chunk::<16>().copied().unwrap_or_default();
        match self.tags.get(&DocTag::from_bytes(tag)) {
            Some(doc) => self.home(doc),
            // A tag is as random as an id.
            None => self.home(&DocId::from_bytes(tag)),
        }
    }

    /// Remembers what an output tells of documents. To be called before what comes behind it is sent.
    pub fn learn(&mut self, output: &Output) {
        match output {
            Output::Seek { doc, tag, .. } | Output::Held { doc, tag } => self.add(*tag, *doc),
            Output::Dropped { tag, .. } => drop(self.tags.remove(tag)),
            _ => {}
        }
    }

    /// Remembers the tag of a document that was here at the start.
    pub fn add(&mut self, tag: DocTag, doc: DocId) {
        self.tags.insert(tag, doc);
    }
}

/// What a machine hears next because of what it said: who broke the protocol is gone for it at once, whatever still
/// waits of it.
#[must_use]
pub fn follows(output: &Output) -> Option<Input> {
    match output {
        Output::Misbehaved { peer, .. } => Some(Input::PeerDown { peer: *peer }),
        _ => None,
    }
}

/// Rows of one table: keys and values.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// The machines over what is stored, in the order of [`Shards::each`], and what is known of all of them.
///
/// # Errors
/// [`Corrupt`], naming the entry that cannot be read.
pub fn split(
    config: &Config,
    count: u16,
    docs: Rows,
    operations: Rows,
    feeds: Rows,
) -> Result<(Shards, Vec<Replica>), Corrupt> {
    let mut shards = Shards::new(count);
    let [mut docs, mut operations, mut feeds] = [docs, operations, feeds].map(|rows| sorted(&shards, rows));
    let mut replicas = Vec::new();
    for shard in Shard::each(count) {
        // What one machine draws, no other draws.
        let seed = keyed(&config.seed, &[b"shard", &shard.index().to_be_bytes()]);
        let config = Config { seed, ..config.clone() };
        let [docs, operations, feeds] = [&mut docs, &mut operations, &mut feeds]
            .map(|rows| rows.remove(&shard.index()).unwrap_or_default());
        let replica = Replica::new(config, docs, operations, feeds)?.of_shard(shard);
        for access in replica.accesses() {
            shards.add(access.read.tag(), access.id);
        }
        replicas.push(replica);
    }
    Ok((shards, replicas))
}

/// Every table's keys begin with the id of their document.
fn sorted(shards: &Shards, rows: Rows) -> BTreeMap<u16, Rows> {
    let mut sorted: BTreeMap<u16, Rows> = BTreeMap::new();
    for (key, value) in rows {
        let doc = DocId::from_bytes(key.first_chunk::<16>().copied().unwrap_or_default());
        sorted.entry(shards.home(&doc).index()).or_default().push((key, value));
    }
    sorted
}

/// All documents of a node as one machine: several machines and the routes between them, for who drives a whole
/// node at once.
pub struct Documents {
    shards: Shards,
    replicas: Vec<Replica>,
}

impl Documents {
    /// The machines of [`split`].
    ///
    /// # Errors
    /// [`Corrupt`], as there.
    pub fn new(
        config: &Config,
        count: u16,
        docs: Rows,
        operations: Rows,
        feeds: Rows,
    ) -> Result<Self, Corrupt> {
        let (shards, replicas) = split(config, count, docs, operations, feeds)?;
        Ok(Self { shards, replicas })
    }

    /// The machine that a document is at home in.
    #[must_use]
    pub fn home(&self, doc: &DocId) -> Option<&Replica> {
        self.replicas.get(usize::from(self.shards.home(doc).index()))
    }

    /// What apps hear at the start: every document that is here.
    #[must_use]
    pub fn at_start(&self) -> Vec<AppInput> {
        self.replicas.iter().flat_map(crate::at_start).collect()
    }

    /// What happened to a document, for the apps of its kind.
    #[must_use]
    pub fn to_apps(&self, event: &Event) -> Vec<AppInput> {
        let home = self.home(crate::doc_of(event));
        home.map(|replica| crate::to_apps(replica, event)).unwrap_or_default()
    }

    /// Who may do what with a document.
    #[must_use]
    pub fn members(&self, doc: &DocId) -> Option<&Members> {
        self.home(doc)?.members(doc)
    }

    /// What is on disk of a document's feeds.
    #[must_use]
    pub fn feed_log(&self, doc: &DocId) -> Option<FeedLog> {
        self.home(doc)?.feed_log(doc)
    }

    /// What leads to a document.
    #[must_use]
    pub fn access(&self, doc: &DocId) -> Option<&DocAccess> {
        self.home(doc)?.access(doc)
    }

    /// Every document, by id.
    #[must_use]
    pub fn list(&self) -> Vec<DocStatus> {
        let mut all: Vec<DocStatus> = self.replicas.iter().flat_map(Replica::list).collect();
        all.sort_by_key(|status| status.doc);
        all
    }

    fn run(&mut self, now: Time, index: usize, input: Input, out: &mut Outbox<Output>) {
        let Some(replica) = self.replicas.get_mut(index) else { return };
        let mut mine = Outbox::new();
        replica.handle(now, input, &mut mine);
        let mut next = Vec::new();
        for output in mine.drain() {
            self.shards.learn(&output);
            next.extend(follows(&output));
            out.push(self.numbered(index, output));
        }
        for input in next {
            self.run(now, index, input, out);
        }
    }

    /// A number that says which machine gave it.
    fn numbered(&self, index: usize, output: Output) -> Output {
        let number = |id: u64| id.saturating_mul(u64::from(self.shards.count)).saturating_add(index as u64);
        match output {
            Output::Persist { id, writes } => Output::Persist { id: PersistId(number(id.0)), writes },
            Output::Fetch { id, keys } => Output::Fetch { id: FetchId(number(id.0)), keys },
            other => other,
        }
    }

    /// Who asked the disk, and under which number.
    fn asker(&self, input: Input) -> (usize, Input) {
        let count = u64::from(self.shards.count);
        let split = |id: u64| ((id % count) as usize, id / count);
        match input {
            Input::Persisted { id } => {
                let (index, id) = split(id.0);
                (index, Input::Persisted { id: PersistId(id) })
            }
            Input::NotPersisted { id, why } => {
                let (index, id) = split(id.0);
                (index, Input::NotPersisted { id: PersistId(id), why })
            }
            Input::Fetched { id, values } => {
                let (index, id) = split(id.0);
                (index, Input::Fetched { id: FetchId(id), values })
            }
            Input::Loaded { doc, values } => {
                (usize::from(self.shards.home(&doc).index()), Input::Loaded { doc, values })
            }
            other => (0, other),
        }
    }
}

impl Machine for Documents {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        match self.shards.route(&input) {
            Route::One(shard) => self.run(now, usize::from(shard.index()), input, out),
            Route::Asker => {
                let (index, input) = self.asker(input);
                self.run(now, index, input, out);
            }
            Route::All => {
                for index in 0..self.replicas.len() {
                    let input = match &input {
                        Input::PeerUp { peer } => Input::PeerUp { peer: *peer },
                        Input::PeerDown { peer } => Input::PeerDown { peer: *peer },
                        Input::Shed => Input::Shed,
                        _ => Input::Wake,
                    };
                    self.run(now, index, input, out);
                }
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.replicas.iter().filter_map(Machine::deadline).min()
    }
}

#[cfg(test)]
mod tests;
