//! Documents: the machines of `wattle-docs` with their channels, their disk and their clock.
//!
//! A document is at home in one of [`SHARDS`] machines, by its id. Each has a task, an inbox and its own requests to
//! the disk (`shard`), so one that reads ten megabytes holds up no document of another. What there is once for a node
//! is in `switch`: channels, lookups, who is shunned. Who is asked about all documents asks every machine, and tells
//! what was last known of those that are busy.

mod announcements;
mod budget;
pub(crate) mod clients;
mod links;
mod lookups;
mod shard;
mod switch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use automerge::Automerge;
use futures::future::join_all;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_app::{Answer as AppAnswer, Call, CallError, Input as AppInput};
use wattle_docs::{
    Authors, Config, DocError, DocStatus, Edit, Event, Input, Label, Outcome, Replica, RequestId, Role,
    Shard, Show, Steps,
};
use wattle_net::{ChannelKind, Overlay};
use wattle_store::{Failure, Store};
use wattle_types::{
    DocAccess, DocId, Liveness, NodeId, PostId, PostLink, Posted, SecretKey, Table, UnixTime,
};

use crate::clock::unix_now;
use crate::driver::drive;
use announcements::Announcements;
use budget::Budget;
use links::Links;
use lookups::Lookups;
use shard::{Around, Inboxes, Index, Item, ShardLane};
use switch::{Heard, Switch};

/// Machines that share the documents: of two documents one holds up the other in one case of so many. Each takes some
/// kilobytes.
pub const SHARDS: u16 = 64;
/// What waits for one machine: requests, frames and answers of the disk. Beyond it callers wait, and peers are not
/// read.
const INBOX_MAX: usize = 1024;
/// Documents and pages of feeds that are read from the disk at once.
const READS_AT_ONCE: usize = 4;
/// What waits for the switch; beyond it machines and channels wait.
const HEARD_MAX: usize = 1024;
/// Events for those who watch; who is slower misses some.
const EVENTS_MAX: usize = 1024;
/// Longest lookup of who holds a document.
const SEEK_MAX: Duration = Duration::from_secs(20);
/// Holders of a document that are looked for.
const HOLDERS_MAX: usize = 8;
/// Operations from which on it is kept what a document shows at first: what takes a fifth of a second to read.
const SHOWN_FROM: u64 = 128 * 1024;

/// How long who is asked about all documents waits for a machine that is busy.
const LIST_WAITS: Duration = Duration::from_millis(100);

/// An edit that is on disk: the heads before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// Before.
    pub before: Vec<[u8; 32]>,
    /// After. Equal to those before when nothing changed.
    pub after: Vec<[u8; 32]>,
}

/// The documents of a running node.
#[derive(Clone)]
pub struct Documents {
    inboxes: Inboxes,
    index: Index,
    switch: mpsc::Sender<Heard>,
    requests: Arc<AtomicU64>,
    events: broadcast::Sender<Event>,
    store: Arc<Store>,
    places: Arc<Semaphore>,
    offers: clients::Offers,
}

