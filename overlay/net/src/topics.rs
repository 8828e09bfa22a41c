//! Topics: messages by subject over gossipsub.
//!
//! # What it does
//!
//! One gossip mesh carries everything below a root (the first word of a topic), and a pattern is a filter at
//! the subscriber. So wildcards need no announcement and no second protocol, and a request's answer comes
//! back through the mesh it went out by.
//!
//! # Steps
//!
//! 1. `subscribe` joins the mesh of each pattern's root; when the last subscription of a root is dropped the
//!    mesh is left.
//! 2. `publish` gives the message to the mesh (or, not being in it, to known subscribers) and to
//!    subscriptions of this node.
//! 3. An arriving message was signed by its author (gossipsub, strict); it is decoded exactly, its topic must
//!    lie below the mesh it came through, and only then it is passed on. A message that breaks this costs its
//!    forwarder score (gossipsub v1.1, P4).
//!
//! # Bounds and policy
//!
//! A subscription that lags 1024 messages loses the newest and is told how many. Gossip forgets: who is not
//! there does not get it later; that is what documents and the log are for.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, TopicHash};
use libp2p::swarm::Swarm;
use serde_bytes::ByteBuf;
use tokio::sync::mpsc;
use wattle_types::limits::{TOPIC_MESSAGE_BYTES_MAX, TOPIC_PAYLOAD_BYTES_MAX};
use wattle_types::{
    ContentHash, NetworkName, NodeId, Time, Topic, TopicMessage, TopicPattern, TopicRoot, TraceContext, cbor,
};

use crate::behaviour::{Behaviour, node_id, topic_score};
use crate::command::{TopicsCommand, answer};
use crate::event::Watchers;
use crate::report::{Delivery, Lagged, PublishError, Published, RequestError, TopicInfo};
use crate::translate::GossipInput;
use crate::{Misbehaviour, Overlay};

/// The word below a root under which answers to requests arrive.
const INBOX: &str = "_reply";

/// Whether somebody only waits for an answer there.
pub(crate) fn is_inbox(pattern: &TopicPattern) -> bool {
    pattern.as_str().split('.').nth(1) == Some(INBOX)
}

/// One subscriber of this node.
struct Subscriber {
    patterns: Vec<TopicPattern>,
    deliveries: mpsc::Sender<Result<Delivery, Lagged>>,
    lost: u64,
}

/// Counters of a root.
#[derive(Clone, Copy, Default)]
struct Counters {
    received: u64,
    published: u64,
}

/// The part of the actor that knows topics.
pub(crate) struct Topics {
    me: NodeId,
    network: NetworkName,
    watchers: Watchers,
    subscribers: Vec<Subscriber>,
    joined: BTreeMap<TopicRoot, IdentTopic>,
    counters: BTreeMap<TopicRoot, Counters>,
    /// When followers of a root were last looked for because a publisher knew none.
    sought: BTreeMap<TopicRoot, Time>,
}

/// How often a publisher that nobody hears looks for followers.
const SEEK_EVERY: Duration = Duration::from_secs(30);

/// Roots whose counters are kept; others are still served.
const ROOTS_COUNTED_MAX: usize = 1024;

impl Topics {
    pub(crate) const fn new(me: NodeId, network: NetworkName, watchers: Watchers) -> Self {
        Self {
            me,
            network,
            watchers,
            subscribers: Vec::new(),
            joined: BTreeMap::new(),
            counters: BTreeMap::new(),
            sought: BTreeMap::new(),
        }
    }

    pub(crate) fn command(&mut self, now: Time, swarm: &mut Swarm<Behaviour>, command: TopicsCommand) {
        match command {
            TopicsCommand::Publish { message, reply } => answer(reply, self.publish(swarm, message)),
            TopicsCommand::Subscribe { patterns, deliveries, reply } => {
                for pattern in &patterns {
                    self.join(swarm, pattern.root());
                }
                self.subscribers.push(Subscriber { patterns, deliveries, lost: 0 });
                answer(reply, ());
            }
            TopicsCommand::List(reply) => answer(reply, self.list(swarm)),
            TopicsCommand::Listeners { root, reply } => answer(reply, self.receivers(swarm, &root)),
            TopicsCommand::IsUnheard { root, reply } => answer(reply, self.is_unheard(now, swarm, root)),
        }
    }

