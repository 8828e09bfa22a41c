//! The machine that runs the apps of a node.

mod log;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wattle_types::{Machine, NodeId, Outbox, Time, UnixTime, keyed};

use crate::app::{
    Answer, App, AppEvent, AppId, Call, CallError, CallId, Context, Effect, Reject, RejectCode, Request,
    RequestId,
};
use crate::ordered::{Corrupt, Executed, Height, NotNext, OrderedBlock};
use log::Log;

/// Calls of one app that wait for their answers. Beyond it a call is answered [`CallError::OverQuota`].
pub const CALLS_MAX: usize = 4096;

/// What one app may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes that it is given in requests, appends, proposes and signals, per second; twice as many at once. What is
    /// more than that by itself is taken by who has done nothing for two seconds.
    pub bytes_per_second: u64,
}

impl Default for Quota {
    /// A megabyte per second: more than a hundred people type, less than a disk writes.
    fn default() -> Self {
        Self { bytes_per_second: 1 << 20 }
    }
}

/// What the host is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// The only source of randomness.
    pub seed: [u8; 32],
    /// The wall clock when [`Time`] was zero.
    pub started: UnixTime,
    /// What an app may do that was not registered with more.
    pub quota: Quota,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Somebody asks an app something.
    Request {
        /// To be named in the reply.
        id: RequestId,
        /// Which app.
        app: AppId,
        /// In the app's own form.
        body: Vec<u8>,
    },
    /// What a call came to.
    Done {
        /// Which.
        call: CallId,
        /// The answer.
        result: Result<Answer, CallError>,
    },
    /// Something about a document happened; it goes to the apps of its kind.
    Event {
        /// The document's kind; none where it is told to all.
        kind: Option<String>,
        /// What.
        event: AppEvent,
    },
    /// What an app proposed is handed in for the log: it is answered when it was applied.
    Handed {
        /// Which.
        call: CallId,
        /// The hash by which the log knows it.
        transaction: [u8; 32],
    },
    /// A block of the log with entries for apps that have a state in it.
    Order(OrderedBlock),
    /// Go on from a snapshot instead of what is here.
    Restore(Vec<u8>),
    /// The wall clock was set, or the machine slept: what time it is.
    Clock(UnixTime),
    /// A deadline passed.
    Wake,
}

/// What must happen.
#[derive(Debug)]
pub enum Output {
    /// Do this for an app.
    Call {
        /// To be named in the answer.
        call: CallId,
        /// Which app.
        app: AppId,
        /// What.
        what: Call,
    },
    /// Hand this in for the log: say [`Input::Handed`], and [`Input::Done`] if it is not ordered.
    Propose {
        /// To be named in the answer.
        call: CallId,
        /// Which app.
        app: AppId,
        /// In the app's own form.
        data: Vec<u8>,
    },
    /// A block was applied. The root is what votes vouch for.
    Executed(Result<Executed, NotNext>),
    /// What came of a snapshot: how far it goes, and the root behind it.
    Restored(Result<(Height, [u8; 32]), Corrupt>),
    /// Answer a caller.
    Reply {
        /// Which.
        request: RequestId,
        /// The answer.
        answer: Result<Vec<u8>, Reject>,
    },
    /// Tell whoever watches an app.
    Emit {
        /// Which app.
        app: AppId,
        /// In its own form.
        event: Vec<u8>,
    },
}

struct Slot {
    app: Box<dyn App>,
    quota: Quota,
    waiting: usize,
    /// What it may still append now, as of `filled`.
    tokens: u64,
    filled: Time,
    wake: Option<UnixTime>,
}

/// The apps of a node.
pub struct Host {
    config: Config,
    apps: BTreeMap<AppId, Slot>,
    calls: BTreeMap<CallId, AppId>,
    calls_made: u64,
    requests: BTreeMap<RequestId, AppId>,
    /// Calls that are not made: answered with the next wake, so that an app that calls again goes round no loop.
    refused: VecDeque<(AppId, CallId, CallError)>,
    draws: u64,
    log: Log,
    /// What was handed in for the log, by its hash there.
    handed: BTreeMap<[u8; 32], CallId>,
}

