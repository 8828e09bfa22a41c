//! Streams between validators: to each other one a channel that stays open, and from each one that is read. Who votes
//! changes with the epoch: channels to those who stay are kept.
//!
//! What waits for a validator is bounded by count and by bytes; when it is full the oldest gives way, since whatever
//! the protocol needs is told again, and the newest is what moves it. Votes and blocks do not wait behind batches. A
//! channel that ends is opened again, later each time, or at once when the validator connects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_net::{
    AlreadyAccepted, Channel, ChannelKind, ChannelListener, ChannelReceiver, Event as NetEvent, Overlay,
};
use wattle_order::{ChainId, Checker, Committee, Input as CoreInput, Rejected, Seat, Seen, payloads};
use wattle_types::NodeId;
use wattle_weave::order::{Frame, Input};

use super::Heard;
use super::epochs::Now;

/// Frames of one weight that wait for one validator.
const WAITING_MAX: usize = 256;
/// Their bytes.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Bytes of heavy frames that are sent before it is looked again whether a light one waits.
const HEAVY_BYTES: usize = 64 * 1024;
/// Frames that are sent, or read and checked, together.
const TOGETHER: usize = 32;
/// How long to wait before a channel is opened again: from here, doubled each time, up to there.
const REOPEN_FROM: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(3);
/// A validator to whom no channel stands is missed after so long only: of two connections to it one is closed after a
/// while, with what goes over it, and who begins to vote is just being reached.
const MISSED_AFTER: Duration = Duration::from_secs(1);
/// How long a channel stays to one who votes no more: the last word of the epoch goes over it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What was checked is remembered in so many parts, so that several messages are checked at once.
const SEEN_PARTS: usize = 4;

/// The streams to the other validators.
#[derive(Clone)]
pub(super) struct Links {
    overlay: Overlay,
    chain: ChainId,
    to: Arc<RwLock<BTreeMap<NodeId, Arc<Link>>>>,
    started: Instant,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// One validator, as this node reaches it.
struct Link {
    waiting: Mutex<Waiting>,
    news: Notify,
    /// Try again now.
    again: Notify,
    /// Since when no channel stands, as [`Links::now`] counts; 0 while one does.
    down: AtomicU64,
    /// When something came from it, likewise; 0 before.
    heard: AtomicU64,
    /// It votes no more.
    stop: CancellationToken,
}

/// What goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// What moves the log: votes, timeouts, blocks.
    Light,
    /// Batches, which go ahead of the block that orders them.
    Heavy,
}

#[derive(Default)]
struct Waiting {
    light: Queue,
    heavy: Queue,
    dropped: u64,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

impl Queue {
    /// Takes a frame; how many gave way to it.
    fn push(&mut self, frame: &Arc<[u8]>) -> u64 {
        self.bytes = self.bytes.saturating_add(frame.len());
        self.frames.push_back(Arc::clone(frame));
        let mut dropped = 0;
        while self.frames.len() > WAITING_MAX || self.bytes > WAITING_BYTES_MAX {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.len());
            dropped += 1;
        }
        dropped
    }

    /// The eldest, so many bytes and one more at the most.
    fn take(&mut self, bytes_max: usize) -> Vec<Arc<[u8]>> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < TOGETHER && bytes < bytes_max {
            let Some(frame) = self.frames.pop_front() else { break };
            bytes += frame.len();
            taken.push(frame);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }
}

impl Link {
    /// As it is before its first channel stands.
    fn new(down: u64, stop: CancellationToken) -> Self {
        Self {
            stop,
            waiting: Mutex::default(),
            news: Notify::new(),
            again: Notify::new(),
            down: AtomicU64::new(down),
            heard: AtomicU64::new(0),
        }
    }

    fn is_up(&self) -> bool {
        self.down.load(Ordering::Relaxed) == 0
    }

    fn reach(&self, now: u64) -> Reach {
        let ago = |at: u64| Duration::from_millis(now.saturating_sub(at));
        let (down, heard) = (self.down.load(Ordering::Relaxed), self.heard.load(Ordering::Relaxed));
        let dropped = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).dropped;
        Reach { up: down == 0 || ago(down) < MISSED_AFTER, heard: (heard > 0).then(|| ago(heard)), dropped }
    }

    fn push(&self, frame: &Arc<[u8]>, weight: Weight) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = match weight {
            Weight::Light => &mut waiting.light,
            Weight::Heavy => &mut waiting.heavy,
        };
        let dropped = queue.push(frame);
        waiting.dropped = waiting.dropped.saturating_add(dropped);
        drop(waiting);
        self.news.notify_one();
    }

    fn take(&self) -> Vec<Arc<[u8]>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let light = waiting.light.take(usize::MAX);
        if light.is_empty() { waiting.heavy.take(HEAVY_BYTES) } else { light }
    }
}