impl Documents {
    /// Starts the documents that are on disk.
    ///
    /// # Errors
    /// Why the disk or the index cannot be read, in words.
    pub fn start(
        overlay: &Overlay,
        store: &Arc<Store>,
        key: &SecretKey,
        stop: &CancellationToken,
        apps: mpsc::Sender<AppInput>,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let (config, started) = (config(overlay, key)?, Instant::now());
        let scan = |table| store.scan(table).map_err(|failure: Failure| failure.to_string());
        let (docs, operations, feeds) =
            (scan(Table::Docs)?, scan(Table::DocControl)?, scan(Table::DocFeeds)?);
        let split = wattle_weave::split(&config, SHARDS, docs, operations, feeds);
        let (shards, replicas) = split.map_err(|corrupt| corrupt.to_string())?;
        let (inboxes, waits): (Vec<_>, Vec<_>) = replicas.iter().map(|_| mpsc::channel(INBOX_MAX)).unzip();
        let own = inboxes.clone();
        let inboxes = Inboxes::new(shards.clone(), inboxes);
        let (heard, hears) = mpsc::channel(HEARD_MAX);
        let events = broadcast::Sender::new(EVENTS_MAX);
        let (index, budget) = (Index::default(), Budget::new(SHARDS));
        let reads = Arc::new(Semaphore::new(READS_AT_ONCE));
        let mut switch = Switch {
            overlay: overlay.clone(),
            inboxes: inboxes.clone(),
            links: Links::start(overlay, heard.clone(), stop, tasks)?,
            lookups: Lookups::default(),
            announcements: Announcements::default(),
            heard: heard.clone(),
            shunned: BTreeMap::new(),
            away: BTreeSet::new(),
            wanted: BTreeMap::new(),
            shed: None,
        };
        for (((shard, replica), inbox), mut waits) in shards.each().zip(replicas).zip(own).zip(waits) {
            replica.list().into_iter().for_each(|status| index.put(status));
            replica.accesses().for_each(|access| switch.announcements.add(access.read.tag()));
            let wanted = replica.wanted_peers();
            switch.wanted.insert(shard.index(), wanted.clone());
            let around = Around {
                shard,
                inbox,
                inboxes: inboxes.clone(),
                index: index.clone(),
                budget: budget.clone(),
                switch: heard.clone(),
                store: Arc::clone(store),
                reads: Arc::clone(&reads),
                events: events.clone(),
                apps: apps.clone(),
            };
            let lane = ShardLane::new(around, wanted);
            let told = tell(wattle_weave::at_start(&replica), apps.clone());
            let inbox = futures::stream::poll_fn(move |cx| waits.poll_recv(cx));
            let driven = drive(lane, replica, inbox, started, stop.clone());
            tasks.spawn(async move {
                told.await;
                driven.await;
            });
        }
        tasks.spawn(switch.announcements.clone().run(overlay.clone(), stop.clone()));
        tasks.spawn(switch.run(hears, stop.clone()));
        Ok(Self {
            inboxes,
            index,
            switch: heard,
            requests: Arc::default(),
            events,
            store: Arc::clone(store),
            places: Arc::new(Semaphore::new(clients::SOCKETS_MAX)),
            offers: clients::Offers::default(),
        })
    }

    async fn ask(
        &self,
        input: impl FnOnce(RequestId) -> Input + Send + 'static,
    ) -> Result<Outcome, DocError> {
        let request = self.next_request();
        self.request(request, input(request)).await
    }

    fn next_request(&self) -> RequestId {
        RequestId(self.requests.fetch_add(1, Ordering::Relaxed))
    }

    async fn request(&self, request: RequestId, input: Input) -> Result<Outcome, DocError> {
        let stopped = || DocError::Refused("the node is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        let inbox = self.inboxes.of(&input).ok_or_else(stopped)?;
        inbox.send(Item::Ask(request, input, reply)).await.map_err(|_closed| stopped())?;
        answer.await.map_err(|_dropped| stopped())?
    }

    async fn look<T: Send + 'static>(
        &self,
        doc: DocId,
        look: impl FnOnce(&Replica) -> T + Send + 'static,
    ) -> Option<T> {
        look_into(self.inboxes.home(&doc)?, look).await
    }

    /// Says how far a node is there: who is not is not tried, who is back is tried at once.
    pub async fn liveness(&self, peer: NodeId, liveness: Liveness) {
        // Ignored because a switch that ended has no channels.
        drop(self.switch.send(Heard::Liveness(peer, liveness)).await);
    }

    /// What happens to documents from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Makes a document; it is on disk when this returns.
    ///
    /// # Errors
    /// [`DocError::Refused`] by the edit, [`DocError::NotSaved`].
    pub async fn create(&self, edit: Edit) -> Result<DocId, DocError> {
        opened(self.ask(move |request| Input::Create { request, history: None, edit }).await?)
    }