impl Host {
    /// A host of these apps.
    #[must_use]
    pub fn new(config: Config, apps: Vec<Box<dyn App>>) -> Self {
        let mut host = Self {
            apps: BTreeMap::new(),
            config,
            calls: BTreeMap::new(),
            calls_made: 0,
            requests: BTreeMap::new(),
            refused: VecDeque::new(),
            draws: 0,
            log: Log::default(),
            handed: BTreeMap::new(),
        };
        let quota = host.config.quota;
        apps.into_iter().for_each(|app| host.register(app, quota));
        host
    }

    /// One more app, with what it may do.
    pub fn register(&mut self, app: Box<dyn App>, quota: Quota) {
        let tokens = quota.bytes_per_second.saturating_mul(2);
        let slot = Slot { app, quota, waiting: 0, tokens, filled: Time::ZERO, wake: None };
        self.apps.insert(slot.app.id(), slot);
    }

    /// The apps that are here.
    pub fn apps(&self) -> impl Iterator<Item = AppId> + '_ {
        self.apps.keys().copied()
    }

    fn wall(&self, now: Time) -> UnixTime {
        self.config.started.after(now.since(Time::ZERO))
    }

    /// Whoever waits for a while waits for as long as before.
    fn set_clock(&mut self, now: Time, wall: UnixTime) {
        let before = std::mem::replace(&mut self.config.started, wall.before(now.since(Time::ZERO)));
        let started = self.config.started;
        for wake in self.apps.values_mut().filter_map(|slot| slot.wake.as_mut()) {
            *wake = started.after(wake.since(before));
        }
    }

    /// Runs one app and does what it says.
    fn run(
        &mut self,
        now: Time,
        id: AppId,
        what: impl FnOnce(&mut dyn App, &mut Context<'_>),
        out: &mut Outbox<Output>,
    ) {
        let wall = self.wall(now);
        let Some(slot) = self.apps.get_mut(&id) else { return };
        let (seed, draws) = (&self.config.seed, &mut self.draws);
        let mut draw = || {
            *draws += 1;
            keyed(seed, &[&draws.to_be_bytes()])
        };
        let mut cx = Context {
            me: self.config.me,
            now: wall,
            calls: &mut self.calls_made,
            draws: &mut draw,
            effects: Vec::new(),
        };
        what(slot.app.as_mut(), &mut cx);
        for effect in cx.effects {
            match effect {
                Effect::Call(call, what) => {
                    if slot.waiting < CALLS_MAX && slot.take(now, weight(&what)) {
                        slot.waiting += 1;
                        self.calls.insert(call, id);
                        out.push(Output::Call { call, app: id, what });
                    } else {
                        self.refused.push_back((id, call, CallError::OverQuota));
                    }
                }
                Effect::Propose(call, data) => {
                    let room = slot.waiting < CALLS_MAX && slot.take(now, data.len() as u64 + 256);
                    // What its own app would refuse is not worth the others' time.
                    match log::worth_ordering(slot.app.as_ref(), &data) {
                        Err(why) => self.refused.push_back((id, call, CallError::Refused(why.text))),
                        Ok(()) if !room => self.refused.push_back((id, call, CallError::OverQuota)),
                        Ok(()) => {
                            slot.waiting += 1;
                            self.calls.insert(call, id);
                            out.push(Output::Propose { call, app: id, data });
                        }
                    }
                }
                Effect::Reply(request, answer) => {
                    // A1: only what was asked of this app, and only once.
                    if self.requests.get(&request) == Some(&id) {
                        self.requests.remove(&request);
                        out.push(Output::Reply { request, answer });
                    }
                }
                Effect::Emit(event) => out.push(Output::Emit { app: id, event }),
                Effect::WakeAt(at) => slot.wake = Some(slot.wake.map_or(at, |wake| wake.min(at))),
            }
        }
    }

    fn on_wake(&mut self, now: Time, out: &mut Outbox<Output>) {
        for (id, call, why) in std::mem::take(&mut self.refused) {
            let event = AppEvent::Done { call, result: Err(why) };
            self.run(now, id, |app, cx| app.handle(event, cx), out);
        }
        let wall = self.wall(now);
        let due = |slot: &Slot| slot.wake.is_some_and(|at| at <= wall);
        let due: BTreeSet<AppId> =
            self.apps.iter().filter(|(_, slot)| due(slot)).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(slot) = self.apps.get_mut(&id) {
                slot.wake = None;
            }
            self.run(now, id, |app, cx| app.handle(AppEvent::Wake, cx), out);
        }
    }

    /// A call is answered.
    fn done(&mut self, now: Time, call: CallId, result: Result<Answer, CallError>, out: &mut Outbox<Output>) {
        let Some(app) = self.calls.remove(&call) else { return };
        if let Some(slot) = self.apps.get_mut(&app) {
            slot.waiting -= 1;
        }
        let event = AppEvent::Done { call, result };
        self.run(now, app, |it, cx| it.handle(event, cx), out);
    }

    /// A block is applied, and who proposed something in it hears what that came to.
    fn on_order(&mut self, now: Time, block: OrderedBlock, out: &mut Outbox<Output>) {
        let executed = self.order(block);
        let outcomes = executed.as_ref().map(|executed| executed.outcomes.clone()).unwrap_or_default();
        out.push(Output::Executed(executed));
        for outcome in outcomes {
            if let Some(call) = self.handed.remove(&outcome.transaction) {
                let answer = Answer::Ordered { at: outcome.at, receipt: outcome.receipt };
                self.done(now, call, Ok(answer), out);
            }
        }
    }

    /// Checks what must hold between any two inputs.
    pub fn check_invariants(&self) {
        let waiting: usize = self.apps.values().map(|slot| slot.waiting).sum();
        assert_eq!(waiting, self.calls.len(), "A2: every call that waits is one app's");
        assert!(
            self.handed.values().all(|call| self.calls.contains_key(call)),
            "A2: what is handed in waits"
        );
    }
}