/// How a validator is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The channel to it stands, or did less than a second ago.
    pub up: bool,
    /// How long ago something came from it.
    pub heard: Option<Duration>,
    /// Frames that were not sent, because too many waited.
    pub dropped: u64,
}

/// What the streams are started with.
pub(super) struct Start<'a> {
    pub(super) overlay: &'a Overlay,
    pub(super) chain: ChainId,
    pub(super) epochs: Now,
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) stop: &'a CancellationToken,
    pub(super) tasks: &'a TaskTracker,
}

impl Links {
    /// Reads channels that validators open, and opens one to each of them, if this node votes.
    pub(super) fn start(start: Start<'_>) -> Result<Self, AlreadyAccepted> {
        let Start { overlay, chain, epochs, heard, stop, tasks } = start;
        let listener = overlay.accept_channels(ChannelKind::Order)?;
        let links = Self {
            overlay: overlay.clone(),
            chain,
            to: Arc::default(),
            started: Instant::now(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        // Nobody was reached before this node began.
        links.reach_for(epochs.borrow().current(), 1);
        let reading = Reading { links: links.clone(), epochs, seen: Arc::default(), heard };
        tasks.spawn(stop.clone().run_until_cancelled_owned(read_all(listener, reading)));
        tasks.spawn(stop.clone().run_until_cancelled_owned(links.clone().welcome()));
        Ok(links)
    }

    /// Has channels to these validators and to no others; to none at all where this node only follows.
    pub(super) fn enter(&self, committee: &Committee) {
        self.reach_for(committee, self.now());
    }

    /// The same; whoever is new has not been reached since then.
    fn reach_for(&self, committee: &Committee, down: u64) {
        let me = self.overlay.id();
        let validators = super::disk::validators(committee).into_iter();
        let others: Vec<NodeId> =
            validators.filter(|id| *id != me && committee.seat(&me).is_some()).collect();
        let mut to = self.to.write().unwrap_or_else(PoisonError::into_inner);
        to.retain(|id, link| {
            let stays = others.contains(id);
            if !stays {
                let stop = link.stop.clone();
                self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
                    tokio::time::sleep(LAST_WORDS).await;
                    stop.cancel();
                }));
            }
            stays
        });
        for peer in others {
            to.entry(peer).or_insert_with(|| {
                let link = Arc::new(Link::new(down, self.stop.child_token()));
                let keeping = keep(self.clone(), peer, Arc::clone(&link));
                self.tasks.spawn(link.stop.clone().run_until_cancelled_owned(keeping));
                link
            });
        }
    }

    fn to(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<NodeId, Arc<Link>>> {
        self.to.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a channel to this one, and something came from it: who votes in a later epoch than this node
    /// knows does not listen to it.
    pub(super) fn hears(&self, peer: &NodeId) -> bool {
        self.to().get(peer).is_some_and(|link| link.is_up() && link.heard.load(Ordering::Relaxed) > 0)
    }

    /// Says something to one validator.
    pub(super) fn send(&self, to: &NodeId, frame: &Arc<[u8]>, weight: Weight) {
        if let Some(link) = self.to().get(to) {
            link.push(frame, weight);
        }
    }

    /// Says something to all.
    pub(super) fn send_all(&self, frame: &Arc<[u8]>, weight: Weight) {
        self.to().values().for_each(|link| link.push(frame, weight));
    }

    /// How every other validator is reached.
    pub(super) fn reach(&self) -> BTreeMap<NodeId, Reach> {
        let now = self.now();
        self.to().iter().map(|(id, link)| (*id, link.reach(now))).collect()
    }

    /// Whether this node votes, and has channels to so many that they and it are a quorum.
    pub(super) fn reach_quorum(&self, committee: &Committee) -> bool {
        let own = committee.seat(&self.overlay.id());
        let to = self.to();
        let up = to.iter().filter(|(_, link)| link.is_up());
        own.is_some() && committee.is_quorum(up.filter_map(|(id, _)| committee.seat(id)).chain(own))
    }

    /// In milliseconds, from the first that is as long before the start as nobody is missed.
    fn now(&self) -> u64 {
        let since = MISSED_AFTER + self.started.elapsed();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn note_heard(&self, from: &NodeId) {
        if let Some(link) = self.to().get(from) {
            link.heard.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Who connects is tried at once.
    async fn welcome(self) {
        use tokio::sync::broadcast::error::RecvError;
        let mut events = self.overlay.events();
        loop {
            match events.recv().await {
                Ok(NetEvent::Connected(info)) => {
                    if let Some(link) = self.to().get(&info.peer) {
                        link.again.notify_one();
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.to().values().for_each(|link| link.again.notify_one()),
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// Keeps a channel to one validator, and sends what waits for it.
async fn keep(links: Links, peer: NodeId, link: Arc<Link>) {
    let mut pause = REOPEN_FROM;
    loop {
        let opened = links.overlay.open_channel(peer, ChannelKind::Order).await;
        match opened {
            Ok(channel) => {
                let (since, down) = (Instant::now(), link.down.load(Ordering::Relaxed));
                carry(channel, links.chain, &link).await;
                tracing::debug!(%peer, "the channel to a validator ended");
                if since.elapsed() > REOPEN_MAX {
                    link.down.store(links.now(), Ordering::Relaxed);
                    pause = REOPEN_FROM;
                    continue;
                }
                // Who only takes it and ends it was not reached.
                link.down.store(down, Ordering::Relaxed);
            }
            Err(error) => tracing::debug!(%peer, %error, "a validator is not reached"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = pause.saturating_mul(2).min(REOPEN_MAX),
            () = link.again.notified() => pause = REOPEN_FROM,
        }
    }
}

/// Sends until the channel ends.
async fn carry(channel: Channel, chain: ChainId, link: &Link) {
    let (mut sender, mut receiver) = channel.split();
    if sender.send(&Frame::Hello(chain).encode()).await.is_err() {
        return;
    }
    link.down.store(0, Ordering::Relaxed);
    loop {
        let frames = link.take();
        if !frames.is_empty() {
            if let Err(error) = sender.send_all(&frames).await {
                tracing::debug!(%error, "frames to a validator are lost");
                return;
            }
            continue;
        }
        tokio::select! {
            () = link.news.notified() => {}
            // The other side says nothing here; it ends when it is gone.
            _ended = receiver.next() => return,
        }
    }
}

/// What readers of channels have in common.
#[derive(Clone)]
struct Reading {
    links: Links,
    epochs: Now,
    seen: Arc<[Mutex<Seen>; SEEN_PARTS]>,
    heard: mpsc::Sender<Heard>,
}

async fn read_all(mut listener: ChannelListener, reading: Reading) {
    while let Some(channel) = listener.next().await {
        let peer = channel.peer();
        // Who is no validator has nothing to say here; it asks over a channel of the other kind.
        if reading.seat(&peer).is_none() {
            continue;
        }
        let reading = reading.clone();
        let (stop, tasks) = (reading.links.stop.clone(), reading.links.tasks.clone());
        // As many as there are validators, and two of each: the overlay sees to that.
        tasks.spawn(stop.run_until_cancelled_owned(async move {
            let (_sender, receiver) = channel.split();
            if let Err(why) = reading.read(peer, receiver).await {
                tracing::warn!(%peer, why, "a validator broke the protocol: its channel is closed");
                // Ignored because the node stops.
                drop(reading.heard.send(Heard::Misbehaved { peer }).await);
            }
        }));
    }
}

impl Reading {
    /// Where somebody sits in the epoch that is under way.
    fn seat(&self, peer: &NodeId) -> Option<Seat> {
        self.epochs.borrow().current().seat(peer)
    }

    /// Reads a channel to its end, or to the first frame that an honest validator does not send.
    async fn read(&self, peer: NodeId, mut receiver: ChannelReceiver) -> Result<(), String> {
        match receiver.next().await {
            Some(Ok(first)) => match Frame::decode(&first) {
                Ok(Frame::Hello(chain)) if chain == self.links.chain => {}
                Ok(Frame::Hello(other)) => {
                    tracing::warn!(%peer, %other, "a validator of this log keeps another one");
                    return Ok(());
                }
                Ok(_) => return Err("it does not say hello".to_owned()),
                Err(error) => return Err(error.to_string()),
            },
            Some(Err(error)) => {
                // Who is cut off or killed before its first word said nothing wrong.
                tracing::debug!(%peer, %error, "the channel of a validator broke");
                return Ok(());
            }
            None => return Ok(()),
        }
        loop {
            let mut frames = match receiver.next().await {
                Some(Ok(frame)) => vec![frame],
                Some(Err(error)) => {
                    tracing::debug!(%peer, %error, "the channel of a validator broke");
                    return Ok(());
                }
                None => return Ok(()),
            };
            while frames.len() < TOGETHER
                && let Some(Some(Ok(frame))) = receiver.next().now_or_never()
            {
                frames.push(frame);
            }
            // It votes no more: its epoch is over, and it hears so where it asks.
            let Some(seat) = self.seat(&peer) else { return Ok(()) };
            self.links.note_heard(&peer);
            // Signatures are checked on the pool, those of one validator in their order and of several at once.
            let reading = self.clone();
            let checked = tokio::task::spawn_blocking(move || reading.check(peer, seat, &frames)).await;
            let Ok((heard, broken)) = checked else { return Ok(()) };
            for heard in heard {
                if self.heard.send(heard).await.is_err() {
                    return Ok(());
                }
            }
            if let Some(why) = broken {
                return Err(why);
            }
        }
    }

    /// What frames say, up to the first that is refused.
    fn check(&self, peer: NodeId, seat: Seat, frames: &[Vec<u8>]) -> (Vec<Heard>, Option<String>) {
        let checker = Checker::new(Arc::clone(self.epochs.borrow().current()));
        let mut heard = Vec::new();
        for frame in frames {
            match Frame::decode(frame) {
                Ok(Frame::Message(message)) => {
                    let part = seat.index() % SEEN_PARTS;
                    let Some(seen) = self.seen.get(part) else { continue };
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    match checker.check(&mut seen, *message) {
                        Ok(message) => {
                            let received = CoreInput::Received { from: peer, message };
                            heard.push(Heard::Log(Input::Core(received)));
                        }
                        Err(Rejected::OtherEpoch { got, .. }) => {
                            let other = CoreInput::OtherEpoch { from: peer, epoch: got };
                            heard.push(Heard::Log(Input::Core(other)));
                        }
                        Err(why) => return (heard, Some(why.to_string())),
                    }
                }
                Ok(Frame::Payload(message)) => {
                    let received = payloads::Input::Received { from: peer, message };
                    heard.push(Heard::Log(Input::Payloads(received)));
                }
                Ok(Frame::Hello(_)) => return (heard, Some("it says hello twice".to_owned())),
                Err(error) => return (heard, Some(error.to_string())),
            }
        }
        (heard, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_validator_is_bounded_and_the_oldest_gives_way() {
        let link = Link::new(1, CancellationToken::new());
        let frame = |byte: u8, length: usize| -> Arc<[u8]> { vec![byte; length].into() };
        for byte in 0..=u8::MAX {
            link.push(&frame(byte, 1), Weight::Light);
        }
        link.push(&frame(7, 2), Weight::Light);
        assert_eq!(link.take()[0][0], 1, "the first is gone");
        link.push(&frame(9, WAITING_BYTES_MAX), Weight::Light);
        let left = link.take();
        assert_eq!((left.len(), left[0][0]), (1, 9), "one that fills the bytes is alone");
        assert!(link.take().is_empty());
        assert_eq!(link.waiting.lock().unwrap().light.bytes, 0);
        assert_eq!(link.waiting.lock().unwrap().dropped, 1 + 256 - 32);
    }

    #[test]
    fn who_is_reached_again_at_once_was_never_missed() {
        let link = Link::new(1, CancellationToken::new());
        let up = |now| link.reach(now).up;
        assert!(up(1000) && !up(1001), "the first channel has its time");
        link.down.store(0, Ordering::Relaxed);
        assert!(up(50_000));
        link.down.store(60_000, Ordering::Relaxed);
        assert!(up(60_999) && !up(61_000) && !link.is_up());
    }

    #[test]
    fn a_vote_does_not_wait_behind_batches() {
        let link = Link::new(1, CancellationToken::new());
        let frame = |byte: u8, length: usize| -> Arc<[u8]> { vec![byte; length].into() };
        (0..4).for_each(|byte| link.push(&frame(byte, HEAVY_BYTES), Weight::Heavy));
        let first = |link: &Link| link.take().iter().map(|frame| frame[0]).collect::<Vec<_>>();
        assert_eq!(first(&link), [0]);
        link.push(&frame(9, 100), Weight::Light);
        assert_eq!(first(&link), [9]);
        assert_eq!(first(&link), [1]);
    }
}
