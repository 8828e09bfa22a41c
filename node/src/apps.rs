//! The apps: the host of `wattle-app` with its clock, and its calls carried to the documents.
//!
//! One task owns the host. A call runs in a task of its own, so no app waits for another's disk; callers ask
//! over a bounded channel. What an app proposes is handed in for the ordered log in a task of its own too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wattle_app::{
    App, AppId, CallError, CallId, Config, Corrupt, Executed, Host, Input, NotNext, OrderedBlock, Output,
    Quota, Reject, RejectCode, RequestId,
};
use wattle_order::payloads::NotTaken;
use wattle_order::{Entry, Whole};
use wattle_types::{NodeId, Time, UnixTime, cbor};

use crate::clock::unix_now;
use crate::documents::Documents;
use crate::driver::{Lane, Turn, drive};
use crate::order::{Fate, Order, SubmitError};

/// Requests and answers that wait for the host; beyond it callers and calls wait.
const INPUTS_MAX: usize = 1024;
/// What pad may do: two files of the largest size at once.
const FILES: Quota = Quota { bytes_per_second: 24 << 20 };
/// Events for those who watch; who is slower misses some.
const EVENTS_MAX: usize = 1024;
/// Bytes of an answer of an app.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long what an app proposes may be ordered.
const LIFE: Duration = Duration::from_secs(60);
/// Entries of a block that are applied without a thread of their own.
const FEW_ENTRIES: usize = 256;

/// What an app told those who watch.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which app.
    pub app: AppId,
    /// In its own form.
    pub event: Vec<u8>,
}

type Restored = Result<[u8; 32], Corrupt>;

enum Heard {
    Ask { app: AppId, body: Vec<u8>, reply: oneshot::Sender<Result<Vec<u8>, Reject>> },
    Order { block: OrderedBlock, reply: oneshot::Sender<Result<Executed, NotNext>> },
    Restore { state: Vec<u8>, reply: oneshot::Sender<Restored> },
    Look(Box<dyn FnOnce(&Host) + Send>),
    Input(Input),
}

/// The apps of this binary, and what each may do.
#[must_use]
pub fn shipped() -> Vec<(Box<dyn App>, Quota)> {
    vec![
        (Box::new(wattle_chat::Chat::new()), Quota::default()),
        (Box::<wattle_pad::Pad>::default(), FILES),
        (Box::new(wattle_register::Register::new()), Quota::default()),
    ]
}

/// The apps of a running node.
#[derive(Clone)]
pub struct Apps {
    heard: mpsc::Sender<Heard>,
    events: broadcast::Sender<Told>,
    in_log: Arc<[&'static str]>,
    unapplied: Arc<[u8]>,
}

/// Where what apps propose is handed in. Apart from [`Apps`], which the log has: neither may keep the other alive.
pub struct Proposals(Arc<OnceLock<Order>>);

impl Proposals {
    /// From now on it is handed in there.
    pub fn go_to(self, order: &Order) {
        // Ignored because a node has one ordered log, and says so once.
        drop(self.0.set(order.clone()));
    }
}

impl Apps {
    /// Starts apps, those that are [`shipped`] or others.
    ///
    /// # Errors
    /// Why there is no randomness, in words.
    pub fn start(
        apps: Vec<(Box<dyn App>, Quota)>,
        me: NodeId,
        documents: &Documents,
        mut happens: mpsc::Receiver<Input>,
        stop: &CancellationToken,
        tasks: &tokio_util::task::TaskTracker,
    ) -> Result<(Self, Proposals), String> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
        let config = Config { me, seed, started: unix_now(), quota: Quota::default() };
        let mut host = Host::new(config, Vec::new());
        for (app, quota) in apps {
            host.register(app, quota);
        }
        let (heard, mut hears) = mpsc::channel(INPUTS_MAX);
        let events = broadcast::Sender::new(EVENTS_MAX);
        let order = Arc::<OnceLock<Order>>::default();
        let in_log = host.apps_in_log().collect();
        let unapplied = host.snapshot().into();
        let lane = HostLane {
            documents: documents.clone(),
            order: Arc::clone(&order),
            heard: heard.clone(),
            events: events.clone(),
            waiting: BTreeMap::new(),
            ordering: VecDeque::new(),
            restoring: VecDeque::new(),
            requests_made: 0,
        };
        let happened = stream::poll_fn(move |cx| happens.poll_recv(cx).map(|it| it.map(Heard::Input)));
        let inbox = stream::select(happened, stream::poll_fn(move |cx| hears.poll_recv(cx)));
        tasks.spawn(drive(lane, host, inbox, Instant::now(), stop.clone()));
        Ok((Self { heard, events, in_log, unapplied }, Proposals(order)))
    }

