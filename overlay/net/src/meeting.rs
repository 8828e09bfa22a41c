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
//! 1. A node that has followed a root for a second announces it, and takes that back when it stops.
//! 2. While a root has fewer than three peers in its mesh, its followers are asked for and a few are dialed.
//!    The pause between two attempts grows from 5 s to 5 min: a small overlay has nobody else.
//! 3. Who publishes below a root of which it knows no follower looks for some first ([`introduce`]), at most
//!    every 30 s.
//!
//! # Bounds
//!
//! 64 roots at most are announced; 8 followers are asked for at a time; one lookup runs at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p_stream::Control;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use wattle_types::{NetworkName, NodeId, ProviderKey, TopicRoot};

use crate::command::Command;
use crate::report::{Stopped, TopicInfo};
use crate::{Event, Overlay};

/// Roots that a node announces; it follows others all the same.
const ANNOUNCED_MAX: usize = 64;
/// A mesh of fewer peers looks for more.
const MESH_WANTED: usize = 3;
/// Followers asked for at a time.
const FOLLOWERS_ASKED: usize = 8;
const ROUND: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// An announcement lives for 24 h where it is held.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(12 * 3600);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
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

/// What is done for a followed root.
struct Followed {
    announced: Option<Instant>,
    next: Instant,
    pause: Duration,
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
    let roots = topics.iter().filter(|info| !info.patterns.is_empty());
    let now: BTreeMap<TopicRoot, &TopicInfo> =
        roots.filter_map(|info| Some((info.patterns.first()?.0.root(), info))).collect();
    let left: Vec<TopicRoot> = followed.keys().filter(|root| !now.contains_key(root)).cloned().collect();
    for root in left {
        overlay.stop_providing(ProviderKey::of_topic(&overlay.network, &root)).await?;
        followed.remove(&root);
    }
    for (root, info) in now.into_iter().take(ANNOUNCED_MAX) {
        let key = ProviderKey::of_topic(&overlay.network, &root);
        let state = followed.entry(root).or_insert(Followed {
            announced: None,
            next: Instant::now(),
            pause: PAUSE_MIN,
        });
        let announce = async {
            let due = state.announced.is_none_or(|at| at.elapsed() >= ANNOUNCE_EVERY);
            (due && overlay.announce(key, LOOKUP_TIMEOUT).await.is_ok()).then(Instant::now)
        };
        let lonely = info.mesh.len() < MESH_WANTED;
        let look = async {
            if lonely && state.next <= Instant::now() {
                dial_followers(overlay, key).await;
                Some(Instant::now() + state.pause)
            } else {
                None
            }
        };
        let (announced, looked) = tokio::join!(announce, look);
        state.announced = announced.or(state.announced);
        if !lonely {
            state.pause = PAUSE_MIN;
        } else if let Some(next) = looked {
            (state.next, state.pause) = (next, (state.pause * 2).min(PAUSE_MAX));
        }
    }
    Ok(())
}

/// Connects to some who announced that they follow a root; whether any was reached.
async fn dial_followers(overlay: &Overlay, key: ProviderKey) -> bool {
    let mut reached = false;
    let found = overlay.find_providers(key, FOLLOWERS_ASKED, LOOKUP_TIMEOUT).await.unwrap_or_default();
    for follower in found.into_iter().filter(|follower| *follower != overlay.me) {
        match overlay.reach_anywhere(follower).await {
            Ok(_) => reached = true,
            Err(error) => tracing::debug!(?follower, %error, "a follower of a topic cannot be reached"),
        }
    }
    reached
}

/// Looks for followers of a root for a publisher that knows none, until one is known or the time is over.
pub(crate) async fn introduce(overlay: &Overlay, root: TopicRoot) -> Result<(), Stopped> {
    if !overlay.is_unheard(root.clone()).await? {
        return Ok(());
    }
    let met = async {
        let reached = dial_followers(overlay, ProviderKey::of_topic(&overlay.network, &root)).await;
        // A new peer says what it follows in its first message.
        while reached && overlay.listeners(root.clone()).await? == 0 {
            tokio::time::sleep(INTRODUCTION_STEP).await;
        }
        Ok(())
    };
    // Over in vain: the publisher learns that nobody got its message.
    tokio::time::timeout(INTRODUCTION_MAX, met).await.unwrap_or(Ok(()))
}
