//! Members: the machine of `wattle-swim` with its datagrams, its streams, its disk and its clock.
//!
//! One task owns the machine and the socket, so that a probe waits for nothing else. Callers ask it over a bounded
//! channel; what members tell over streams is read and its signatures are checked in tasks of their own.

mod anchors;
mod carriage;
mod description;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_net::datagrams::{Datagram, DatagramConfig, DatagramCounts, Datagrams};
use wattle_net::faults::Faults;
use wattle_net::{DisconnectReason, Event as NetEvent, Overlay};
use wattle_store::Store;
use wattle_swim::{
    Config, Event, Input, Memory, Output, Packet, RawClaim, Reach, RejectedClaim, RemoveError, RequestId,
    ShortId, Signed, Status, Swim, Timing, View,
};
use wattle_types::{Machine as _, NodeId, Outbox, SecretKey, Table, Time, UnixTime};

use crate::clock::unix_now;
use anchors::Anchors;
use carriage::{Carriage, Heard};
pub use description::About;

/// Requests that wait for the machine; beyond it callers wait.
const REQUESTS_MAX: usize = 64;
/// Messages and answers of the disk that wait for the machine; beyond it streams are not read.
const HEARD_MAX: usize = 256;
/// Events for those who watch; who is slower misses some and looks at the view.
const EVENTS_MAX: usize = 1024;
/// Packets that are taken before a timer, after a pause: what they say may refute what the timer would do.
const PACKETS_BEFORE_TIMER: usize = 1024;
/// How long leaving may hold up the end of the node.
const LEAVE_MAX: Duration = Duration::from_millis(600);

/// Something that happened among the members, and when.
#[derive(Clone, Debug)]
pub struct Told {
    /// When.
    pub at: UnixTime,
    /// What.
    pub event: Event,
}

/// How membership does.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Counters of the machine.
    pub status: Status,
    /// Counters of the socket.
    pub datagrams: DatagramCounts,
}

/// The members of a running node.
#[derive(Clone)]
pub struct Members {
    requests: mpsc::Sender<Request>,
    view: watch::Receiver<Arc<View>>,
    events: broadcast::Sender<Told>,
}

enum Request {
    View(oneshot::Sender<Arc<View>>),
    Health(oneshot::Sender<Health>),
    Confirm(NodeId, oneshot::Sender<bool>),
    Describe(Vec<wattle_net::Address>),
    Leave(oneshot::Sender<()>),
    Remove(NodeId, oneshot::Sender<Result<(), RemoveError>>),
}

/// What the members' task is started with.
pub struct Start<'a> {
    /// The overlay.
    pub overlay: &'a Overlay,
    /// The disk.
    pub store: &'a Arc<Store>,
    /// Who this node is.
    pub key: &'a SecretKey,
    /// What it says of itself.
    pub about: About,
    /// How fast things happen.
    pub timing: Timing,
    /// The port wanted for datagrams.
    pub port: u16,
    /// Faults on purpose, in a node of a testnet.
    pub faults: Option<Faults>,
}

