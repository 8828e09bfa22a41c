//! Documents: the machine of `wattle-docs` with its channels, its disk and its clock.
//!
//! One task owns the machine. Callers ask it over a bounded channel; each peer has a task that writes frames
//! and one that reads them, so a slow peer holds up nobody else.

pub(crate) mod clients;
mod links;
mod lookups;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use automerge::Automerge;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wattle_app::{Answer as AppAnswer, Call, CallError, Input as AppInput};
use wattle_docs::{
    Authors, Config, DocError, DocStatus, Edit, Event, Input, Label, Outcome, Output, PersistId, Replica,
    RequestId, Role,
};
use wattle_net::{ChannelKind, Overlay};
use wattle_store::{Failure, Store};
use wattle_types::{
    DocAccess, DocId, DocTag, Machine as _, NodeId, Outbox, PostId, PostLink, Posted, ProviderKey, SecretKey,
    Table, Time, UnixTime, Write,
};

use crate::clock::unix_now;
use links::{Heard, Links};
use lookups::Lookups;

/// Requests that wait for the machine; beyond it callers wait.
const REQUESTS_MAX: usize = 256;
/// Frames and disk answers that wait for the machine; beyond it peers are not read.
const HEARD_MAX: usize = 1024;
/// Events for those who watch; who is slower misses some.
const EVENTS_MAX: usize = 1024;
/// How often peers without a channel are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long a peer that broke the protocol is neither looked for nor listened to.
const SHUN: Duration = Duration::from_secs(30);
/// Peers that are shunned at once; beyond it the one that comes back first does so early.
const SHUNNED_MAX: usize = 1024;
/// Longest lookup of who holds a document.
const SEEK_MAX: Duration = Duration::from_secs(20);
/// Holders of a document that are looked for.
const HOLDERS_MAX: usize = 8;

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
    requests: mpsc::Sender<Request>,
    events: broadcast::Sender<Event>,
    store: Arc<Store>,
    places: Arc<Semaphore>,
    offers: clients::Offers,
}

enum Request {
    Ask(Box<dyn FnOnce(RequestId) -> Input + Send>, oneshot::Sender<Result<Outcome, DocError>>),
    Look(Box<dyn FnOnce(&Replica) + Send>),
    Tell(Input),
    LookFor(DocId, oneshot::Sender<()>),
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
        tasks: &tokio_util::task::TaskTracker,
    ) -> Result<Self, String> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
        let config = Config {
            key: key.clone(),
            network: overlay.network().clone(),
            seed,
            started: unix_now(),
            label: |automerge| Label {
                kind: wattle_app::kind_of(automerge),
                title: wattle_pad::title(automerge).unwrap_or_default(),
            },
        };
        let scan = |table| store.scan(table).map_err(|failure: Failure| failure.to_string());
        let replica =
            Replica::new(config, scan(Table::Docs)?, scan(Table::DocControl)?, scan(Table::DocFeeds)?);
        let replica = replica.map_err(|corrupt| corrupt.to_string())?;
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (heard, hears) = mpsc::channel(HEARD_MAX);
        let events = broadcast::Sender::new(EVENTS_MAX);
        let links = Links::start(overlay, heard.clone(), stop, tasks)?;
        let driver = Driver {
            replica,
            started: Instant::now(),
            overlay: overlay.clone(),
            store: Arc::clone(store),
            links,
            lookups: Lookups::default(),
            heard,
            events: events.clone(),
            apps,
            tell: Vec::new(),
            shunned: BTreeMap::new(),
            waiting: BTreeMap::new(),
            requests_made: 0,
        };
        tasks.spawn(driver.run(asked, hears, stop.clone()));
        let places = Arc::new(Semaphore::new(clients::SOCKETS_MAX));
        let offers = clients::Offers::default();
        Ok(Self { requests, events, store: Arc::clone(store), places, offers })
    }

    async fn ask(
        &self,
        input: impl FnOnce(RequestId) -> Input + Send + 'static,
    ) -> Result<Outcome, DocError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || DocError::Refused("the node is stopping".to_owned());
        self.requests.send(Request::Ask(Box::new(input), reply)).await.map_err(|_closed| stopped())?;
        answer.await.map_err(|_dropped| stopped())?
    }

    async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Replica) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let look = move |replica: &Replica| {
            // Ignored because whoever asked has stopped waiting.
            drop(reply.send(look(replica)));
        };
        self.requests.send(Request::Look(Box::new(look))).await.ok()?;
        answer.await.ok()
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
            Call::Read { doc, read } => {
                let read = self.read(doc, read).await;
                read.map(AppAnswer::Read).map_err(wattle_weave::to_error)
            }
            call => {
                let outcome = self.ask(move |request| wattle_weave::to_docs(request, call)).await;
                wattle_weave::to_answer(outcome)
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
        let log = self.look(move |replica| replica.feed_log(&doc)).await.flatten();
        let log = log.ok_or(DocError::Unknown(doc))?;
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || {
            let get = |table, key: &[u8]| store.get(table, key).map_err(|failure| failure.to_string());
            log.page(&get, before, limit)
        });
        let page = read.await.map_err(|stopped| DocError::Refused(stopped.to_string()))?;
        page.map_err(DocError::Damaged)
    }

    /// Every document here, by id.
    pub async fn list(&self) -> Vec<DocStatus> {
        self.look(Replica::list).await.unwrap_or_default()
    }

    /// One document at a glance.
    pub async fn status(&self, doc: DocId) -> Option<DocStatus> {
        self.look(move |replica| replica.status(&doc)).await.flatten()
    }

    /// Who may do what with a document, by id.
    pub async fn members(&self, doc: DocId) -> Option<Vec<(NodeId, Role)>> {
        self.look(move |replica| replica.members(&doc).map(|members| members.iter().collect()))
            .await
            .flatten()
    }
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