/// What a call costs of the quota.
fn weight(call: &Call) -> u64 {
    match call {
        Call::Append { body, .. } => body.len() as u64 + 256,
        Call::Signal { bytes, .. } => bytes.len() as u64,
        Call::Create { .. }
        | Call::CreateInSteps { .. }
        | Call::Import { .. }
        | Call::Edit { .. }
        | Call::EditInSteps { .. } => 256,
        Call::Read { .. } | Call::Show { .. } | Call::Page { .. } => 0,
    }
}

impl Slot {
    /// Takes from a bucket that fills with the quota and holds two seconds of it.
    fn take(&mut self, now: Time, bytes: u64) -> bool {
        let rate = self.quota.bytes_per_second;
        let micros = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let full = rate.saturating_mul(2);
        let earned = rate.saturating_mul(micros) / 1_000_000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(full);
            self.filled = now;
        }
        let enough = self.tokens >= bytes.min(full);
        if enough {
            self.tokens = self.tokens.saturating_sub(bytes);
        }
        enough
    }
}

impl Machine for Host {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Request { id, app, body } => {
                let taken = self.apps.get_mut(&app).map(|slot| slot.take(now, body.len() as u64));
                let refused = match taken {
                    Some(true) => None,
                    Some(false) => Some(Reject::from(CallError::OverQuota)),
                    None => Some(Reject::new(RejectCode::NotFound, format!("no app {app} here"))),
                };
                match refused {
                    Some(reject) => out.push(Output::Reply { request: id, answer: Err(reject) }),
                    None => {
                        self.requests.insert(id, app);
                        self.run(now, app, |it, cx| it.request(Request { id, body }, cx), out);
                    }
                }
            }
            Input::Done { call, result } => {
                self.handed.retain(|_, handed| *handed != call);
                self.done(now, call, result, out);
            }
            Input::Handed { call, transaction } => {
                if self.calls.contains_key(&call) {
                    self.handed.insert(transaction, call);
                }
            }
            Input::Order(block) => self.on_order(now, block, out),
            Input::Restore(bytes) => {
                let restored = self.restore(&bytes);
                out.push(Output::Restored(restored));
            }
            Input::Event { kind, event } => {
                let hear = |slot: &Slot| kind.as_deref().is_none_or(|kind| slot.app.kind() == kind);
                let ids: Vec<AppId> =
                    self.apps.iter().filter(|(_, slot)| hear(slot)).map(|(id, _)| *id).collect();
                for id in ids {
                    let event = event.clone();
                    self.run(now, id, |it, cx| it.handle(event, cx), out);
                }
            }
            Input::Clock(wall) => self.set_clock(now, wall),
            Input::Wake => self.on_wake(now, out),
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn deadline(&self) -> Option<Time> {
        if !self.refused.is_empty() {
            return Some(Time::ZERO);
        }
        let wake = self.apps.values().filter_map(|slot| slot.wake).min()?;
        Some(Time::ZERO.after(wake.since(self.config.started)))
    }
}

#[cfg(test)]
mod tests;