impl Members {
    /// Binds the socket, reads who was a member before, and takes part.
    ///
    /// Also gives what happens from its first moment on, to two readers.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn start(
        start: Start<'_>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<(Self, [broadcast::Receiver<Told>; 2]), String> {
        let Start { overlay, store, key, about, timing, port, faults } = start;
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| words(&error))?;
        let listening = overlay.status().await.map_err(|error| words(&error))?.listening;
        let (me, network) = (overlay.id(), overlay.network().clone());
        let loopback_only = description::loopback_only(&listening);
        let datagrams = DatagramConfig { me, network: network.clone(), port, loopback_only, faults };
        let datagrams = Datagrams::bind(datagrams).await.map_err(|error| words(&error))?;
        let rows = store.scan(Table::Members).map_err(|failure| words(&failure))?;
        let memory = Memory::read(rows, &network).map_err(|corrupt| words(&corrupt))?;
        let description = about.description(&listening, &datagrams, &[]);
        let config = Config::new(key.clone(), network, seed, unix_now(), description, timing.clone());
        let swim = Swim::new(config.map_err(|error| words(&error))?, &memory);
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (heard, hears) = mpsc::channel(HEARD_MAX);
        let events = broadcast::Sender::new(EVENTS_MAX);
        let told = [events.subscribe(), events.subscribe()];
        let (shown, view) = watch::channel(Arc::new(swim.view()));
        let carriage = Carriage::start(overlay, store, heard, timing.fallback_timeout, stop, tasks)
            .map_err(|error| words(&error))?;
        let driver = Driver {
            swim,
            started: Instant::now(),
            anchors: Anchors::new(about.reach == Reach::Anchored),
            about,
            listening,
            overlay: overlay.clone(),
            datagrams,
            carriage,
            events: events.clone(),
            shown,
            confirms: BTreeMap::new(),
            removals: BTreeMap::new(),
            asked: 0,
            leaving: Vec::new(),
            stop: stop.clone(),
            left: false,
        };
        tasks.spawn(driver.run(asked, hears));
        Ok((Self { requests, view, events }, told))
    }

    /// All members as of now, without this node.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// All members with what was measured up to now: a view as of the last change has old round trips.
    pub async fn measured(&self) -> Arc<View> {
        let (reply, answer) = oneshot::channel();
        let asked = self.requests.send(Request::View(reply)).await;
        match asked {
            Ok(()) => answer.await.unwrap_or_else(|_stopped| self.view()),
            Err(_stopped) => self.view(),
        }
    }

    /// Tells when the view changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// What happens among the members from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Told> {
        self.events.subscribe()
    }

    /// How membership does; nothing once the node stops.
    pub async fn health(&self) -> Option<Health> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Health(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Finds out within a second whether a member answers.
    pub async fn confirm(&self, member: NodeId) -> bool {
        let (reply, answer) = oneshot::channel();
        match self.requests.send(Request::Confirm(member, reply)).await {
            Ok(()) => answer.await.unwrap_or(false),
            Err(_stopped) => false,
        }
    }

    /// Takes a member that is gone for good out of every list; that is on disk when this returns.
    ///
    /// # Errors
    /// [`RemoveError`]; nothing changed then, unless it was the disk's.
    pub async fn remove(&self, member: NodeId) -> Result<(), RemoveError> {
        let (reply, answer) = oneshot::channel();
        match self.requests.send(Request::Remove(member, reply)).await {
            Ok(()) => answer.await.unwrap_or(Err(RemoveError::NotTakingPart)),
            Err(_stopped) => Err(RemoveError::NotTakingPart),
        }
    }

    /// This node listens elsewhere now.
    pub async fn moved(&self, listening: Vec<wattle_net::Address>) {
        // Ignored because a node that stops is nowhere.
        drop(self.requests.send(Request::Describe(listening)).await);
    }

    /// Says that this node goes, and waits until others heard it, at most 600 ms.
    pub async fn leave(&self) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Leave(reply)).await.is_ok() {
            // Ignored because others find out by themselves.
            drop(tokio::time::timeout(LEAVE_MAX, answer).await);
        }
    }
}

struct Driver {
    swim: Swim,
    started: Instant,
    about: About,
    anchors: Anchors,
    /// Where streams reach this node.
    listening: Vec<wattle_net::Address>,
    overlay: Overlay,
    datagrams: Datagrams,
    carriage: Carriage,
    events: broadcast::Sender<Told>,
    shown: watch::Sender<Arc<View>>,
    confirms: BTreeMap<RequestId, oneshot::Sender<bool>>,
    removals: BTreeMap<RequestId, oneshot::Sender<Result<(), RemoveError>>>,
    /// Questions to the machine so far.
    asked: u64,
    leaving: Vec<oneshot::Sender<()>>,
    stop: CancellationToken,
    /// The node stops, and the others know.
    left: bool,
}