/// What owns the machine.
struct Driver {
    replica: Replica,
    started: Instant,
    overlay: Overlay,
    store: Arc<Store>,
    links: Links,
    lookups: Lookups,
    heard: mpsc::Sender<Heard>,
    events: broadcast::Sender<Event>,
    apps: mpsc::Sender<AppInput>,
    /// What apps are told next. The host waits for nobody, so it is waited for.
    tell: Vec<AppInput>,
    shunned: BTreeMap<NodeId, Instant>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<Outcome, DocError>>>,
    requests_made: u64,
}

impl Driver {
    async fn run(
        mut self,
        mut asked: mpsc::Receiver<Request>,
        mut hears: mpsc::Receiver<Heard>,
        stop: CancellationToken,
    ) {
        for status in self.replica.list() {
            if let Some(access) = self.replica.access(&status.doc) {
                self.announce(access.read.tag());
            }
        }
        self.tell = wattle_weave::at_start(&self.replica);
        self.want(self.replica.wanted_peers());
        let mut again = tokio::time::interval(TRY_AGAIN);
        let mut happens = self.overlay.events();
        loop {
            for input in std::mem::take(&mut self.tell) {
                if self.apps.send(input).await.is_err() {
                    return;
                }
            }
            let wake = self.replica.deadline().map(|at| self.started + Duration::from_micros(at.as_micros()));
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(request) = asked.recv() => self.on_request(request),
                Some(heard) = hears.recv() => self.on_heard(heard),
                () = sleep => self.handle(Input::Wake),
                _ = again.tick() => self.want(self.replica.wanted_peers()),
                event = happens.recv() => match event {
                    Ok(wattle_net::Event::Connected(info)) if self.replica.wanted_peers().contains(&info.peer) => {
                        self.want([info.peer].into());
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                else => return,
            }
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Look(look) => look(&self.replica),
            Request::Tell(input) => self.handle(input),
            Request::LookFor(doc, ended) => self.look_for(doc, ended),
            Request::Ask(input, reply) => {
                self.requests_made += 1;
                let id = RequestId(self.requests_made);
                self.waiting.insert(id, reply);
                self.handle(input(id));
            }
        }
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Opened(link) if self.is_shunned(link.peer()) => self.links.not_opened(link.peer()),
            Heard::Opened(link) => {
                if let Some(peer) = self.links.opened(link) {
                    self.handle(Input::PeerUp { peer });
                }
            }
            Heard::Closed { peer, number } => {
                if self.links.closed(peer, number) {
                    self.handle(Input::PeerDown { peer });
                }
            }
            Heard::Frame { peer, number, frame } => {
                if self.links.is_current(peer, number) {
                    self.handle(Input::Received { peer, frame });
                }
            }
            Heard::NotOpened(peer) => self.links.not_opened(peer),
            Heard::Sought(doc) => self.lookups.ended(doc),
            Heard::Input(input) => self.handle(input),
        }
    }

