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
//! 1. A node that has followed a root for a second, and not only for an answer, announces it every 12 hours, if
//!    fewer than four of the followers it is connected to are nearer to the root's key. Those stand for all:
//!    were everybody announced, a popular topic would cost each of its followers a lookup, for twenty places at
//!    the holders. An announcement is not taken back: holders forget it after 48 hours.
//! 2. While it is connected to fewer than three others, it asks for followers and dials a few. The pause between
//!    two attempts grows from 5 s to 5 min: a small overlay has nobody else. Those that are announced look every
//!    5 min, so that two crowds that do not know each other become one.
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
use futures::stream::FuturesUnordered;
use libp2p::kad::KBucketKey;
use libp2p_stream::Control;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use wattle_types::limits::PROVIDERS_PER_KEY_MAX;
use wattle_types::{NetworkName, NodeId, ProviderKey, TopicRoot};

use crate::behaviour::peer_id;
use crate::channels::Places;
use crate::command::Command;
use crate::report::{Stopped, TopicInfo};
use crate::topics::is_inbox;
use crate::{Event, Overlay};

/// Roots that a node announces; it follows others all the same.
const ANNOUNCED_MAX: usize = 64;
/// Who is connected to fewer followers looks for more.
const FOLLOWERS_WANTED: usize = 3;
/// Followers that stand for all that are connected to them.
const ANNOUNCERS: usize = 4;
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
    places: Places,
}

impl WeakOverlay {
    pub(crate) fn of(overlay: &Overlay) -> Self {
        Self {
            me: overlay.me,
            network: overlay.network.clone(),
            commands: overlay.commands.downgrade(),
            events: overlay.events.clone(),
            streams: overlay.streams.clone(),
            places: overlay.places.clone(),
        }
    }

    fn upgrade(&self) -> Option<Overlay> {
        Some(Overlay {
            me: self.me,
            network: self.network.clone(),
            commands: self.commands.upgrade()?,
            events: self.events.clone(),
            streams: self.streams.clone(),
            places: self.places.clone(),
        })
    }
}

/// What was done for a followed root.
struct Followed {
    since: Instant,
    announced: Option<Instant>,
    announce_pause: Duration,
    looked: Option<Instant>,
    look_pause: Duration,
    /// Connected peers that follow it too.
    others: Vec<NodeId>,
}

impl Followed {
    fn new(since: Instant) -> Self {
        let (announce_pause, look_pause) = (PAUSE_MIN, PAUSE_MIN);
        Self { since, announced: None, announce_pause, looked: None, look_pause, others: Vec::new() }
    }

    /// What is due now.
    async fn step(&mut self, overlay: &Overlay, key: ProviderKey) {
        let now = Instant::now();
        let due = |last: Option<Instant>, pause| last.is_none_or(|at| now.duration_since(at) >= pause);
        let settled = now.duration_since(self.since) >= ROUND;
        let lonely = self.others.len() < FOLLOWERS_WANTED;
        let chosen = is_chosen(overlay.me, &self.others, key);
        let announce = async {
            if chosen && settled && due(self.announced, self.announce_pause) {
                let heard = overlay.announce(key, ANNOUNCE_TIMEOUT).await.is_ok();
                self.announced = Some(Instant::now());
                self.announce_pause = if heard { ANNOUNCE_EVERY } else { longer(self.announce_pause) };
            }
        };
        let look = async {
            if !lonely {
                self.look_pause = PAUSE_MIN;
            }
            let pause = if lonely { self.look_pause } else { PAUSE_MAX };
            if (lonely || chosen) && settled && due(self.looked, pause) {
                dial_followers(overlay, key, FOLLOWERS_DIALED).await;
                self.looked = Some(Instant::now());
                self.look_pause = longer(self.look_pause);
            }
        };
        tokio::join!(announce, look);
    }
}

fn longer(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(PAUSE_MAX)
}

/// Whether few of those it can see are nearer to the key: then it stands for them all.
fn is_chosen(me: NodeId, others: &[NodeId], key: ProviderKey) -> bool {
    let target = KBucketKey::new(key.as_bytes().to_vec());
    let distance = |node: NodeId| target.distance(&KBucketKey::from(peer_id(node)));
    let mine = distance(me);
    others.iter().filter(|other| distance(**other) < mine).count() < ANNOUNCERS
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
            state.others.clone_from(&info.subscribers);
        }
    }
    let mut steps = Vec::new();
    for (root, state) in followed {
        steps.push(state.step(overlay, ProviderKey::of_topic(&overlay.network, root)));
    }
    futures::stream::iter(steps).buffer_unordered(STEPS_AT_ONCE).collect::<()>().await;
    Ok(())
}

/// Connects to some who announced that they follow a root, and waits for `enough` of them; whether any was
/// reached.
async fn dial_followers(overlay: &Overlay, key: ProviderKey, enough: usize) -> bool {
    let found = overlay.find_providers(key, FOLLOWERS_ASKED, LOOKUP_TIMEOUT).await.unwrap_or_default();
    let mut others: Vec<NodeId> = found.into_iter().filter(|follower| *follower != overlay.me).collect();
    // The nearest to this node: others choose others, and no follower is everybody's choice.
    let me = KBucketKey::from(peer_id(overlay.me));
    others.sort_by_cached_key(|follower| me.distance(&KBucketKey::from(peer_id(*follower))));
    let dial = async |follower| {
        match tokio::time::timeout(DIAL_TIMEOUT, overlay.reach_anywhere(follower, Vec::new())).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => tracing::debug!(?follower, %error, "a follower of a topic cannot be reached"),
            Err(_) => tracing::debug!(?follower, "a follower of a topic was not reached in time"),
        }
        false
    };
    let mut dials: FuturesUnordered<_> = others.into_iter().take(FOLLOWERS_DIALED).map(dial).collect();
    let mut reached = 0;
    while reached < enough
        && let Some(success) = dials.next().await
    {
        reached += usize::from(success);
    }
    reached > 0
}

/// Looks for followers of a root for a publisher that knows none, until one is known or the time is over.
pub(crate) async fn introduce(overlay: &Overlay, root: TopicRoot) -> Result<(), Stopped> {
    if !overlay.is_unheard(root.clone()).await? {
        return Ok(());
    }
    let met = async {
        // Reached means identified: what is said before may go over a connection that loses against its twin.
        let reached = dial_followers(overlay, ProviderKey::of_topic(&overlay.network, &root), 1).await;
        // A new peer says what it follows in its first message.
        while reached && overlay.listeners(root.clone()).await? == 0 {
            tokio::time::sleep(INTRODUCTION_STEP).await;
        }
        Ok(())
    };
    // Over in vain: the publisher learns that nobody got its message.
    tokio::time::timeout(INTRODUCTION_MAX, met).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_crowd_four_are_announced_and_whoever_is_alone_always() {
        let nodes: Vec<NodeId> = (0..50).map(|number| NodeId::from_public_key([number; 32])).collect();
        let network = NetworkName::default();
        let topic: wattle_types::Topic = "news.today".parse().unwrap();
        let key = ProviderKey::of_topic(&network, &topic.root());
        let others = |me| nodes.iter().copied().filter(|other| *other != me).collect::<Vec<_>>();
        assert_eq!(nodes.iter().filter(|me| is_chosen(**me, &others(**me), key)).count(), ANNOUNCERS);
        assert!(nodes.iter().all(|me| is_chosen(*me, &[], key)));
    }
}