impl Driver {
    async fn run(mut self, mut asked: mpsc::Receiver<Request>, mut hears: mpsc::Receiver<Heard>) {
        let stop = self.stop.clone();
        let mut peers = self.overlay.events();
        for peer in self.overlay.status().await.map(|status| status.peers).unwrap_or_default() {
            self.anchors.opened(peer.peer);
            self.feed(Input::Join { peers: vec![peer.peer] });
        }
        let mut ends: Option<Instant> = None;
        while !self.left {
            let due = self.swim.deadline().map(|at| self.started + Duration::from_micros(at.as_micros()));
            tokio::select! {
                () = stop.cancelled(), if ends.is_none() => {
                    ends = Some(Instant::now() + LEAVE_MAX);
                    self.feed(Input::Leave);
                }
                () = sleep_until(ends), if ends.is_some() => return,
                datagram = self.datagrams.receive() => self.on_datagram(datagram),
                Some(heard) = hears.recv() => self.on_heard(heard),
                Some(request) = asked.recv() => self.on_request(request),
                event = peers.recv() => self.on_event(event.ok()),
                () = sleep_until(due) => self.on_due(&mut hears),
            }
            self.anchor();
        }
    }

    /// Nothing when some were missed; what they would have said comes with a comparison. They do not end as long
    /// as this task holds the overlay.
    fn on_event(&mut self, event: Option<NetEvent>) {
        match event {
            Some(NetEvent::Connected(info)) => {
                self.anchors.opened(info.peer);
                self.on_connected(info.peer, info.outbound);
            }
            // A connection that broke is the first sign of a death.
            Some(NetEvent::Disconnected { peer, reason }) => {
                self.anchors.closed(peer);
                if matches!(reason, DisconnectReason::Lost(_) | DisconnectReason::Remote) {
                    self.feed(Input::Doubt { peer });
                }
            }
            Some(_) | None => {}
        }
    }

    /// The timer has come: first whatever arrived before it, which may be what it is about.
    fn on_due(&mut self, hears: &mut mpsc::Receiver<Heard>) {
        for _ in 0..PACKETS_BEFORE_TIMER {
            if let Some(datagram) = self.datagrams.receive().now_or_never() {
                self.on_datagram(datagram);
            } else if let Ok(heard) = hears.try_recv() {
                self.on_heard(heard);
            } else {
                break;
            }
        }
        self.feed(Input::Wake);
    }

    fn on_datagram(&mut self, datagram: Datagram) {
        match datagram {
            Datagram::Opened { from, bytes } => self.on_packet(from, &bytes),
            Datagram::AskedWho { from } => self.feed(Input::Unreadable { sender: ShortId::of(&from) }),
        }
    }

