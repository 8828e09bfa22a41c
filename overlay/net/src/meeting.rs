//! How the followers of a topic meet.
//!
//! # What it does
//!
//! Gossip carries a message from neighbour to neighbour among those that follow its root. Where there are more
//! nodes than anybody keeps connections to, two followers of a rare topic need not have a neighbour in common:
//! each would speak to nobody. So followers of a root announce that in the DHT, as holders of a value do, and
//! look there for others.
//!
//! # Steps
//!
//! 1. A node that has followed a root for a second, and not only for an answer, announces it: at once, every 12
//!    hours, and no more when it stops. Holders forget it 48 hours later.
//! 2. While a root has fewer than three peers in its mesh, its followers are asked for and a few are dialed.
//!    The pause between two attempts grows from 5 s to 5 min: a small overlay has nobody else.
//! 3. Who publishes below a root of which it knows no follower looks for some first ([`introduce`]), at most
//!    every 30 s.
//!
//! # Bounds
//!
//! 64 roots at most are announced; 20 followers are asked for and 8 dialed at a time; 4 roots are seen to at a
//! time. A round lasts for 15 s at most for every 4 roots.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::kad::KBucketKey;
use libp2p_stream::Control;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use wattle_types::limits::PROVIDERS_PER_KEY_MAX;
use wattle_types::{NetworkName, NodeId, ProviderKey, TopicRoot};

use crate::behaviour::peer_id;
use crate::command::Command;
use crate::report::{Stopped, TopicInfo};
use crate::topics::is_inbox;
use crate::{Event, Overlay};

/// Roots that a node announces; it follows others all the same.
const ANNOUNCED_MAX: usize = 64;
/// A mesh of fewer peers looks for more.
const MESH_WANTED: usize = 3;
/// Followers asked for at a time: as many as a holder keeps.
const FOLLOWERS_ASKED: usize = PROVIDERS_PER_KEY_MAX;
const FOLLOWERS_DIALED: usize = 8;
/// Roots that are seen to at the same time.
const STEPS_AT_ONCE: usize = 4;
const ROUND: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// An announcement lives for 48 h where it is held.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(12 * 3600);
/// A lookup waits for ten seconds for a peer that does not answer; the announcement goes out after it.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(15);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a publisher waits for a follower to be found and to say what it follows.
const INTRODUCTION_MAX: Duration = Duration::from_secs(3);
const INTRODUCTION_STEP: Duration = Duration::from_millis(20);

/// An [`Overlay`] that does not keep the task alive once everybody else has let go of it.
pub(crate) struct WeakOverlay {
    me: NodeId,
    network: NetworkName,
    commands: mpsc::WeakSender<Command>,
    events: broadcast::Sender<Event>,
    streams: Control,
}

impl WeakOverlay {
    pub(crate) fn of(overlay: &Overlay) -> Self {
        Self {
            me: overlay.me,
            network: overlay.network.clone(),
            commands: overlay.commands.downgrade(),
            events: overlay.events.clone(),
            streams: overlay.streams.clone(),
        }
    }

    fn upgrade(&self) -> Option<Overlay> {
        Some(Overlay {
            me: self.me,
            network: self.network.clone(),
            commands: self.commands.upgrade()?,
            events: self.events.clone(),
            streams: self.streams.clone(),
        })
    }
}

/// What is done for a followed root, and when it is done next.
struct Followed {
    announce: Instant,
    announce_pause: Duration,
    look: Instant,
    look_pause: Duration,
    mesh: usize,
}

impl Followed {
    fn new(now: Instant) -> Self {
        let announce = now + ROUND;
        Self { announce, announce_pause: PAUSE_MIN, look: now, look_pause: PAUSE_MIN, mesh: 0 }
    }