    fn join(&mut self, swarm: &mut Swarm<Behaviour>, root: TopicRoot) {
        if self.joined.contains_key(&root) {
            return;
        }
        let topic = IdentTopic::new(root.gossip_topic(&self.network));
        let gossip = &mut swarm.behaviour_mut().gossip;
        if let Err(error) = gossip.set_topic_params(topic.clone(), topic_score()) {
            tracing::warn!(root = root.as_str(), error, "a topic's peers are not scored");
        }
        if let Err(error) = gossip.subscribe(&topic) {
            tracing::warn!(root = root.as_str(), %error, "cannot follow a topic");
        }
        self.joined.insert(root, topic);
    }

    fn publish(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        message: TopicMessage,
    ) -> Result<Published, PublishError> {
        let size = message.payload.len();
        if size > TOPIC_PAYLOAD_BYTES_MAX {
            return Err(PublishError::TooLarge { got: size, max: TOPIC_PAYLOAD_BYTES_MAX });
        }
        let root = message.topic.root();
        let receivers = self.receivers(swarm, &root);
        let hash = TopicHash::from_raw(root.gossip_topic(&self.network));
        let mesh_peers = match swarm.behaviour_mut().gossip.publish(hash, cbor::encode(&message)) {
            Ok(_) => receivers,
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => 0,
            Err(error) => {
                tracing::debug!(%error, "a message was not published");
                return Err(PublishError::Busy);
            }
        };
        if let Some(counters) = self.counters_of(root) {
            counters.published += 1;
        }
        let local = self.deliver(&Delivery { from: self.me, sequence: None, message });
        Ok(Published { mesh_peers, local })
    }

    /// How many peers a message below `root` is given to: the mesh, or, not being in it, the subscribers
    /// known.
    fn receivers(&self, swarm: &Swarm<Behaviour>, root: &TopicRoot) -> usize {
        let gossip = &swarm.behaviour().gossip;
        let hash = TopicHash::from_raw(root.gossip_topic(&self.network));
        let mesh = gossip.mesh_peers(&hash).count();
        if mesh > 0 { mesh } else { gossip.all_peers().filter(|(_, topics)| topics.contains(&&hash)).count() }
    }

    /// Whether a publisher below `root` should look for followers: none is known, and nobody looked lately.
    fn is_unheard(&mut self, now: Time, swarm: &Swarm<Behaviour>, root: TopicRoot) -> bool {
        self.sought.retain(|_, at| now.since(*at) < SEEK_EVERY);
        let due = self.sought.len() < ROOTS_COUNTED_MAX && !self.sought.contains_key(&root);
        let unheard = due && self.receivers(swarm, &root) == 0;
        if unheard {
            self.sought.insert(root, now);
        }
        unheard
    }

    pub(crate) fn on_event(&mut self, swarm: &mut Swarm<Behaviour>, input: GossipInput) {
        match input {
            GossipInput::Message { forwarder, id, message } => {
                let verdict = self.check(&message);
                let acceptance = match &verdict {
                    Ok(_) => MessageAcceptance::Accept,
                    Err(_) => MessageAcceptance::Reject,
                };
                swarm.behaviour_mut().gossip.report_message_validation_result(&id, &forwarder, acceptance);
                match verdict {
                    Ok(delivery) => {
                        if let Some(counters) = self.counters_of(delivery.message.topic.root()) {
                            counters.received += 1;
                        }
                        self.deliver(&delivery);
                    }
                    Err(why) => {
                        if let Some(peer) = node_id(&forwarder) {
                            self.watchers.complain(peer, Misbehaviour::BadMessage(why));
                        }
                    }
                }
            }
            GossipInput::Slow { peer } => tracing::debug!(?peer, "a peer does not keep up with gossip"),
        }
    }

    /// Holds a message to the rules of step 3.
    fn check(&self, message: &gossipsub::Message) -> Result<Delivery, String> {
        let from = message.source.as_ref().and_then(node_id).ok_or("it names no author")?;
        let decoded: TopicMessage =
            cbor::decode(&message.data, TOPIC_MESSAGE_BYTES_MAX).map_err(|error| error.to_string())?;
        if decoded.payload.len() > TOPIC_PAYLOAD_BYTES_MAX {
            return Err("its payload is too large".to_owned());
        }
        if decoded.topic.root().gossip_topic(&self.network) != message.topic.as_str() {
            return Err("its topic belongs to another mesh".to_owned());
        }
        Ok(Delivery { from, sequence: message.sequence_number, message: decoded })
    }

    /// Gives a message to every subscriber whose pattern matches; how many got it.
    fn deliver(&mut self, delivery: &Delivery) -> usize {
        let mut delivered = 0;
        for subscriber in &mut self.subscribers {
            if !subscriber.patterns.iter().any(|pattern| pattern.matches(&delivery.message.topic)) {
                continue;
            }
            if subscriber.lost > 0 && subscriber.deliveries.try_send(Err(Lagged(subscriber.lost))).is_ok() {
                subscriber.lost = 0;
            }
            match subscriber.deliveries.try_send(Ok(delivery.clone())) {
                Ok(()) => delivered += 1,
                // Closed ones are swept by the next tick.
                Err(_) => subscriber.lost = subscriber.lost.saturating_add(1),
            }
        }
        delivered
    }

