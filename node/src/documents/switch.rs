//! What documents need once for the whole node: channels to peers, lookups in the DHT, who is shunned.
//!
//! It decides nothing about a document, and no document waits for it: machines tell it what they want, and channels
//! speak with the machines themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wattle_docs::{Input, Shard};
use wattle_net::Overlay;
use wattle_types::{DocId, DocTag, Liveness, NodeId, ProviderKey};

use super::announcements::Announcements;
use super::links::{Links, Opened};
use super::lookups::Lookups;
use super::shard::{Inboxes, Item};

/// How often peers without a channel are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long a peer that broke the protocol is neither looked for nor listened to.
const SHUN: Duration = Duration::from_secs(30);
/// Peers that are shunned at once; beyond it the one that comes back first does so early.
const SHUNNED_MAX: usize = 1024;
/// Peers that are remembered as away; who is beyond is tried as any other.
const AWAY_MAX: usize = 4096;

/// How often machines are told that memory is short.
const SHED_EVERY: Duration = Duration::from_secs(1);

/// What the switch hears.
pub(super) enum Heard {
    /// A channel is open.
    Opened(Opened),
    /// This node could not open one.
    NotOpened(NodeId),
    /// A channel ended.
    Closed { peer: NodeId, number: u64 },
    /// A channel ended a while ago.
    Missed(NodeId),
    /// A lookup of who holds a document ended.
    Sought(DocId),
    /// A lookup found who may hold a document.
    FoundAt(NodeId),
    /// Whom a machine's documents are shared with.
    Wanted(Shard, BTreeSet<NodeId>),
    /// A document is to be found.
    Seek { doc: DocId, tag: DocTag, members: Vec<NodeId> },
    /// A document is here.
    Held(DocTag),
    /// A document is gone from here.
    Dropped(DocTag),
    /// Membership says how far a peer is there.
    Liveness(NodeId, Liveness),
    /// A peer broke the protocol.
    Misbehaved(NodeId),
    /// Open documents take too much memory.
    Full,
    /// Somebody waits for a document that has not arrived, until nobody looks for it any more.
    LookFor { doc: DocId, tag: DocTag, ended: oneshot::Sender<()> },
}

/// What the machines share.
pub(super) struct Switch {
    pub(super) overlay: Overlay,
    pub(super) inboxes: Inboxes,
    pub(super) links: Links,
    pub(super) lookups: Lookups,
    pub(super) announcements: Announcements,
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) shunned: BTreeMap<NodeId, Instant>,
    /// Peers that membership holds for away or gone: they are not tried again and again.
    pub(super) away: BTreeSet<NodeId>,
    /// By the machine's place.
    pub(super) wanted: BTreeMap<u16, BTreeSet<NodeId>>,
    /// When machines were last told that memory is short.
    pub(super) shed: Option<Instant>,
}

impl Switch {
    pub(super) async fn run(mut self, mut hears: mpsc::Receiver<Heard>, stop: CancellationToken) {
        let mut again = tokio::time::interval(TRY_AGAIN);
        let mut happens = self.overlay.events();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(heard) = hears.recv() => self.on_heard(heard),
                _ = again.tick() => {
                    let wanted = self.wanted.values().flatten().copied();
                    let near = wanted.filter(|peer| !self.away.contains(peer)).collect();
                    self.want(near);
                }
                event = happens.recv() => match event {
                    Ok(wattle_net::Event::Connected(info)) if self.is_wanted(info.peer) => {
                        self.away.remove(&info.peer);
                        self.want([info.peer].into());
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                else => return,
            }
        }
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Opened(link) if self.is_shunned(link.peer()) => self.links.not_opened(link.peer()),
            Heard::Opened(link) => {
                // Whatever was said of it, it is here.
                self.away.remove(&link.peer());
                self.links.opened(link, &self.inboxes);
            }
            Heard::Closed { peer, number } => self.links.closed(peer, number),
            Heard::Missed(peer) if self.is_wanted(peer) && !self.away.contains(&peer) => {
                self.want([peer].into());
            }
            Heard::Missed(_) => {}
            Heard::NotOpened(peer) => self.links.not_opened(peer),
            Heard::Sought(doc) => self.lookups.ended(doc),
            Heard::FoundAt(peer) => self.want([peer].into()),
            Heard::Wanted(shard, peers) => {
                self.wanted.insert(shard.index(), peers.clone());
                self.want(peers);
            }
            Heard::Seek { doc, tag, members } => {
                let known = self.is_reached(&members);
                self.want(members.into_iter().collect());
                self.seek(doc, tag, known);
            }
            Heard::Held(tag) => self.announcements.add(tag),
            Heard::Dropped(tag) => self.take_back(tag),
            Heard::Liveness(peer, liveness) => self.on_liveness(peer, liveness),
            Heard::Misbehaved(peer) => self.send_away(peer),
            Heard::Full => self.shed(),
            Heard::LookFor { doc, tag, ended } => self.look_for(doc, tag, ended),
        }
    }

    fn on_liveness(&mut self, peer: NodeId, liveness: Liveness) {
        if !liveness.is_near() {
            if self.away.len() < AWAY_MAX {
                self.away.insert(peer);
            }
            return;
        }
        if self.away.remove(&peer) && self.is_wanted(peer) {
            self.want([peer].into());
        }
    }

    /// Lets every machine put away what is not in use, once a second: more often is of no use.
    fn shed(&mut self) {
        if self.shed.is_some_and(|at| at.elapsed() < SHED_EVERY) {
            return;
        }
        self.shed = Some(Instant::now());
        for inbox in self.inboxes.each() {
            // Ignored because a machine whose inbox is full has none but documents in use, or is told again.
            drop(inbox.try_send(Item::Input(Input::Shed)));
        }
    }

    fn send_away(&mut self, peer: NodeId) {
        self.links.drop_link(peer);
        self.shun(peer);
        let overlay = self.overlay.clone();
        tokio::spawn(async move {
            if overlay.disconnect(peer).await.is_err() {
                tracing::trace!("a node that stops has no peers to send away");
            }
        });
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

    fn is_wanted(&self, peer: NodeId) -> bool {
        self.wanted.values().any(|wanted| wanted.contains(&peer))
    }

    fn want(&mut self, mut peers: BTreeSet<NodeId>) {
        peers.retain(|peer| !self.is_shunned(*peer));
        self.links.want(&peers);
    }

    fn take_back(&self, tag: DocTag) {
        self.announcements.remove(&tag);
        let overlay = self.overlay.clone();
        let key = ProviderKey::of_document(overlay.network(), &tag);
        tokio::spawn(async move {
            if overlay.stop_providing(key).await.is_err() {
                tracing::trace!("a node that stops announces nothing");
            }
        });
    }
}