    /// What is due now.
    async fn step(&mut self, overlay: &Overlay, key: ProviderKey) {
        let now = Instant::now();
        let lonely = self.mesh < MESH_WANTED;
        let announce = async {
            if self.announce <= now {
                let heard = overlay.announce(key, ANNOUNCE_TIMEOUT).await.is_ok();
                let pause = if heard { ANNOUNCE_EVERY } else { self.announce_pause };
                self.announce_pause = if heard { PAUSE_MIN } else { longer(self.announce_pause) };
                self.announce = Instant::now() + pause;
            }
        };
        let look = async {
            if !lonely {
                self.look_pause = PAUSE_MIN;
            } else if self.look <= now {
                dial_followers(overlay, key).await;
                self.look = Instant::now() + self.look_pause;
                self.look_pause = longer(self.look_pause);
            }
        };
        tokio::join!(announce, look);
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(PAUSE_MAX)
}

/// Announces and looks for as long as the overlay runs.
pub(crate) async fn run(overlay: WeakOverlay) {
    let mut followed = BTreeMap::new();
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(overlay) = overlay.upgrade() else { return };
        if round(&overlay, &mut followed).await.is_err() {
            return;
        }
    }
}

async fn round(overlay: &Overlay, followed: &mut BTreeMap<TopicRoot, Followed>) -> Result<(), Stopped> {
    let topics = overlay.topics().await?;
    let followed_root =
        |info: &TopicInfo| Some(info.patterns.iter().find(|(pattern, _)| !is_inbox(pattern))?.0.root());
    let now: BTreeMap<TopicRoot, &TopicInfo> =
        topics.iter().filter_map(|info| Some((followed_root(info)?, info))).collect();
    let left: Vec<TopicRoot> = followed.keys().filter(|root| !now.contains_key(root)).cloned().collect();
    for root in left {
        overlay.stop_providing(ProviderKey::of_topic(&overlay.network, &root)).await?;
        followed.remove(&root);
    }
    for (root, info) in now {
        if followed.len() < ANNOUNCED_MAX || followed.contains_key(&root) {
            let state = followed.entry(root).or_insert_with(|| Followed::new(Instant::now()));
            state.mesh = info.mesh.len();
        }
    }
    let mut steps = Vec::new();
    for (root, state) in followed {
        steps.push(state.step(overlay, ProviderKey::of_topic(&overlay.network, root)));
    }
    futures::stream::iter(steps).buffer_unordered(STEPS_AT_ONCE).collect::<()>().await;
    Ok(())
}

/// Connects to some who announced that they follow a root; whether any was reached.
async fn dial_followers(overlay: &Overlay, key: ProviderKey) -> bool {
    let found = overlay.find_providers(key, FOLLOWERS_ASKED, LOOKUP_TIMEOUT).await.unwrap_or_default();
    let mut others: Vec<NodeId> = found.into_iter().filter(|follower| *follower != overlay.me).collect();
    // The nearest to this node: others choose others, and no follower is everybody's choice.
    let me = KBucketKey::from(peer_id(overlay.me));
    others.sort_by_cached_key(|follower| me.distance(&KBucketKey::from(peer_id(*follower))));
    let dials = others.into_iter().take(FOLLOWERS_DIALED).map(async |follower| {
        match tokio::time::timeout(DIAL_TIMEOUT, overlay.reach_anywhere(follower)).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => tracing::debug!(?follower, %error, "a follower of a topic cannot be reached"),
            Err(_) => tracing::debug!(?follower, "a follower of a topic was not reached in time"),
        }
        false
    });
    futures::future::join_all(dials).await.contains(&true)
}

/// Looks for followers of a root for a publisher that knows none, until one is known or the time is over.
pub(crate) async fn introduce(overlay: &Overlay, root: TopicRoot) -> Result<(), Stopped> {
    if !overlay.is_unheard(root.clone()).await? {
        return Ok(());
    }
    // A new peer says what it follows in its first message.
    let mut heard = std::pin::pin!(async {
        while overlay.listeners(root.clone()).await? == 0 {
            tokio::time::sleep(INTRODUCTION_STEP).await;
        }
        Ok(())
    });
    let met = async {
        tokio::select! {
            heard = &mut heard => heard,
            reached = dial_followers(overlay, ProviderKey::of_topic(&overlay.network, &root)) => {
                if reached { heard.await } else { Ok(()) }
            }
        }
    };
    // Over in vain: the publisher learns that nobody got its message.
    tokio::time::timeout(INTRODUCTION_MAX, met).await.unwrap_or(Ok(()))
}