    /// Leaves the meshes that nobody here follows any more.
    pub(crate) fn on_tick(&mut self, swarm: &mut Swarm<Behaviour>) {
        self.subscribers.retain(|subscriber| !subscriber.deliveries.is_closed());
        let followed = |root: &TopicRoot| {
            self.subscribers
                .iter()
                .any(|subscriber| subscriber.patterns.iter().any(|pattern| pattern.root() == *root))
        };
        let left: Vec<TopicRoot> = self.joined.keys().filter(|root| !followed(root)).cloned().collect();
        for root in left {
            if let Some(topic) = self.joined.remove(&root) {
                swarm.behaviour_mut().gossip.unsubscribe(&topic);
            }
        }
    }

    fn counters_of(&mut self, root: TopicRoot) -> Option<&mut Counters> {
        if self.counters.len() >= ROOTS_COUNTED_MAX && !self.counters.contains_key(&root) {
            return None;
        }
        Some(self.counters.entry(root).or_default())
    }

    fn list(&self, swarm: &Swarm<Behaviour>) -> Vec<TopicInfo> {
        let gossip = &swarm.behaviour().gossip;
        let roots: std::collections::BTreeSet<&TopicRoot> =
            self.joined.keys().chain(self.counters.keys()).collect();
        let info = |root: &TopicRoot| {
            let hash = TopicHash::from_raw(root.gossip_topic(&self.network));
            let mut patterns: BTreeMap<TopicPattern, usize> = BTreeMap::new();
            for pattern in self.subscribers.iter().flat_map(|subscriber| &subscriber.patterns) {
                if pattern.root() == *root {
                    *patterns.entry(pattern.clone()).or_default() += 1;
                }
            }
            let counters = self.counters.get(root).copied().unwrap_or_default();
            TopicInfo {
                root: root.as_str().to_owned(),
                patterns: patterns.into_iter().collect(),
                mesh: gossip.mesh_peers(&hash).filter_map(node_id).collect(),
                subscribers: gossip
                    .all_peers()
                    .filter(|(_, topics)| topics.contains(&&hash))
                    .filter_map(|(peer, _)| node_id(peer))
                    .collect(),
                received: counters.received,
                published: counters.published,
            }
        };
        roots.into_iter().map(info).collect()
    }
}

/// Publishes a request and awaits the first answer.
///
/// The answer comes below the same root, so it travels the mesh that carried the request; its last word is
/// unguessable, so that nobody answers by accident.
pub(crate) async fn request(
    overlay: &Overlay,
    topic: Topic,
    payload: Vec<u8>,
    timeout: Duration,
    trace: Option<TraceContext>,
) -> Result<Delivery, RequestError> {
    let timed_out = |listeners| RequestError::Timeout { after: timeout, listeners };
    let mut nonce = [0; 16];
    if let Err(error) = getrandom::fill(&mut nonce) {
        // Zeros then: answers to two requests of this node could mix, nothing worse.
        tracing::warn!(%error, "the system gave no random bytes");
    }
    let secret = ContentHash::of(&[overlay.me.public_key().as_slice(), &nonce].concat()).to_string();
    let inbox = format!("{}.{INBOX}.{secret}", topic.root().as_str());
    let Ok(reply_to) = inbox.parse::<Topic>() else { return Err(timed_out(0)) };
    let Ok(pattern) = inbox.parse::<TopicPattern>() else { return Err(timed_out(0)) };
    let mut answers = overlay.subscribe(vec![pattern]).await.map_err(PublishError::from)?;
    let root = topic.root();
    let message = TopicMessage { topic, payload: ByteBuf::from(payload), reply_to: Some(reply_to), trace };
    let begun = tokio::time::Instant::now();
    overlay.publish_message(message).await?;
    // After the publication, which looks for followers when none is known.
    let listeners = overlay.listeners(root).await.map_err(PublishError::from)?;
    let answer = tokio::time::timeout_at(begun + timeout, async {
        loop {
            match answers.next().await {
                Some(Ok(delivery)) => return Some(delivery),
                // An inbox holds answers to one request: too many of them still hold a first one.
                Some(Err(Lagged(_))) => {}
                None => return None,
            }
        }
    });
    answer.await.ok().flatten().ok_or_else(|| timed_out(listeners))
}
