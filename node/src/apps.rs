//! The apps: the host of `wattle-app` with its clock, and its calls carried to the documents.
//!
//! One task owns the host. A call runs in a task of its own, so no app waits for another's disk; callers ask
//! over a bounded channel.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wattle_app::{App, AppId, Config, Host, Input, Output, Quota, Reject, RejectCode, RequestId};
use wattle_types::{NodeId, cbor};

use crate::clock::unix_now;
use crate::documents::Documents;
use crate::driver::{Lane, Turn, drive};

/// Requests and answers that wait for the host; beyond it callers and calls wait.
const INPUTS_MAX: usize = 1024;
/// What pad may do: two files of the largest size at once.
const FILES: Quota = Quota { bytes_per_second: 24 << 20 };
/// Events for those who watch; who is slower misses some.
const EVENTS_MAX: usize = 1024;
/// Bytes of an answer of an app.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What an app told those who watch.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which app.
    pub app: AppId,
    /// In its own form.
    pub event: Vec<u8>,
}

enum Heard {
    Ask { app: AppId, body: Vec<u8>, reply: oneshot::Sender<Result<Vec<u8>, Reject>> },
    Input(Input),
}

/// The apps of this binary, and what each may do.
#[must_use]
pub fn shipped() -> Vec<(Box<dyn App>, Quota)> {
    vec![(Box::new(wattle_chat::Chat::new()), Quota::default()), (Box::<wattle_pad::Pad>::default(), FILES)]
}

/// The apps of a running node.
#[derive(Clone)]
pub struct Apps {
    heard: mpsc::Sender<Heard>,
    events: broadcast::Sender<Told>,
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
    ) -> Result<Self, String> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
        let config = Config { me, seed, started: unix_now(), quota: Quota::default() };
        let mut host = Host::new(config, Vec::new());
        for (app, quota) in apps {
            host.register(app, quota);
        }
        let (heard, mut hears) = mpsc::channel(INPUTS_MAX);
        let events = broadcast::Sender::new(EVENTS_MAX);
        let lane = HostLane {
            documents: documents.clone(),
            heard: heard.clone(),
            events: events.clone(),
            waiting: BTreeMap::new(),
            requests_made: 0,
        };
        let happened = stream::poll_fn(move |cx| happens.poll_recv(cx).map(|it| it.map(Heard::Input)));
        let inbox = stream::select(happened, stream::poll_fn(move |cx| hears.poll_recv(cx)));
        tasks.spawn(drive(lane, host, inbox, Instant::now(), stop.clone()));
        Ok(Self { heard, events })
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
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<Vec<u8>, Reject>>>,
    requests_made: u64,
}

impl Lane for HostLane {
    type Machine = Host;
    type Item = Heard;
    type Act = Output;

    fn are_long(_turns: &[Turn<Host>]) -> bool {
        // What takes long is done where documents are.
        false
    }

    fn wake() -> Input {
        Input::Wake
    }

    fn open(&mut self, heard: Heard) -> Option<Turn<Host>> {
        Some(Turn::Input(match heard {
            Heard::Input(input) => input,
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