    /// The apps that have a state in the ordered log.
    #[must_use]
    pub fn in_log(&self) -> Arc<[&'static str]> {
        Arc::clone(&self.in_log)
    }

    /// Has the apps apply a block of the log; the root behind it, or nothing when the node stops.
    pub async fn order(&self, block: OrderedBlock) -> Option<[u8; 32]> {
        let (reply, answer) = oneshot::channel();
        self.heard.send(Heard::Order { block, reply }).await.ok()?;
        match answer.await.ok()? {
            Ok(executed) => Some(executed.root),
            Err(NotNext { got, applied }) => {
                tracing::error!(got = got.0, applied = applied.0, "the apps are ahead of the log");
                None
            }
        }
    }

    /// The state of the apps before any block, to begin with again.
    #[must_use]
    pub fn unapplied(&self) -> Vec<u8> {
        self.unapplied.to_vec()
    }

    /// The root of what apps made of the log so far.
    pub async fn log_root(&self) -> Option<[u8; 32]> {
        self.look(|host| host.state().1).await
    }

    /// What the apps made of the log so far.
    pub async fn log_snapshot(&self) -> Option<Vec<u8>> {
        self.look(Host::snapshot).await
    }

    /// Whether an entry for an app is worth ordering; what is for no app here is.
    ///
    /// # Errors
    /// Why the app would not apply it.
    pub async fn check(&self, app: &str, data: &[u8]) -> Result<(), Reject> {
        let Some(app) = self.in_log.iter().find(|known| **known == app).copied() else { return Ok(()) };
        let data = data.to_vec();
        self.look(move |host| host.check(app, &data)).await.unwrap_or(Ok(()))
    }

    /// Has the apps go on from a state; the root behind it, or nothing when the node stops.
    pub async fn restore(&self, state: Vec<u8>) -> Option<Restored> {
        let (reply, answer) = oneshot::channel();
        self.heard.send(Heard::Restore { state, reply }).await.ok()?;
        answer.await.ok()
    }

    async fn look<T: Send + 'static>(&self, what: impl FnOnce(&Host) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let look = move |host: &Host| {
            // Ignored because whoever asked has stopped waiting.
            drop(reply.send(what(host)));
        };
        self.heard.send(Heard::Look(Box::new(look))).await.ok()?;
        answer.await.ok()
    }

    /// Tells the apps that something happened.
    pub async fn hear(&self, input: Input) {
        // Ignored because apps that ended have nobody to tell.
        drop(self.heard.send(Heard::Input(input)).await);
    }

    /// What apps tell from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Told> {
        self.events.subscribe()
    }

    /// Asks an app.
    ///
    /// # Errors
    /// The app's refusal, or that the node is stopping.
    pub async fn ask<Q: Serialize + Sync, A: Serialize + DeserializeOwned>(
        &self,
        app: AppId,
        question: &Q,
    ) -> Result<A, Reject> {
        let stopping = || Reject::new(RejectCode::Failed, "the node is stopping");
        let (reply, answer) = oneshot::channel();
        let ask = Heard::Ask { app, body: cbor::encode(question), reply };
        self.heard.send(ask).await.map_err(|_closed| stopping())?;
        let bytes = answer.await.map_err(|_dropped| stopping())??;
        cbor::decode(&bytes, ANSWER_BYTES_MAX)
            .map_err(|error| Reject::new(RejectCode::Failed, error.to_string()))
    }
}

/// What is around the host.
struct HostLane {
    documents: Documents,
    heard: mpsc::Sender<Heard>,
    events: broadcast::Sender<Told>,
    order: Arc<OnceLock<Order>>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<Vec<u8>, Reject>>>,
    /// Who waits for a block to be applied, and for a state: in the order in which they asked.
    ordering: VecDeque<oneshot::Sender<Result<Executed, NotNext>>>,
    restoring: VecDeque<oneshot::Sender<Restored>>,
    requests_made: u64,
}

