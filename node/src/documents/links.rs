//! One channel to each peer that shares a document.
//!
//! Whoever wants one opens it. When both do at once, both keep the one that the lower id opened. One that comes
//! later takes the place of the old: its opener has lost that, though nothing was heard of it here yet.
//!
//! Whoever reads a channel tells every machine of it, gives each frame to the machine of its document, and tells them
//! all of its end. A peer whose frames wait for a machine is not read, so it fills no memory; another peer is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_docs::Input;
use wattle_net::{Channel, ChannelReceiver, ChannelSender, Overlay};
use wattle_types::NodeId;

use super::KIND;
use super::shard::{Inboxes, Item, Line};
use super::switch::Heard;

/// Frames that wait for a peer. One that does not read loses its channel, and gets what it missed when it is
/// back.
const FRAMES_MAX: usize = 512;
/// Channels that open within this span were opened at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Bytes of frames of one channel that wait for machines: four of the largest, or sixteen parts of transfers. Beyond it
/// the channel is not read.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Frames that are flushed together.
const TOGETHER: usize = 64;

/// A channel that is open.
pub(super) struct Opened {
    channel: Channel,
    /// Whether this node opened it.
    ours: bool,
}

impl Opened {
    /// To whom.
    pub(super) const fn peer(&self) -> NodeId {
        self.channel.peer()
    }
}

struct Link {
    number: u64,
    since: Instant,
    ended: CancellationToken,
}

/// The channels of this node.
pub(super) struct Links {
    overlay: Overlay,
    heard: mpsc::Sender<Heard>,
    links: BTreeMap<NodeId, Link>,
    opening: BTreeSet<NodeId>,
    made: u64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Links {
    pub(super) fn start(
        overlay: &Overlay,
        heard: mpsc::Sender<Heard>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let mut listener = overlay.accept_channels(KIND).map_err(|error| error.to_string())?;
        let (stopped, accepted) = (stop.clone(), heard.clone());
        tasks.spawn(async move {
            loop {
                let next = tokio::select! {
                    () = stopped.cancelled() => return,
                    next = listener.next() => next,
                };
                let Some(channel) = next else { return };
                if accepted.send(Heard::Opened(Opened { channel, ours: false })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            overlay: overlay.clone(),
            heard,
            links: BTreeMap::new(),
            opening: BTreeSet::new(),
            made: 0,
            stop: stop.clone(),
            tasks: tasks.clone(),
        })
    }

    /// Opens a channel to each of these that has none.
    pub(super) fn want(&mut self, peers: &BTreeSet<NodeId>) {
        for peer in peers.iter().copied().filter(|peer| *peer != self.overlay.id()) {
            if self.links.contains_key(&peer) || !self.opening.insert(peer) {
                continue;
            }
            let (overlay, heard) = (self.overlay.clone(), self.heard.clone());
            self.tasks.spawn(async move {
                let opened = match overlay.open_channel(peer, KIND).await {
                    Ok(channel) => Heard::Opened(Opened { channel, ours: true }),
                    Err(error) => {
                        tracing::debug!(%peer, %error, "no channel for documents");
                        Heard::NotOpened(peer)
                    }
                };
                // Ignored because a machine that ended has nobody to tell.
                drop(heard.send(opened).await);
            });
        }
    }

    /// Whether there is a channel to a peer.
    pub(super) fn is_open(&self, peer: &NodeId) -> bool {
        self.links.contains_key(peer)
    }

    pub(super) fn not_opened(&mut self, peer: NodeId) {
        self.opening.remove(&peer);
    }

    /// Takes a channel into use, unless the other of two is.
    pub(super) fn opened(&mut self, opened: Opened, inboxes: &Inboxes) {
        let peer = opened.channel.peer();
        if opened.ours {
            self.opening.remove(&peer);
        }
        let lower_opened_it = opened.ours == (self.overlay.id() < peer);
        let at_once = self.links.get(&peer).is_some_and(|link| link.since.elapsed() < AT_ONCE);
        if at_once && !lower_opened_it {
            return;
        }
        self.drop_link(peer);
        self.made += 1;
        let number = self.made;
        let (frames, waiting) = mpsc::channel(FRAMES_MAX);
        let ended = self.stop.child_token();
        let (sender, receiver) = opened.channel.split();
        self.tasks.spawn(write(sender, waiting, ended.clone()));
        let reader =
            Reader { peer, line: Line { number, frames, ended: ended.clone() }, inboxes: inboxes.clone() };
        self.tasks.spawn(reader.run(receiver, self.heard.clone()));
        self.links.insert(peer, Link { number, since: Instant::now(), ended });
    }

    /// A channel ended; another may be in use already. If none is, it is worth another try once the other end cannot
    /// take that for one that both opened at once.
    pub(super) fn closed(&mut self, peer: NodeId, number: u64) {
        if self.links.get(&peer).is_some_and(|link| link.number == number) {
            self.drop_link(peer);
            let heard = self.heard.clone();
            tokio::spawn(async move {
                tokio::time::sleep(AT_ONCE).await;
                // Ignored because a switch that ended has nobody to tell.
                drop(heard.send(Heard::Missed(peer)).await);
            });
        }
    }

    pub(super) fn drop_link(&mut self, peer: NodeId) {
        if let Some(link) = self.links.remove(&peer) {
            link.ended.cancel();
        }
    }
}

async fn write(mut sender: ChannelSender, mut waiting: mpsc::Receiver<Vec<u8>>, ended: CancellationToken) {
    let mut together = Vec::new();
    loop {
        let count = tokio::select! {
            () = ended.cancelled() => return,
            count = waiting.recv_many(&mut together, TOGETHER) => count,
        };
        let sent = tokio::select! {
            () = ended.cancelled() => return,
            sent = sender.send_all(&together) => sent,
        };
        if count == 0 || sent.is_err() {
            return ended.cancel();
        }
        together.clear();
    }
}

/// Who reads a channel.
struct Reader {
    peer: NodeId,
    line: Line,
    inboxes: Inboxes,
}

impl Reader {
    async fn run(self, receiver: ChannelReceiver, heard: mpsc::Sender<Heard>) {
        let (peer, number) = (self.peer, self.line.number);
        for inbox in self.inboxes.each() {
            // Ignored because a machine that ended has nobody to tell.
            drop(inbox.send(Item::Up(peer, self.line.clone())).await);
        }
        self.read(receiver).await;
        self.line.ended.cancel();
        for inbox in self.inboxes.each() {
            // Ignored because a machine that ended has nobody to tell.
            drop(inbox.send(Item::Down { peer, number }).await);
        }
        // Ignored because a switch that ended has nobody to tell.
        drop(heard.send(Heard::Closed { peer, number }).await);
    }

    /// Gives frames to the machines until the channel ends.
    async fn read(&self, mut receiver: ChannelReceiver) {
        let (peer, number) = (self.peer, self.line.number);
        let waiting = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        loop {
            let next = tokio::select! {
                () = self.line.ended.cancelled() => return,
                next = receiver.next() => next,
            };
            let Some(Ok(frame)) = next else { return };
            let bytes = u32::try_from(frame.len().min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
            let Ok(room) = Arc::clone(&waiting).acquire_many_owned(bytes).await else { return };
            let input = Input::Received { peer, frame };
            let Some(inbox) = self.inboxes.of(&input) else { return };
            let Input::Received { frame, .. } = input else { return };
            if inbox.send(Item::Frame { peer, number, frame, room }).await.is_err() {
                return;
            }
        }
    }
}