    /// Makes a document that begins with more than one change takes; all of it is on disk when this returns.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_in_steps(&self, steps: Steps) -> Result<DocId, DocError> {
        opened(self.ask(move |request| Input::CreateInSteps { request, steps }).await?)
    }

    /// Makes a document that begins with the history of another; it is on disk when this returns. The bytes
    /// of that one went through [`wattle_docs::chunk::inspect`].
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn import(&self, history: Automerge, edit: Edit) -> Result<DocId, DocError> {
        let history = Some(Box::new(history));
        opened(self.ask(move |request| Input::Create { request, history, edit }).await?)
    }

    /// Takes up a document that a ticket leads to. It arrives later.
    ///
    /// # Errors
    /// [`DocError::NotSaved`].
    pub async fn join(
        &self,
        access: DocAccess,
        bearer: Option<[u8; 16]>,
        inviter: Option<NodeId>,
    ) -> Result<DocId, DocError> {
        opened(self.ask(move |request| Input::Join { request, access, bearer, inviter }).await?)
    }

    /// Changes a document, on its current state or on the state at some heads; it is on disk when this
    /// returns.
    ///
    /// # Errors
    /// Any [`DocError`].
    pub async fn edit(&self, doc: DocId, at: Option<Vec<[u8; 32]>>, edit: Edit) -> Result<Edited, DocError> {
        match self.ask(move |request| Input::Edit { request, doc, at, edit }).await? {
            Outcome::Edited { before, after } => Ok(Edited { before, after }),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`DocError::Unknown`], [`DocError::NotHere`], [`DocError::Busy`], [`DocError::Damaged`].
    pub async fn read<T: Send + 'static>(
        &self,
        doc: DocId,
        read: impl FnOnce(&Automerge) -> T + Send + 'static,
    ) -> Result<T, DocError> {
        self.read_authors(doc, |automerge, _authors| read(automerge)).await
    }

    /// Reads a document with who vouches for the changes of each of its actors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_authors<T: Send + 'static>(
        &self,
        doc: DocId,
        read: impl FnOnce(&Automerge, &Authors<'_>) -> T + Send + 'static,
    ) -> Result<T, DocError> {
        let (reply, answer) = oneshot::channel();
        let read = Box::new(move |automerge: &Automerge, authors: &Authors<'_>| {
            // Ignored because whoever asked has stopped waiting.
            drop(reply.send(read(automerge, authors)));
            Vec::new()
        });
        self.ask(move |request| Input::Read { request, doc, read }).await?;
        answer.await.map_err(|_dropped| DocError::Refused("the node is stopping".to_owned()))
    }

    /// What a document shows at first, as [`wattle_pad::shown`] has it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn show(&self, doc: DocId) -> Result<Vec<u8>, DocError> {
        match self.ask(move |request| Input::Show { request, doc }).await? {
            Outcome::Read(shown) => Ok(shown),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether that is kept in the document's newest version, so that it is shown without being read.
    pub async fn is_shown(&self, doc: DocId) -> bool {
        self.look(doc, move |replica| replica.is_shown(&doc)).await.unwrap_or_default()
    }

    /// Makes the content of a ticket.
    ///
    /// # Errors
    /// [`DocError::NotAllowed`], [`DocError::Unknown`], [`DocError::NotSaved`].
    pub async fn invite(
        &self,
        doc: DocId,
        role: Role,
        expires: Option<UnixTime>,
        uses: Option<u32>,
    ) -> Result<(DocAccess, [u8; 16]), DocError> {
        match self.ask(move |request| Input::Invite { request, doc, role, expires, uses }).await? {
            Outcome::Invited { access, bearer } => Ok((access, bearer)),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives a node a role.
    ///
    /// # Errors
    /// As [`Self::invite`].
    pub async fn grant(&self, doc: DocId, to: NodeId, role: Role) -> Result<(), DocError> {
        self.ask(move |request| Input::Grant { request, doc, to, role }).await.map(drop)
    }

    /// Takes every role from a node.
    ///
    /// # Errors
    /// As [`Self::invite`].
    pub async fn remove(&self, doc: DocId, who: NodeId) -> Result<(), DocError> {
        self.ask(move |request| Input::Remove { request, doc, who }).await.map(drop)
    }

    /// Forgets a document here; others keep theirs.
    ///
    /// # Errors
    /// [`DocError::Unknown`], [`DocError::NotSaved`].
    pub async fn forget(&self, doc: DocId) -> Result<(), DocError> {
        self.ask(move |request| Input::Forget { request, doc }).await.map(drop)
    }

    /// Does what an app calls for.
    ///
    /// # Errors
    /// What came of it instead, in the app's words.
    pub async fn call(&self, call: Call) -> Result<AppAnswer, CallError> {
        match call {
            Call::Page { doc, before, limit } => {
                let page = self.posts(doc, before, limit).await;
                page.map(AppAnswer::Page).map_err(wattle_weave::to_error)
            }
            call => {
                let request = self.next_request();
                // To read a file may take long.
                let input = match call {
                    call @ Call::Import { .. } => {
                        let read = tokio::task::spawn_blocking(move || wattle_weave::to_docs(request, call));
                        read.await.map_err(|stopped| CallError::Refused(stopped.to_string()))?
                    }
                    call => wattle_weave::to_docs(request, call),
                };
                wattle_weave::to_answer(self.request(request, input?).await)
            }
        }
    }

    /// Appends to this node's feed of a document; it is on disk when this returns.
    ///
    /// # Errors
    /// [`DocError::NotAllowed`], [`DocError::Refused`] when it is too long, [`DocError::Unknown`],
    /// [`DocError::NotHere`], [`DocError::Busy`], [`DocError::NotSaved`].
    pub async fn append(&self, doc: DocId, body: Vec<u8>) -> Result<PostId, DocError> {
        match self.ask(move |request| Input::Append { request, doc, body }).await? {
            Outcome::Appended { post } => Ok(post),
            other => Err(unexpected(&other)),
        }
    }

    /// The newest entries of a document's feeds before one, in order.
    ///
    /// # Errors
    /// [`DocError::Unknown`], [`DocError::Damaged`].
    pub async fn posts(
        &self,
        doc: DocId,
        before: Option<PostLink>,
        limit: usize,
    ) -> Result<Vec<Posted>, DocError> {
        let log = self.look(doc, move |replica| replica.feed_log(&doc)).await.flatten();
        let log = log.ok_or(DocError::Unknown(doc))?;
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || {
            let get = |table, key: &[u8]| store.get(table, key).map_err(|failure| failure.to_string());
            log.page(&get, before, limit)
        });
        let page = read.await.map_err(|stopped| DocError::Refused(stopped.to_string()))?;
        page.map_err(DocError::Damaged)
    }

    /// Every document here, by id. Those whose machine is busy are told as they were last known.
    pub async fn list(&self) -> Vec<DocStatus> {
        let each = self.inboxes.each().zip(Shard::each(SHARDS)).map(async |(inbox, shard)| {
            let fresh = tokio::time::timeout(LIST_WAITS, look_into(inbox, Replica::list)).await;
            match fresh {
                Ok(list) => list.unwrap_or_default(),
                Err(_elapsed) => self.index.all(|doc| shard.holds(doc)),
            }
        });
        let mut list: Vec<DocStatus> = join_all(each).await.into_iter().flatten().collect();
        list.sort_by_key(|status| status.doc);
        list
    }

    /// The documents that are called so.
    #[must_use]
    pub fn called(&self, title: &str) -> Vec<DocId> {
        self.index.called(title)
    }

    /// One document at a glance.
    pub async fn status(&self, doc: DocId) -> Option<DocStatus> {
        self.look(doc, move |replica| replica.status(&doc)).await.flatten()
    }

    /// Who may do what with a document, by id.
    pub async fn members(&self, doc: DocId) -> Option<Vec<(NodeId, Role)>> {
        let members = move |replica: &Replica| replica.members(&doc).map(|members| members.iter().collect());
        self.look(doc, members).await.flatten()
    }
}

fn config(overlay: &Overlay, key: &SecretKey) -> Result<Config, String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
    Ok(Config {
        key: key.clone(),
        network: overlay.network().clone(),
        seed,
        started: unix_now(),
        label: |automerge| Label {
            kind: wattle_app::kind_of(automerge),
            title: wattle_pad::title(automerge).unwrap_or_default(),
        },
        show: Show { from: SHOWN_FROM, form: wattle_pad::SHOWN_FORM, bytes: wattle_pad::shown },
    })
}

async fn tell(inputs: Vec<AppInput>, apps: mpsc::Sender<AppInput>) {
    for input in inputs {
        // Ignored because apps that ended have nobody to tell.
        drop(apps.send(input).await);
    }
}

async fn look_into<T: Send + 'static>(
    inbox: &mpsc::Sender<Item>,
    look: impl FnOnce(&Replica) -> T + Send + 'static,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let look = move |replica: &Replica| {
        // Ignored because whoever asked has stopped waiting.
        drop(reply.send(look(replica)));
    };
    inbox.send(Item::Look(Box::new(look))).await.ok()?;
    answer.await.ok()
}

fn opened(outcome: Outcome) -> Result<DocId, DocError> {
    match outcome {
        Outcome::Opened { doc } => Ok(doc),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(outcome: &Outcome) -> DocError {
    DocError::Refused(format!("an answer of another kind: {outcome:?}"))
}

/// The kind of channel that documents use.
const KIND: ChannelKind = ChannelKind::Documents;
