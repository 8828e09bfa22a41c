//! One channel to each peer that shares a document.
//!
//! Whoever wants one opens it. When both do at once, both keep the one that the lower id opened. One that comes
//! later takes the place of the old: its opener has lost that, though nothing was heard of it here yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wattle_docs::Input;
use wattle_net::{Channel, ChannelReceiver, ChannelSender, Overlay};
use wattle_types::{DocId, NodeId};

use super::KIND;

/// Frames that wait for a peer. One that does not read loses its channel, and gets what it missed when it is
/// back.
const FRAMES_MAX: usize = 512;
/// Channels that open within this span were opened at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Frames that are flushed together.
const TOGETHER: usize = 64;

/// What the machine's task hears.
pub(super) enum Heard {
    /// A channel is open.
    Opened(Opened),
    /// This node could not open one.
    NotOpened(NodeId),
    /// A channel ended.
    Closed { peer: NodeId, number: u64 },
    /// A frame came.
    Frame { peer: NodeId, number: u64, frame: Vec<u8> },
    /// Something for the machine: the disk, a lookup.
    Input(Input),
    /// A lookup of who holds a document ended.
    Sought(DocId),
}

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
    frames: mpsc::Sender<Vec<u8>>,
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

    pub(super) fn not_opened(&mut self, peer: NodeId) {
        self.opening.remove(&peer);
    }

    /// Takes a channel into use; gives its peer when it is the one in use now.
    pub(super) fn opened(&mut self, opened: Opened) -> Option<NodeId> {
        let peer = opened.channel.peer();
        if opened.ours {
            self.opening.remove(&peer);
        }
        let lower_opened_it = opened.ours == (self.overlay.id() < peer);
        let at_once = self.links.get(&peer).is_some_and(|link| link.since.elapsed() < AT_ONCE);
        if at_once && !lower_opened_it {
            return None;
        }
        self.drop_link(peer);
        self.made += 1;
        let number = self.made;
        let (frames, waiting) = mpsc::channel(FRAMES_MAX);
        let ended = self.stop.child_token();
        let (sender, receiver) = opened.channel.split();
        self.tasks.spawn(write(sender, waiting, ended.clone()));
        self.tasks.spawn(read(receiver, peer, number, self.heard.clone(), ended.clone()));
        self.links.insert(peer, Link { number, since: Instant::now(), frames, ended });
        Some(peer)
    }

    /// Says whether the channel in use ended.
    pub(super) fn closed(&mut self, peer: NodeId, number: u64) -> bool {
        let current = self.is_current(peer, number);
        if current {
            self.drop_link(peer);
        }
        current
    }

    pub(super) fn is_current(&self, peer: NodeId, number: u64) -> bool {
        self.links.get(&peer).is_some_and(|link| link.number == number)
    }

    pub(super) fn drop_link(&mut self, peer: NodeId) {
        if let Some(link) = self.links.remove(&peer) {
            link.ended.cancel();
        }
    }

    /// Sends a frame, or gives the channel up when its peer does not keep up.
    pub(super) fn send(&self, peer: NodeId, frame: Vec<u8>) {
        let Some(link) = self.links.get(&peer) else { return };
        if link.frames.try_send(frame).is_err() {
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

async fn read(
    mut receiver: ChannelReceiver,
    peer: NodeId,
    number: u64,
    heard: mpsc::Sender<Heard>,
    ended: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            () = ended.cancelled() => None,
            next = receiver.next() => next,
        };
        let Some(Ok(frame)) = next else { break };
        if heard.send(Heard::Frame { peer, number, frame }).await.is_err() {
            break;
        }
    }
    ended.cancel();
    // Ignored because a machine that ended has nobody to tell.
    drop(heard.send(Heard::Closed { peer, number }).await);
}
