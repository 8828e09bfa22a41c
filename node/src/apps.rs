//! The apps: the host of `wattle-app` with its clock, and its calls carried to the documents.
//!
//! One task owns the host. A call runs in a task of its own, so no app waits for another's disk; callers ask
//! over a bounded channel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wattle_app::{AppId, Config, Host, Input, Output, Quota, Reject, RejectCode, RequestId};
use wattle_types::{Machine as _, NodeId, Outbox, Time, cbor};

use crate::clock::unix_now;
use crate::documents::Documents;

/// Requests and answers that wait for the host; beyond it callers and calls wait.
const INPUTS_MAX: usize = 1024;
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

/// The apps of a running node.
#[derive(Clone)]
pub struct Apps {
    heard: mpsc::Sender<Heard>,
    events: broadcast::Sender<Told>,
}

impl Apps {
    /// Starts the apps of this binary.
    ///
    /// # Errors
    /// Why there is no randomness, in words.
    pub fn start(
        me: NodeId,
        documents: &Documents,
        happens: mpsc::Receiver<Input>,
        stop: &CancellationToken,
        tasks: &tokio_util::task::TaskTracker,
    ) -> Result<Self, String> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
        let config = Config { me, seed, started: unix_now(), quota: Quota::default() };
        let host = Host::new(config, vec![Box::new(wattle_chat::Chat::new())]);
        let (heard, hears) = mpsc::channel(INPUTS_MAX);
        let events = broadcast::Sender::new(EVENTS_MAX);
        let driver = Driver {
            host,
            started: Instant::now(),
            documents: documents.clone(),
            heard: heard.clone(),
            events: events.clone(),
            waiting: BTreeMap::new(),
            requests_made: 0,
        };
        tasks.spawn(driver.run(hears, happens, stop.clone()));
        Ok(Self { heard, events })
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

struct Driver {
    host: Host,
    started: Instant,
    documents: Documents,
    heard: mpsc::Sender<Heard>,
    events: broadcast::Sender<Told>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<Vec<u8>, Reject>>>,
    requests_made: u64,
}

impl Driver {
    async fn run(
        mut self,
        mut hears: mpsc::Receiver<Heard>,
        mut happens: mpsc::Receiver<Input>,
        stop: CancellationToken,
    ) {
        loop {
            let wake = self.host.deadline().map(|at| self.started + Duration::from_micros(at.as_micros()));
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(input) = happens.recv() => self.handle(input),
                Some(heard) = hears.recv() => match heard {
                    Heard::Input(input) => self.handle(input),
                    Heard::Ask { app, body, reply } => {
                        self.requests_made += 1;
                        let id = RequestId(self.requests_made);
                        self.waiting.insert(id, reply);
                        self.handle(Input::Request { id, app, body });
                    }
                },
                () = sleep => self.handle(Input::Wake),
                else => return,
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.host.handle(Time::since_start(self.started.elapsed()), input, &mut out);
        for output in out.drain() {
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
}