    /// Reads a packet and checks the signatures in it that say something new.
    fn on_packet(&mut self, from: NodeId, bytes: &[u8]) {
        if !self.swim.reads(self.now(), &from) {
            return;
        }
        let network = self.overlay.network();
        let packet = Packet::<RawClaim>::decode(bytes, &|short| self.swim.resolve(short));
        let mut open = |claim: RawClaim| Signed::open(claim.envelope(), network).map(Arc::new);
        let opened = packet.map_err(|error| error.to_string()).and_then(|packet| {
            self.swim.open(packet, &mut open).map_err(|rejected: RejectedClaim| rejected.to_string())
        });
        match opened {
            Ok(packet) => self.feed(Input::Packet { from, packet }),
            Err(why) => tracing::debug!(%from, why, "a packet of a member is refused"),
        }
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Input(input) => self.feed(input),
            Heard::Refused { peer, why } => tracing::debug!(%peer, why, "a message of a member is refused"),
        }
    }

    fn on_connected(&mut self, peer: NodeId, outbound: bool) {
        let view = self.shown.borrow();
        let here = view
            .members
            .iter()
            .any(|member| member.id == peer && matches!(member.state, wattle_swim::State::Alive));
        drop(view);
        if !here {
            // One of both asks: whoever dialed.
            self.feed(if outbound { Input::Join { peers: vec![peer] } } else { Input::Meet { peer } });
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::View(reply) => {
                // Ignored because whoever asked has stopped waiting.
                drop(reply.send(Arc::new(self.swim.view())));
            }
            Request::Health(reply) => {
                let health = Health { status: self.swim.status(), datagrams: self.datagrams.counts() };
                // Ignored because whoever asked has stopped waiting.
                drop(reply.send(health));
            }
            Request::Confirm(peer, reply) => {
                let request = self.next_request();
                self.confirms.retain(|_, waiting| !waiting.is_closed());
                self.confirms.insert(request, reply);
                self.feed(Input::Confirm { request, peer });
            }
            Request::Describe(listening) => {
                self.listening = listening;
                self.describe();
            }
            Request::Leave(reply) => {
                self.leaving.push(reply);
                self.feed(Input::Leave);
            }
            Request::Remove(peer, reply) => {
                let request = self.next_request();
                self.removals.insert(request, reply);
                self.feed(Input::Remove { request, peer });
            }
        }
    }

    fn describe(&mut self) {
        let anchors = self.anchors.chosen();
        let description = self.about.description(&self.listening, &self.datagrams, anchors);
        self.feed(Input::Describe { description });
    }

    /// Holds on to other anchors, if some were lost or there are more to be had.
    fn anchor(&mut self) {
        let view = Arc::clone(&self.shown.borrow());
        let Some(new) = self.anchors.choose(&view) else { return };
        for anchor in new {
            let overlay = self.overlay.clone();
            // Asked for, a connection is not trimmed, and dialed again when it is lost.
            tokio::spawn(async move {
                if let Err(error) = overlay.connect(Some(anchor), Vec::new()).await {
                    tracing::debug!(%anchor, %error, "an anchor was lost at once");
                }
            });
        }
        self.describe();
    }

    const fn next_request(&mut self) -> RequestId {
        self.asked += 1;
        RequestId(self.asked)
    }

    fn now(&self) -> Time {
        Time::since_start(self.started.elapsed())
    }

    /// Gives the machine an input and does what it says.
    fn feed(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.swim.handle(self.now(), input, &mut out);
        let mut changed = false;
        let outputs: Vec<Output> = out.drain().collect();
        for output in outputs {
            changed |= matches!(output, Output::Notify(_));
            self.carry_out(output);
        }
        if changed {
            self.shown.send_replace(Arc::new(self.swim.view()));
            self.anchors.look_again();
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Packet { to, bytes } => {
                if let Err(error) = self.datagrams.send(&to, &bytes) {
                    tracing::trace!(%to, %error, "a packet to a member is lost");
                }
            }
            Output::Message { to, bytes } => {
                let addresses = self.swim.record(&to).map(|record| description::addresses(record));
                let addresses = addresses.unwrap_or_default();
                self.carriage.message(to, addresses, bytes);
            }
            Output::FallbackPing { peer, sequence } => self.carriage.fallback(peer, sequence),
            Output::Persist { id, writes } => self.carriage.persist(id, writes),
            Output::Contact { record } => self.contact(&record),
            Output::Forget { member } => self.datagrams.forget(&member),
            Output::Notify(event) => self.tell(event),
            Output::Reply { request, answered } => {
                if let Some(reply) = self.confirms.remove(&request) {
                    // Ignored because whoever asked has stopped waiting.
                    reply.send(answered).unwrap_or_default();
                }
            }
            Output::Removed { request, outcome } => {
                if let Some(reply) = self.removals.remove(&request) {
                    // Ignored because whoever asked has stopped waiting.
                    reply.send(outcome).unwrap_or_default();
                }
            }
            Output::Misbehaved { peer, why } => {
                tracing::warn!(%peer, why, "a member breaks the protocol of membership");
            }
        }
    }

    fn contact(&mut self, record: &Signed) {
        let Some(described) = record.description() else { return };
        let places: Vec<SocketAddr> = description::datagram_places(described);
        if !self.datagrams.know(record.author(), *described.boot_key, places) {
            tracing::debug!(member = %record.author(), "no more members can be sealed for");
        }
    }

    fn tell(&mut self, event: Event) {
        if matches!(event, Event::Left) {
            self.left = self.stop.is_cancelled();
            for reply in self.leaving.drain(..) {
                // Ignored because whoever asked has stopped waiting.
                reply.send(()).unwrap_or_default();
            }
        }
        // Ignored because nobody watches.
        drop(self.events.send(Told { at: unix_now(), event }));
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