/// Hands in what an app proposed. The host answers the app when it was applied, and hears from here when it will not
/// be.
async fn propose(
    order: Option<Order>,
    heard: mpsc::Sender<Heard>,
    call: CallId,
    (app, data): (AppId, Vec<u8>),
) {
    let failed = |error: CallError| Heard::Input(Input::Done { call, result: Err(error) });
    let Some(log) = order.and_then(|order| order.log()) else {
        let why =
            CallError::Refused("this node keeps no ordered log: wattle order join genesis.json".to_owned());
        // Ignored because a host that ended has nobody to tell.
        drop(heard.send(failed(why)).await);
        return;
    };
    let Ok(salt) = getrandom::u64() else {
        let why = CallError::Refused("this machine has no randomness".to_owned());
        // Ignored because a host that ended has nobody to tell.
        drop(heard.send(failed(why)).await);
        return;
    };
    let entry = Entry { app: app.to_string(), data: data.into(), until: unix_now().after(LIFE), salt };
    let entry = match Whole::read(entry.encode().into()) {
        Ok(entry) => Arc::new(entry),
        Err(error) => {
            // Ignored because a host that ended has nobody to tell.
            drop(heard.send(failed(CallError::Refused(error.to_string()))).await);
            return;
        }
    };
    let transaction = *entry.transaction().as_bytes();
    // Before it can be applied. Ignored because a host that ended has nobody to tell.
    drop(heard.send(Heard::Input(Input::Handed { call, transaction })).await);
    let error = match log.submit(entry).await {
        Ok(fate) => match fate.await {
            Ok(Fate::Ordered(_)) => return,
            Ok(Fate::Expired) => {
                CallError::NotOrdered("it was not ordered in its time, and never will be".to_owned())
            }
            Ok(Fate::Unknown) => CallError::NotOrdered(
                "its time is over, and whether it was ordered before this node knew the log is NOT KNOWN"
                    .to_owned(),
            ),
            Err(_dropped) => CallError::NotOrdered(
                "the log begins anew here, or the node stops: whether it is ordered is NOT KNOWN".to_owned(),
            ),
        },
        Err(SubmitError::NotTaken(NotTaken::Busy(_))) => CallError::Busy,
        Err(why) => CallError::Refused(why.to_string()),
    };
    // Ignored because a host that ended has nobody to tell.
    drop(heard.send(failed(error)).await);
}

impl Lane for HostLane {
    type Machine = Host;
    type Item = Heard;
    type Act = Output;

    fn are_long(_host: &Host, _now: Time, turns: &[Turn<Host>]) -> bool {
        // What else takes long is done where documents are.
        turns.iter().any(|turn| match turn {
            Turn::Input(Input::Order(block)) => block.entries.len() > FEW_ENTRIES,
            Turn::Input(Input::Restore(_)) | Turn::Look(_) => true,
            Turn::Input(_) => false,
        })
    }

    fn wake() -> Input {
        Input::Wake
    }

    fn clock(now: UnixTime) -> Input {
        Input::Clock(now)
    }

    fn open(&mut self, heard: Heard) -> Option<Turn<Host>> {
        Some(Turn::Input(match heard {
            Heard::Input(input) => input,
            Heard::Look(look) => return Some(Turn::Look(look)),
            Heard::Order { block, reply } => {
                self.ordering.push_back(reply);
                Input::Order(block)
            }
            Heard::Restore { state, reply } => {
                self.restoring.push_back(reply);
                Input::Restore(state)
            }
            Heard::Ask { app, body, reply } => {
                self.requests_made += 1;
                let id = RequestId(self.requests_made);
                self.waiting.insert(id, reply);
                Input::Request { id, app, body }
            }
        }))
    }

    fn read(_host: &Host, output: Output) -> Output {
        output
    }

    async fn act(&mut self, output: Output) {
        match output {
            Output::Call { call, what, .. } => {
                let (documents, heard) = (self.documents.clone(), self.heard.clone());
                tokio::spawn(async move {
                    let result = documents.call(what).await;
                    // Ignored because a host that ended has nobody to tell.
                    drop(heard.send(Heard::Input(Input::Done { call, result })).await);
                });
            }
            Output::Propose { call, app, data } => {
                let (order, heard) = (self.order.get().cloned(), self.heard.clone());
                tokio::spawn(propose(order, heard, call, (app, data)));
            }
            Output::Executed(executed) => {
                // Ignored because whoever asked has stopped waiting.
                drop(self.ordering.pop_front().map(|reply| reply.send(executed)));
            }
            Output::Restored(restored) => {
                let root = restored.map(|(_height, root)| root);
                // Ignored because whoever asked has stopped waiting.
                drop(self.restoring.pop_front().map(|reply| reply.send(root)));
            }
            Output::Reply { request, answer } => {
                if let Some(reply) = self.waiting.remove(&request) {
                    // Ignored because whoever asked has stopped waiting.
                    drop(reply.send(answer));
                }
            }
            Output::Emit { app, event } => {
                // Ignored because nobody watches.
                drop(self.events.send(Told { app, event }));
            }
        }
    }
}