    fn handle(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.replica.handle(Time::since_start(self.started.elapsed()), input, &mut out);
        for output in out.drain() {
            self.dispatch(output);
        }
    }

    fn dispatch(&mut self, output: Output) {
        match output {
            Output::Send { peer, frame } => self.links.send(peer, frame),
            Output::Persist { id, writes } => self.persist(id, writes),
            Output::Load { doc, keys } => self.load(keys, move |values| Input::Loaded { doc, values }),
            Output::Fetch { id, keys } => self.load(keys, move |values| Input::Fetched { id, values }),
            Output::Seek { doc, tag, members } => {
                let known = !members.is_empty();
                self.want(members.into_iter().collect());
                self.announce(tag);
                self.seek(doc, tag, known);
            }
            Output::Reply { request, outcome } => {
                if let Some(reply) = self.waiting.remove(&request) {
                    // Ignored because whoever asked has stopped waiting.
                    drop(reply.send(outcome));
                }
            }
            Output::Notify(event) => {
                self.tell.extend(wattle_weave::to_apps(&self.replica, &event));
                // Ignored because nobody watches.
                drop(self.events.send(event));
            }
            Output::Misbehaved { peer, why } => {
                tracing::warn!(%peer, why, "a peer broke the protocol of documents");
                self.links.drop_link(peer);
                self.shun(peer);
                self.handle(Input::PeerDown { peer });
                let overlay = self.overlay.clone();
                tokio::spawn(async move {
                    if overlay.disconnect(peer).await.is_err() {
                        tracing::trace!("a node that stops has no peers to send away");
                    }
                });
            }
        }
    }

    fn shun(&mut self, peer: NodeId) {
        let now = Instant::now();
        self.shunned.retain(|_, until| *until > now);
        if self.shunned.len() >= SHUNNED_MAX
            && let Some(first) = self.shunned.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
        {
            self.shunned.remove(&first);
        }
        self.shunned.insert(peer, now + SHUN);
    }

    fn is_shunned(&self, peer: NodeId) -> bool {
        self.shunned.get(&peer).is_some_and(|until| *until > Instant::now())
    }

    fn want(&mut self, mut peers: BTreeSet<NodeId>) {
        peers.retain(|peer| !self.is_shunned(*peer));
        self.links.want(&peers);
    }

    fn persist(&self, id: PersistId, writes: Vec<Write>) {
        let (store, heard) = (Arc::clone(&self.store), self.heard.clone());
        tokio::spawn(async move {
            let input = match store.commit(writes).await {
                Ok(()) => Input::Persisted { id },
                Err(error) => Input::NotPersisted { id, why: error.to_string() },
            };
            // Ignored because a machine that ended has nobody to tell.
            drop(heard.send(Heard::Input(input)).await);
        });
    }

    fn load(
        &self,
        keys: Vec<(Table, Vec<u8>)>,
        answer: impl FnOnce(Result<Vec<Option<Vec<u8>>>, String>) -> Input + Send + 'static,
    ) {
        let (store, heard) = (Arc::clone(&self.store), self.heard.clone());
        tokio::task::spawn_blocking(move || {
            let read = keys.iter().map(|(table, key)| store.get(*table, key)).collect::<Result<Vec<_>, _>>();
            let values = read.map_err(|failure| failure.to_string());
            // Ignored because a machine that ended has nobody to tell.
            drop(heard.blocking_send(Heard::Input(answer(values))));
        });
    }

    /// Says in the DHT that this node holds what has this tag.
    fn announce(&self, tag: DocTag) {
        let overlay = self.overlay.clone();
        let key = ProviderKey::of_document(overlay.network(), &tag);
        tokio::spawn(async move {
            if let Err(error) = overlay.provide(key, SEEK_MAX).await {
                tracing::debug!(%error, "a document was not announced yet");
            }
        });
    }
}

/// The kind of channel that documents use.
const KIND: ChannelKind = ChannelKind::Documents;
